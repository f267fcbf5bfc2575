//! A directory in memory, a server that answers from it, and a client.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use konsul_fronts::dns::{
    Address, Directory, DnsServer, Health, Instance, Node, PtrTarget, Service, Settings,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long an answer may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A catalog in maps.
#[derive(Default)]
pub(crate) struct Fake {
    services: Mutex<HashMap<(String, String), Arc<Service>>>,
    nodes: Mutex<HashMap<(String, String), Arc<Node>>>,
    pub(crate) age_s: AtomicU64,
}

impl Fake {
    pub(crate) fn put(&self, namespace: &str, name: &str, service: Service) {
        self.services.lock().unwrap().insert((namespace.into(), name.into()), Arc::new(service));
    }

    pub(crate) fn remove(&self, namespace: &str, name: &str) {
        self.services.lock().unwrap().remove(&(namespace.into(), name.into()));
    }

    pub(crate) fn put_node(
        &self,
        namespace: &str,
        name: &str,
        addresses: &[&str],
        metadata: &[(&str, &str)],
    ) {
        let addresses = addresses.iter().map(|at| Address::from(*at)).collect();
        let node = Node { addresses, metadata: owned(metadata) };
        self.nodes.lock().unwrap().insert((namespace.into(), name.into()), Arc::new(node));
    }
}

impl Directory for Fake {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.lock().unwrap().get(&(namespace.into(), name.into())).cloned()
    }

    fn node(&self, namespace: &str, name: &str) -> Option<Arc<Node>> {
        self.nodes.lock().unwrap().get(&(namespace.into(), name.into())).cloned()
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        let (services, nodes) = (self.services.lock().unwrap(), self.nodes.lock().unwrap());
        let all: HashSet<&str> =
            services.keys().chain(nodes.keys()).map(|(space, _)| space.as_str()).collect();
        all.contains(namespace)
    }

    fn by_address(&self, address: IpAddr) -> Vec<PtrTarget> {
        let mut targets = Vec::new();
        for ((namespace, service), has) in &*self.services.lock().unwrap() {
            for instance in has.instances().iter().filter(|at| at.address == Address::Ip(address)) {
                targets.push(PtrTarget::Instance {
                    namespace: namespace.as_str().into(),
                    service: service.as_str().into(),
                    id: instance.id.clone(),
                });
            }
        }
        for ((namespace, name), node) in &*self.nodes.lock().unwrap() {
            if node.addresses.contains(&Address::Ip(address)) {
                let (namespace, name) = (namespace.as_str().into(), name.as_str().into());
                targets.push(PtrTarget::Node { namespace, name });
            }
        }
        targets
    }

    fn age(&self) -> Option<Duration> {
        Some(Duration::from_secs(self.age_s.load(Ordering::Relaxed))).filter(|age| !age.is_zero())
    }

    fn revision(&self) -> u64 {
        0x1_0000_002a
    }
}

