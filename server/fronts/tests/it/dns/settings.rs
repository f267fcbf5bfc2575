//! Settings that can't be kept are refused, in one line that says how to mend it.

use std::net::SocketAddr;
use std::sync::Arc;

use konsul_fronts::dns::settings::{RateLimit, Recursion, Zone};
use konsul_fronts::dns::{DnsServer, Settings};

use super::fixture::{Running, catalog, settings, show};

fn refused(settings: Settings) -> String {
    match DnsServer::bind(settings, Arc::new(catalog())) {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let zone = |zone| Settings { zone, ..settings() };
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let rows = [
        (
            zone(Zone { domain: "a..b".into(), ..Zone::default() }),
            "dns.domain = \"a..b\": must be a DNS name of up to 126 bytes",
        ),
        (
            zone(Zone { domain: ".".into(), ..Zone::default() }),
            "dns.domain = \".\": must be a DNS name of up to 126 bytes",
        ),
        (
            zone(Zone { datacenter: "service".into(), ..Zone::default() }),
            "dns.datacenter = \"service\": must be a DNS label, and none of service, node, addr, ns, ns1",
        ),
        (Settings { max_udp_bytes: 511, ..settings() }, "dns.max_udp_bytes = \"511\": must be 512 to 4096"),
        (
            Settings { rate_limit: Some(RateLimit { burst: 0, ..RateLimit::default() }), ..settings() },
            "dns.rate_limit.burst = \"0\": must be 1 or more, and no more than 60 s of answers",
        ),
        (
            Settings { recursion: Some(Recursion::to(Vec::new())), ..settings() },
            "dns.recursors = \"\": must name at least one server",
        ),
        (
            Settings { tls_listen: vec![any], ..settings() },
            "dns.tls_listen is set, and there is no certificate to serve it with: set one, or leave the address away",
        ),
    ];
    for (settings, wanted) in rows {
        assert_eq!(refused(settings), wanted);
    }
}

/// UDP sockets share their port; two servers must not share it all the same.
#[tokio::test]
async fn an_address_that_is_taken_is_refused() {
    let server = Running::start(settings());
    let again = refused(Settings { listen: vec![server.address], ..settings() });
    assert!(again.starts_with(&format!("cannot listen for DNS on {} (TCP): ", server.address)), "{again}");
    // And nobody asks himself.
    let address = server.address;
    server.stop().await;
    let recursion = Some(Recursion::to(vec![address]));
    let own = refused(Settings { listen: vec![address], recursion, ..settings() });
    assert!(own.ends_with("is our own address, which would ask itself for ever"), "{own}");
}

#[tokio::test]
async fn other_domains_mean_the_same() {
    let zone = Zone {
        domain: "Example.org".into(),
        alternatives: vec!["konsul.".into()],
        datacenter: "EU".into(),
        ..Zone::default()
    };
    let server = Running::start(Settings { zone, ..settings() });
    for domain in ["example.org.", "eu.example.org.", "konsul.", "eu.konsul."] {
        let answer = server.ask(&format!("kept.service.{domain} SRV")).await;
        assert_eq!(
            show(&answer),
            format!(
                "NOERROR aa\nanswer kept.service.{domain} 30 SRV 1 1 1 kept-1.instance.kept.service.{domain}\n\
                 additional kept-1.instance.kept.service.{domain} 30 A 192.0.2.50"
            )
        );
    }
    let answer = server.ask("10.2.0.192.in-addr.arpa. PTR").await;
    assert_eq!(answer.answers[0].data.to_string(), "web-1.instance.web.service.example.org.");
    server.stop().await;
}

#[tokio::test]
async fn warning_instances_may_be_left_out() {
    let server = Running::start(Settings { only_passing: true, ..settings() });
    let answer = server.ask("web.service.konsul. A").await;
    assert_eq!(show(&answer), "NOERROR aa\nanswer web.service.konsul. 0 A 192.0.2.10");
    server.stop().await;
}

/// Both families side by side, and all addresses of a host: an answer comes from the address that was asked.
#[tokio::test]
async fn all_addresses_can_be_listened_on() {
    for (listen, hosts) in [("0.0.0.0:0", ["127.0.0.1", "127.0.0.2"]), ("[::]:0", ["::1", "::1"])] {
        let mut server = Running::start(Settings { listen: vec![listen.parse().unwrap()], ..settings() });
        // The same port of the other family is another's.
        let other = if server.address.is_ipv4() { "[::]" } else { "0.0.0.0" };
        let other = format!("{other}:{}", server.address.port()).parse().unwrap();
        let beside = Running::start(Settings { listen: vec![other], ..settings() });
        for host in hosts {
            server.address.set_ip(host.parse().unwrap());
            // The client's socket is connected, so it takes answers of that address only.
            assert_eq!(server.ask("kept.service.konsul. A").await.answers.len(), 1, "{host}");
            assert_eq!(server.ask("kept.service.konsul. A tcp").await.answers.len(), 1, "{host}");
        }
        beside.stop().await;
        server.stop().await;
    }
}
