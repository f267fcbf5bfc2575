//! The rules that the front keeps: each is a test, and a row of the table in docs/dns.md.

use super::fixture::{Running, settings, show};

/// A rule: where it is written, what is asked, and what is answered.
struct Rule {
    test: &'static str,
    source: &'static str,
    rule: &'static str,
    exchanges: &'static [(&'static str, &'static str)],
}

macro_rules! rules {
    ($($test:ident: $source:literal, $rule:literal, [$($asked:literal => $answered:expr),+ $(,)?];)+) => {
        const RULES: &[Rule] = &[$(Rule {
            test: stringify!($test),
            source: $source,
            rule: $rule,
            exchanges: &[$(($asked, $answered)),+],
        }),+];

        $(
            #[tokio::test]
            async fn $test() {
                check(stringify!($test)).await;
            }
        )+
    };
}

async fn check(test: &str) {
    let rule = RULES.iter().find(|rule| rule.test == test).unwrap();
    let server = Running::start(settings());
    for (asked, wanted) in rule.exchanges {
        let answer = server.ask(asked).await;
        assert_eq!(answer.queries, super::fixture::question(asked).queries, "the question comes back");
        let wanted: Vec<&str> = wanted.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(show(&answer), wanted.join("\n"), "{asked}\n{}: {}", rule.source, rule.rule);
    }
    server.stop().await;
}

/// The table of the docs names each rule with its test, and nothing else.
#[test]
fn the_table_in_the_docs_is_these_rules() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dns.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let rows: Vec<String> = RULES
        .iter()
        .map(|rule| format!("| {} | {} | `conformance::{}` |", rule.rule, rule.source, rule.test))
        .collect();
    let table: Vec<&str> = docs.lines().filter(|line| line.contains("`conformance::")).collect();
    assert_eq!(table, rows, "write these rows into docs/dns.md:\n{}", rows.join("\n"));
}

