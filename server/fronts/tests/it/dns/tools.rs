//! What dig and kdig, which nobody here wrote, say about the front (Debian packages dnsutils and knot-dnsutils).

use std::net::SocketAddr;

use super::encrypted::{certified, encrypted};
use super::fixture::{Running, settings};

/// Runs a tool against an address and gives what it printed.
async fn run(tool: &str, address: SocketAddr, arguments: &str) -> String {
    let server = format!("@{}", address.ip());
    let output = tokio::process::Command::new(tool)
        .args([server.as_str(), "-p", &address.port().to_string()])
        .args(arguments.split(' '))
        .env_remove("HOME")
        .kill_on_drop(true)
        .output()
        .await
        .unwrap_or_else(|error| panic!("{tool}, of scripts/lib/debian-packages: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{tool} {arguments}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The lines in order: records come in any.
fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[tokio::test]
async fn dig_reads_each_kind_of_record() {
    let server = Running::start(settings());
    let rows = [
        ("web.service.konsul A", "192.0.2.10\n192.0.2.15"),
        ("web.service.konsul AAAA", "2001:db8::10"),
        (
            "web.service.konsul SRV",
            "1 1 8080 web-1.instance.web.service.konsul.\n1 1 8080 web-2.instance.web.service.konsul.\n\
             1 1 8081 web-5.instance.web.service.konsul.",
        ),
        ("_api._tcp.service.team.ns.konsul SRV", "1 1 80 api-1.instance.api.service.team.ns.konsul."),
        ("n1.node.konsul TXT", "\"rack=7\""),
        ("konsul NS", "ns1.konsul."),
        ("konsul SOA", "ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1"),
        ("ext.service.konsul A", "db.example.com."),
        ("-x 192.0.2.10", "web-1.instance.web.service.konsul."),
        ("-x 2001:db8::1", "n1.node.konsul."),
        ("web.service.konsul ANY +notcp", "\"RFC8482\" \"\""),
    ];
    for (asked, wanted) in rows {
        for transport in ["+notcp", "+tcp"] {
            let text = run("dig", server.address, &format!("{asked} +short {transport}")).await;
            assert_eq!(sorted(&text), wanted, "dig {asked} {transport}");
        }
        // Without comments on what it thinks of the answer.
        let text = run("dig", server.address, &format!("{asked} +norecurse")).await;
        assert!(!text.contains("WARNING") && !text.contains("malformed"), "{text}");
    }
    server.stop().await;
}

/// 200 instances: over UDP what fits and TC, over TCP all of them.
#[tokio::test]
async fn dig_asks_again_by_tcp_for_200_instances() {
    let server = Running::start(settings());
    for kind in ["A", "SRV"] {
        let cut = run("dig", server.address, &format!("big.service.konsul {kind} +ignore")).await;
        assert!(cut.contains("flags: qr aa tc rd;"), "{cut}");
        let answers = cut.lines().filter(|line| line.starts_with("big.service.konsul.")).count();
        assert!((10..200).contains(&answers), "{cut}");
        let full = run("dig", server.address, &format!("big.service.konsul {kind}")).await;
        assert!(full.contains(";; Truncated, retrying in TCP mode."), "{full}");
        assert!(full.contains("flags: qr aa rd;") && full.contains("ANSWER: 200,"), "{full}");
    }
    server.stop().await;
}

/// dig sends a cookie of its own and checks what comes back (RFC 7873).
#[tokio::test]
async fn dig_finds_our_cookies_good() {
    let server = Running::start(settings());
    let text = run("dig", server.address, "kept.service.konsul A +cookie").await;
    assert!(text.contains("; COOKIE: ") && text.contains("(good)"), "{text}");
    let text = run("dig", server.address, "kept.service.konsul A +edns=1 +noednsneg").await;
    assert!(text.contains("status: BADVERS"), "{text}");
    server.stop().await;
}

/// RFC 7858, RFC 8484, RFC 8467: over TLS and HTTPS, with the certificate checked, and padded.
#[tokio::test]
async fn kdig_asks_over_tls_and_https() {
    let folder = tempfile::tempdir().unwrap();
    let certified = certified();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let server = Running::start(encrypted(&certified));
    let tls = format!("+tls +tls-ca={} +tls-hostname=dns.example", ca.display());
    let https = format!("{tls} +https=dns.example/dns-query");
    for (address, transport) in [
        (server.tls.unwrap(), tls.clone()),
        (server.https.unwrap(), https.clone()),
        (server.https.unwrap(), format!("{https} +https-get")),
    ] {
        let text = run("kdig", address, &format!("big.service.konsul SRV {transport}")).await;
        assert!(text.contains("status: NOERROR") && text.contains("ANSWER: 200;"), "{transport}: {text}");
        let text = run("kdig", address, &format!("kept.service.konsul A +padding {transport}")).await;
        assert!(text.contains("192.0.2.50") && text.contains("468 B"), "{transport}: {text}");
    }
    assert_eq!(server.count_of("queries_by_transport", "tls", 2).await, 2);
    assert_eq!(server.count_of("queries_by_transport", "https", 4).await, 4);
    server.stop().await;
}
