//! Serves a made-up catalog by DNS, for dnsperf and its like to measure: `s0` to `s999` with one instance each, `big` with 200.
//!
//!     cargo run --release -p konsul-fronts --example dns_load -- [PORT] [RUNTIMES] [names|zone]
//!
//! `names` prints questions for dnsperf, `zone` the same catalog as a zone for another server, and serves nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use konsul_fronts::dns::{
    Address, Directory, DnsServer, Health, Instance, Node, PtrTarget, Service, Settings,
};
use tokio_util::sync::CancellationToken;

const SERVICES: u32 = 1_000;

struct Made(HashMap<String, Arc<Service>>);

impl Directory for Made {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        if namespace == "default" { self.0.get(name).cloned() } else { None }
    }

    fn node(&self, _: &str, _: &str) -> Option<Arc<Node>> {
        None
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "default"
    }

    fn by_address(&self, _: IpAddr) -> Vec<PtrTarget> {
        Vec::new()
    }

    fn age(&self) -> Option<Duration> {
        None
    }

    fn revision(&self) -> u64 {
        1
    }
}

fn instance(id: &str, number: u32) -> Instance {
    Instance {
        id: id.into(),
        address: Address::Ip(Ipv4Addr::from(0x0a00_0000 + number).into()),
        port: 8_080,
        ports: Vec::new(),
        tags: Vec::new(),
        metadata: Vec::new(),
        health: Health::Passing,
        weight: 1,
    }
}

fn catalog() -> Made {
    let mut services = HashMap::new();
    for number in 0..SERVICES {
        let one = Service::new(vec![instance("i0", number)], None, false);
        services.insert(format!("s{number}"), Arc::new(one));
    }
    let many = (0..200).map(|number| instance(&format!("i{number}"), number)).collect();
    services.insert("big".to_owned(), Arc::new(Service::new(many, None, false)));
    Made(services)
}

fn print_names() {
    for number in 0..SERVICES {
        println!("s{number}.service.konsul A\ns{number}.service.konsul SRV");
    }
}

fn print_zone() {
    println!("$ORIGIN konsul.\n$TTL 0\n@ SOA ns1 hostmaster 1 3600 600 86400 1\n@ NS ns1\nns1 A 127.0.0.1");
    for number in 0..SERVICES {
        let address = Ipv4Addr::from(0x0a00_0000 + number);
        println!(
            "s{number}.service A {address}\ns{number}.service SRV 1 1 8080 i0.instance.s{number}.service"
        );
        println!("i0.instance.s{number}.service A {address}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(8_600), |port| port.parse())?;
    let runtimes: usize = arguments.next().map_or(Ok(2), |count| count.parse())?;
    match arguments.next().as_deref() {
        Some("names") => print_names(),
        Some("zone") => print_zone(),
        _ => return serve(port, runtimes),
    }
    Ok(())
}

fn serve(port: u16, runtimes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings {
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))],
        udp_sockets: runtimes,
        ..Settings::default()
    };
    let server = DnsServer::bind(settings, Arc::new(catalog()))?;
    println!("serving konsul. on {:?}", server.local_addrs());
    let new_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut handles = Vec::new();
    for _ in 1..runtimes {
        let runtime = new_runtime()?;
        handles.push(runtime.handle().clone());
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    }
    let runtime = new_runtime()?;
    handles.push(runtime.handle().clone());
    runtime.block_on(server.on(handles).run(CancellationToken::new()));
    Ok(())
}