fn owned(items: &[(&str, &str)]) -> Vec<(Box<str>, Box<str>)> {
    items.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

/// An instance that passes, with weight 1.
pub(crate) fn instance(id: &str, address: &str, port: u16) -> Instance {
    Instance {
        id: id.into(),
        address: Address::from(address),
        port,
        ports: Vec::new(),
        tags: Vec::new(),
        metadata: Vec::new(),
        health: Health::Passing,
        weight: 1,
    }
}

pub(crate) fn tagged(tags: &[&str], instance: Instance) -> Instance {
    Instance { tags: tags.iter().map(|tag| (*tag).into()).collect(), ..instance }
}

pub(crate) fn in_health(health: Health, instance: Instance) -> Instance {
    Instance { health, ..instance }
}

pub(crate) fn with_metadata(items: &[(&str, &str)], instance: Instance) -> Instance {
    Instance { metadata: owned(items), ..instance }
}

/// `count` instances at 10.0.x.y.
pub(crate) fn crowd(count: u32) -> Service {
    let one = |i: u32| {
        let address = Ipv4Addr::from(0x0a00_0000 + i);
        instance(&format!("big-{i}"), &address.to_string(), 8_000)
    };
    Service::new((0..count).map(one).collect(), None, false)
}

/// The catalog that most tests ask for.
pub(crate) fn catalog() -> Fake {
    let fake = Fake::default();
    let web_1 = Instance {
        ports: vec![("metrics".into(), 9_090)],
        ..with_metadata(
            &[("zone", "a"), ("a=b", "c"), ("note", &"x".repeat(300))],
            tagged(&["v1", "eu.primary"], instance("web-1", "192.0.2.10", 8_080)),
        )
    };
    let web = vec![
        web_1,
        with_metadata(&[("zone", "a")], tagged(&["V2"], instance("web-2", "2001:db8::10", 8_080))),
        in_health(Health::Critical, tagged(&["v1"], instance("web-3", "192.0.2.13", 8_080))),
        in_health(Health::Maintenance, instance("web-4", "192.0.2.14", 8_080)),
        in_health(Health::Warning, tagged(&["v3"], instance("web-5", "192.0.2.15", 8_081))),
    ];
    fake.put("default", "web", Service::new(web, None, false));
    let down = vec![in_health(Health::Critical, instance("down-1", "192.0.2.30", 1))];
    fake.put("default", "down", Service::new(down, None, false));
    let guarded = vec![
        instance("g-1", "192.0.2.41", 1),
        in_health(Health::Critical, instance("g-2", "192.0.2.42", 1)),
        in_health(Health::Critical, instance("g-3", "192.0.2.43", 1)),
        in_health(Health::Maintenance, instance("g-4", "192.0.2.44", 1)),
    ];
    fake.put("default", "guarded", Service::new(guarded, None, true));
    fake.put("default", "ext", Service::new(vec![instance("ext-1", "db.example.com", 5_432)], None, false));
    let exts = vec![instance("e-1", "a.example.com", 1), instance("e-2", "b.example.com", 2)];
    fake.put("default", "exts", Service::new(exts, None, false));
    let odd = vec![instance("an.id of its own", "192.0.2.20", 7), instance("ÄÖ", "2001:db8::20", 7)];
    fake.put("default", "odd", Service::new(odd, None, false));
    let kept = vec![instance("kept-1", "192.0.2.50", 1)];
    fake.put("default", "kept", Service::new(kept, Some(Duration::from_secs(30)), false));
    let twice = vec![instance("t-1", "192.0.2.60", 1), instance("t-2", "192.0.2.60", 2)];
    fake.put("default", "twice", Service::new(twice, None, false));
    fake.put("default", "big", crowd(200));
    fake.put("default", "service", Service::new(vec![instance("s-1", "192.0.2.70", 1)], None, false));
    fake.put("team", "api", Service::new(vec![instance("api-1", "198.51.100.7", 80)], None, false));
    fake.put_node("default", "n1", &["192.0.2.1", "2001:db8::1"], &[("rack", "7")]);
    fake.put_node("default", "named", &["host.example.com"], &[]);
    fake.put_node("team", "n9", &["198.51.100.9"], &[]);
    fake
}

/// Settings for tests: a free port of loopback, and no rate limit.
pub(crate) fn settings() -> Settings {
    Settings {
        listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))],
        udp_sockets: 2,
        rate_limit: None,
        ..Settings::default()
    }
}

/// A server that runs until it is dropped or stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    pub(crate) fake: Arc<Fake>,
    counters: Arc<konsul_fronts::dns::Counters>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) fn start(settings: Settings) -> Self {
        Self::with(settings, catalog())
    }

    pub(crate) fn with(settings: Settings, fake: Fake) -> Self {
        let fake = Arc::new(fake);
        let server = DnsServer::bind(settings, fake.clone()).expect("the front starts");
        let stop = CancellationToken::new();
        Self {
            address: server.local_addrs()[0],
            tls: server.tls_addr(),
            https: server.https_addr(),
            fake,
            counters: server.counters(),
            stop: stop.clone(),
            task: tokio::spawn(server.run(stop)),
        }
    }

    /// A count, once it is at least `wanted`: sockets tell theirs with the next batch, which this makes come.
    pub(crate) async fn count_of(&self, family: &str, label: &str, wanted: u64) -> u64 {
        for _ in 0..1_000 {
            let value = self.counters.get(family, label);
            if value >= wanted {
                return value;
            }
            self.ask("konsul. NS").await;
        }
        self.counters.get(family, label)
    }

    /// Asks by UDP, or what the question says: see [`question`].
    pub(crate) async fn ask(&self, text: &str) -> Message {
        let asked = question(text);
        let wire = if text.split(' ').any(|word| word == "tcp") {
            self.ask_tcp(&asked.to_vec().unwrap()).await
        } else {
            self.ask_udp(&asked.to_vec().unwrap()).await
        };
        let answer = Message::from_vec(&wire).unwrap();
        assert_eq!(answer.metadata.id, asked.metadata.id, "{text}");
        answer
    }

    /// What is answered to a datagram.
    pub(crate) async fn ask_udp(&self, packet: &[u8]) -> Vec<u8> {
        let local = if self.address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(local).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(packet).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let received = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await;
        buffer.truncate(received.expect("an answer in time").unwrap());
        buffer
    }

    pub(crate) async fn ask_tcp(&self, packet: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        send_message(&mut stream, packet).await;
        receive_message(&mut stream).await
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("an end in time").unwrap();
    }
}