rules! {
    a_of_a_service: "RFC 1035 §3.4.1",
    "A records of all instances that pass or warn, with AA", [
        "web.service.konsul. A" => "
            NOERROR aa
            answer web.service.konsul. 0 A 192.0.2.10
            answer web.service.konsul. 0 A 192.0.2.15",
        "service.service.konsul. A" => "
            NOERROR aa
            answer service.service.konsul. 0 A 192.0.2.70",
    ];
    aaaa_of_a_service: "RFC 3596 §2.2",
    "AAAA records", [
        "web.service.konsul. AAAA" => "
            NOERROR aa
            answer web.service.konsul. 0 AAAA 2001:db8::10",
    ];
    names_in_namespaces_and_data_centers: "docs/dns.md",
    "`[.NAMESPACE.ns][.DC]` may stand between a name and the domain", [
        "web.service.dc1.konsul. AAAA" => "
            NOERROR aa
            answer web.service.dc1.konsul. 0 AAAA 2001:db8::10",
        "web.service.default.ns.dc1.konsul. AAAA" => "
            NOERROR aa
            answer web.service.default.ns.dc1.konsul. 0 AAAA 2001:db8::10",
        "api.service.team.ns.konsul. A" => "
            NOERROR aa
            answer api.service.team.ns.konsul. 0 A 198.51.100.7",
        "n9.node.team.ns.konsul. A" => "
            NOERROR aa
            answer n9.node.team.ns.konsul. 0 A 198.51.100.9",
        "api.service.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "web.service.dc2.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    tags: "docs/dns.md",
    "`TAG.NAME.service` are the instances with a tag, which may have dots and capitals", [
        "v1.web.service.konsul. A" => "
            NOERROR aa
            answer v1.web.service.konsul. 0 A 192.0.2.10",
        "v2.web.service.konsul. AAAA" => "
            NOERROR aa
            answer v2.web.service.konsul. 0 AAAA 2001:db8::10",
        "eu.primary.web.service.konsul. A" => "
            NOERROR aa
            answer eu.primary.web.service.konsul. 0 A 192.0.2.10",
        "primary.web.service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "v9.web.service.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    srv_of_a_service: "RFC 2782",
    "SRV records with weight and port, whose targets are names of ours with their addresses in the additional section", [
        "web.service.konsul. SRV edns=1232" => "
            NOERROR aa
            answer web.service.konsul. 0 SRV 1 1 8080 web-1.instance.web.service.konsul.
            answer web.service.konsul. 0 SRV 1 1 8080 web-2.instance.web.service.konsul.
            answer web.service.konsul. 0 SRV 1 1 8081 web-5.instance.web.service.konsul.
            additional web-1.instance.web.service.konsul. 0 A 192.0.2.10
            additional web-2.instance.web.service.konsul. 0 AAAA 2001:db8::10
            additional web-5.instance.web.service.konsul. 0 A 192.0.2.15
            opt version=0 size=1232",
        "web-1.instance.web.service.konsul. A" => "
            NOERROR aa
            answer web-1.instance.web.service.konsul. 0 A 192.0.2.10",
        "api.service.team.ns.dc1.konsul. SRV" => "
            NOERROR aa
            answer api.service.team.ns.dc1.konsul. 0 SRV 1 1 80 api-1.instance.api.service.team.ns.dc1.konsul.
            additional api-1.instance.api.service.team.ns.dc1.konsul. 0 A 198.51.100.7",
    ];
    srv_after_rfc_2782: "RFC 2782",
    "`_NAME._PROTO.service`, where PROTO is tcp, udp or a tag", [
        "_api._tcp.service.team.ns.konsul. SRV" => "
            NOERROR aa
            answer _api._tcp.service.team.ns.konsul. 0 SRV 1 1 80 api-1.instance.api.service.team.ns.konsul.
            additional api-1.instance.api.service.team.ns.konsul. 0 A 198.51.100.7",
        "_api._udp.service.team.ns.konsul. A" => "
            NOERROR aa
            answer _api._udp.service.team.ns.konsul. 0 A 198.51.100.7",
        "_web._v3.service.konsul. SRV" => "
            NOERROR aa
            answer _web._v3.service.konsul. 0 SRV 1 1 8081 web-5.instance.web.service.konsul.
            additional web-5.instance.web.service.konsul. 0 A 192.0.2.15",
        "_none._tcp.service.konsul. SRV" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    named_ports: "docs/dns.md",
    "`PORTNAME.port.NAME.service` are the instances with a port of that name, which is then their port", [
        "metrics.port.web.service.konsul. SRV" => "
            NOERROR aa
            answer metrics.port.web.service.konsul. 0 SRV 1 1 9090 web-1.instance.web.service.konsul.
            additional web-1.instance.web.service.konsul. 0 A 192.0.2.10",
        "admin.port.web.service.konsul. SRV" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    targets_without_a_label: "RFC 1123 §2.1",
    "An instance whose id is no label is named by its address, and only addresses in the catalog have such names", [
        "odd.service.konsul. SRV" => "
            NOERROR aa
            answer odd.service.konsul. 0 SRV 1 1 7 20010db8000000000000000000000020.addr.konsul.
            answer odd.service.konsul. 0 SRV 1 1 7 c0000214.addr.konsul.
            additional 20010db8000000000000000000000020.addr.konsul. 0 AAAA 2001:db8::20
            additional c0000214.addr.konsul. 0 A 192.0.2.20",
        "c0000214.addr.dc1.konsul. A" => "
            NOERROR aa
            answer c0000214.addr.dc1.konsul. 0 A 192.0.2.20",
        "20010db8000000000000000000000020.addr.konsul. AAAA" => "
            NOERROR aa
            answer 20010db8000000000000000000000020.addr.konsul. 0 AAAA 2001:db8::20",
        "7f000001.addr.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    instances_at_names: "RFC 1034 §3.6.2",
    "An instance whose address is a name is an alias of it, one in each answer; in SRV records the name is the target", [
        "ext.service.konsul. A" => "
            NOERROR aa
            answer ext.service.konsul. 0 CNAME db.example.com.",
        "ext.service.konsul. MX" => "
            NOERROR aa
            answer ext.service.konsul. 0 CNAME db.example.com.",
        "exts.service.konsul. SRV" => "
            NOERROR aa
            answer exts.service.konsul. 0 SRV 1 1 1 a.example.com.
            answer exts.service.konsul. 0 SRV 1 1 2 b.example.com.",
        "e-2.instance.exts.service.konsul. AAAA" => "
            NOERROR aa
            answer e-2.instance.exts.service.konsul. 0 CNAME b.example.com.",
        "named.node.konsul. A" => "
            NOERROR aa
            answer named.node.konsul. 0 CNAME host.example.com.",
    ];
    records_once: "RFC 2181 §5",
    "A set of records has each record once", [
        "twice.service.konsul. A" => "
            NOERROR aa
            answer twice.service.konsul. 0 A 192.0.2.60",
    ];
    nodes: "RFC 1035 §3.4.1",
    "`NAME.node` has the node's addresses", [
        "n1.node.konsul. A" => "
            NOERROR aa
            answer n1.node.konsul. 0 A 192.0.2.1",
        "n1.node.konsul. AAAA" => "
            NOERROR aa
            answer n1.node.konsul. 0 AAAA 2001:db8::1",
        "n1.node.konsul. SRV" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "n2.node.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    metadata: "RFC 1464 §2",
    "Metadata are TXT records of `name=value`, with `=` quoted in names; what is longer than a string goes on in the next", [
        "n1.node.konsul. TXT" => "
            NOERROR aa
            answer n1.node.konsul. 0 TXT rack=7",
        "web-2.instance.web.service.konsul. TXT" => "
            NOERROR aa
            answer web-2.instance.web.service.konsul. 0 TXT zone=a",
        "web.service.konsul. TXT edns=1232" => concat!("
            NOERROR aa
            answer web.service.konsul. 0 TXT a`=b=c
            answer web.service.konsul. 0 TXT note=",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
            answer web.service.konsul. 0 TXT zone=a
            opt version=0 size=1232"),
    ];
    reverse_ipv4: "RFC 1035 §3.5",
    "PTR of an address in the catalog, with AA", [
        "10.2.0.192.in-addr.arpa. PTR" => "
            NOERROR aa
            answer 10.2.0.192.in-addr.arpa. 0 PTR web-1.instance.web.service.konsul.",
        "9.100.51.198.in-addr.arpa. PTR" => "
            NOERROR aa
            answer 9.100.51.198.in-addr.arpa. 0 PTR n9.node.team.ns.konsul.",
        "20.2.0.192.in-addr.arpa. PTR" => "
            NOERROR aa
            answer 20.2.0.192.in-addr.arpa. 0 PTR odd.service.konsul.",
        "10.2.0.192.in-addr.arpa. TXT" => "
            NOERROR aa
            authority 10.2.0.192.in-addr.arpa. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    reverse_ipv6: "RFC 3596 §2.5",
    "PTR of an IPv6 address", [
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR" => "
            NOERROR aa
            answer 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 0 PTR n1.node.konsul.",
    ];
    names_of_others: "RFC 1034 §4.3.1",
    "Names that are not ours, and addresses nobody registered, are REFUSED", [
        "www.example.com. A" => "REFUSED",
        "www.example.com. A rd" => "REFUSED rd",
        "konsul.example.com. A" => "REFUSED",
        "notkonsul. A" => "REFUSED",
        "1.0.0.127.in-addr.arpa. PTR" => "REFUSED",
        "010.2.0.192.in-addr.arpa. PTR" => "REFUSED",
        "2.0.192.in-addr.arpa. PTR" => "REFUSED",
        ". NS" => "REFUSED",
    ];
    apex: "RFC 1035 §3.3.13",
    "SOA and NS of the domain, with the name server's addresses; the serial is the catalog's revision", [
        "konsul. SOA" => "
            NOERROR aa
            answer konsul. 60 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "konsul. NS" => "
            NOERROR aa
            answer konsul. 60 NS ns1.konsul.
            additional ns1.konsul. 60 A 127.0.0.1",
        "ns1.konsul. A" => "
            NOERROR aa
            answer ns1.konsul. 60 A 127.0.0.1",
        "konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    nxdomain: "RFC 2308 §2.1",
    "A name that is not there is NXDOMAIN, with the SOA, whose TTL is that of the answer", [
        "none.service.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "none.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "web-9.instance.web.service.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "a.n1.node.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "x.service.none.ns.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    nodata: "RFC 2308 §2.2",
    "A name without records of the type is NODATA, with the SOA; so is a service none of whose instances is healthy", [
        "api.service.team.ns.konsul. AAAA" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "web.service.konsul. MX" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "down.service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "web-3.instance.web.service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    empty_non_terminals: "RFC 8020 §2",
    "A name that others end with is there, without records", [
        "service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "node.dc1.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "dc1.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "ns.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "team.ns.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "service.team.ns.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "_tcp.service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "instance.web.service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "port.web.service.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "addr.konsul. A" => "
            NOERROR aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "none.ns.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
        "port.api.service.team.ns.konsul. A" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    protection: "docs/dns.md",
    "When fewer instances are healthy than the service's `protect_threshold`, critical ones are answered too", [
        "guarded.service.konsul. A" => "
            NOERROR aa
            answer guarded.service.konsul. 0 A 192.0.2.41
            answer guarded.service.konsul. 0 A 192.0.2.42
            answer guarded.service.konsul. 0 A 192.0.2.43",
    ];
    ttl_of_a_service: "RFC 1035 §3.2.1",
    "A service's own TTL is that of all its records", [
        "kept.service.konsul. SRV" => "
            NOERROR aa
            answer kept.service.konsul. 30 SRV 1 1 1 kept-1.instance.kept.service.konsul.
            additional kept-1.instance.kept.service.konsul. 30 A 192.0.2.50",
        "kept.service.konsul. A" => "
            NOERROR aa
            answer kept.service.konsul. 30 A 192.0.2.50",
    ];
    any_is_minimal: "RFC 8482 §4.2",
    "ANY is answered with one HINFO record", [
        "web.service.konsul. ANY" => "
            NOERROR aa
            answer web.service.konsul. 0 HINFO RFC8482",
        "konsul. ANY tcp" => "
            NOERROR aa
            answer konsul. 60 HINFO RFC8482",
        "none.service.konsul. ANY" => "
            NXDOMAIN aa
            authority konsul. 1 SOA ns1.konsul. hostmaster.konsul. 42 3600 600 86400 1",
    ];
    bits_of_the_query: "RFC 1035 §4.1.1",
    "RD and CD come back as they were", [
        "kept.service.konsul. A rd cd" => "
            NOERROR aa rd cd
            answer kept.service.konsul. 30 A 192.0.2.50",
    ];
    classes: "RFC 1035 §3.2.4",
    "Classes other than IN and ANY are REFUSED", [
        "kept.service.konsul. A ch" => "REFUSED",
        "kept.service.konsul. A any-class" => "
            NOERROR aa
            answer kept.service.konsul. 30 A 192.0.2.50",
    ];
    transfers: "RFC 5936 §2.2",
    "AXFR and IXFR are REFUSED", [
        "konsul. AXFR" => "REFUSED",
        "konsul. AXFR tcp" => "REFUSED",
        "konsul. IXFR tcp" => "REFUSED",
    ];
    edns: "RFC 6891 §6.1",
    "An OPT record is answered with one, which has our size; DO comes back", [
        "kept.service.konsul. A edns=4096" => "
            NOERROR aa
            answer kept.service.konsul. 30 A 192.0.2.50
            opt version=0 size=1232",
        "kept.service.konsul. A do edns=100" => "
            NOERROR aa
            answer kept.service.konsul. 30 A 192.0.2.50
            opt version=0 size=1232 do",
        "www.example.com. A edns=1232" => "
            REFUSED
            opt version=0 size=1232",
    ];
    edns_versions: "RFC 6891 §6.1.3",
    "Versions of EDNS that we don't know are BADVERS", [
        "kept.service.konsul. A edns1" => "
            BADVERS
            opt version=0 size=1232",
    ];
}