pub(crate) async fn send_message(stream: &mut TcpStream, packet: &[u8]) {
    let length = u16::try_from(packet.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), packet].concat()).await.unwrap();
}

pub(crate) async fn receive_message(stream: &mut TcpStream) -> Vec<u8> {
    let receive = async {
        let length = stream.read_u16().await.unwrap();
        let mut message = vec![0; length.into()];
        stream.read_exact(&mut message).await.unwrap();
        message
    };
    tokio::time::timeout(PATIENCE, receive).await.expect("an answer in time")
}

/// `NAME TYPE [OPTION…]`: `rd`, `cd`, `ch` (class CHAOS), `any-class`, `tcp`, `edns=BYTES`, `edns1` (version 1), `do`, `notify`, `status`.
pub(crate) fn question(text: &str) -> Message {
    let mut words = text.split(' ');
    let name = Name::from_ascii(words.next().unwrap()).unwrap();
    let rtype = match words.next().unwrap() {
        "IXFR" => RecordType::IXFR,
        name => name.parse().unwrap(),
    };
    let mut query = Query::query(name, rtype);
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    let mut edns = None;
    for word in words {
        match word {
            "rd" => message.metadata.recursion_desired = true,
            "cd" => message.metadata.checking_disabled = true,
            "ch" => _ = query.set_query_class(DNSClass::CH),
            "any-class" => _ = query.set_query_class(DNSClass::ANY),
            "tcp" => {}
            "notify" => message.metadata.op_code = OpCode::Notify,
            "status" => message.metadata.op_code = OpCode::Status,
            "edns1" => _ = edns.get_or_insert_with(Edns::new).set_version(1),
            "do" => _ = edns.get_or_insert_with(Edns::new).set_dnssec_ok(true),
            other => {
                let size = other.strip_prefix("edns=").unwrap_or_else(|| panic!("unknown option {other}"));
                edns.get_or_insert_with(Edns::new).set_max_payload(size.parse().unwrap());
            }
        }
    }
    if let Some(edns) = edns {
        message.set_edns(edns);
    }
    message.add_query(query);
    message
}

/// An answer as text: `RCODE flag…`, then `section NAME TTL TYPE DATA`, the records of a section in order. The OPT record is a line of
/// its own.
pub(crate) fn show(message: &Message) -> String {
    let meta = &message.metadata;
    let code = match u16::from(meta.response_code) {
        // hickory calls it by the name that 16 has in TSIG records.
        16 => "BADVERS".to_owned(),
        _ => format!("{:?}", meta.response_code).to_uppercase(),
    };
    let mut lines = vec![code];
    let flags = [
        ("aa", meta.authoritative),
        ("tc", meta.truncation),
        ("rd", meta.recursion_desired),
        ("ra", meta.recursion_available),
        ("ad", meta.authentic_data),
        ("cd", meta.checking_disabled),
    ];
    for (flag, is_set) in flags {
        if is_set {
            lines[0] += " ";
            lines[0] += flag;
        }
    }
    let sections = [
        ("answer", &message.answers),
        ("authority", &message.authorities),
        ("additional", &message.additionals),
    ];
    for (section, records) in sections {
        let mut shown: Vec<String> = records
            .iter()
            .map(|record| {
                let (name, ttl, kind, data) = (&record.name, record.ttl, record.record_type(), &record.data);
                format!("{section} {name} {ttl} {kind} {data}").trim_end().to_owned()
            })
            .collect();
        shown.sort();
        lines.extend(shown);
    }
    if let Some(edns) = &message.edns {
        let dnssec = if edns.flags().dnssec_ok { " do" } else { "" };
        lines.push(format!("opt version={} size={}{dnssec}", edns.version(), edns.max_payload()));
    }
    lines.join("\n")
}
