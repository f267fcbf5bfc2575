//! Every bound and rule of what is registered, and what is told to whoever breaks it.

use konsul_proto::v1::{self, HealthStatus};
use tonic::Code;

use super::{catalog, instance, node, ttl_check};
use crate::harness::{refusal, refused as refused_with};

/// The field that a refusal names.
fn field(status: &tonic::Status) -> String {
    refusal(status).fields.pop().unwrap_or_default()
}

fn of(change: impl FnOnce(&mut v1::Instance)) -> v1::RegisterRequest {
    let mut instance = instance("web", "a");
    change(&mut instance);
    v1::RegisterRequest { instance: Some(instance), ..Default::default() }
}

fn checked(change: impl FnOnce(&mut v1::Check)) -> v1::RegisterRequest {
    let mut check = ttl_check(HealthStatus::Passing);
    change(&mut check);
    v1::RegisterRequest { checks: vec![check], ..of(|_| {}) }
}

fn kind(kind: v1::check::Kind) -> v1::RegisterRequest {
    checked(|check| check.kind = Some(kind))
}

fn http(change: impl FnOnce(&mut v1::HttpCheck)) -> v1::RegisterRequest {
    let mut http = v1::HttpCheck { url: "http://192.0.2.10/".into(), ..Default::default() };
    change(&mut http);
    kind(v1::check::Kind::Http(http))
}

fn on_node(change: impl FnOnce(&mut v1::Node)) -> v1::RegisterRequest {
    let mut node = node("n1");
    change(&mut node);
    v1::RegisterRequest { node: Some(node), ..Default::default() }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn many(count: usize) -> std::collections::HashMap<String, String> {
    (0..count).map(|i| (format!("k{i}"), String::new())).collect()
}

#[tokio::test]
async fn each_rule_names_its_field() {
    use v1::check::Kind;
    let mut c = catalog().await;
    let alias = |service: &str| Kind::Alias(v1::AliasCheck { service: service.into(), instance: "b".into() });
    let tcp = |address: &str| Kind::Tcp(v1::TcpCheck { address: address.into(), tls: None });
    let node_alias =
        v1::CheckList { checks: vec![v1::Check { kind: Some(alias("web")), ..Default::default() }] };
    let cases = [
        (v1::RegisterRequest::default(), "instance"),
        (v1::RegisterRequest { checks: vec![ttl_check(HealthStatus::Passing)], ..on_node(|_| {}) }, "checks"),
        (v1::RegisterRequest { node_checks: Some(v1::CheckList::default()), ..of(|_| {}) }, "node_checks"),
        (of(|i| i.service = String::new()), "instance.service"),
        (of(|i| i.service = "Web".into()), "instance.service"),
        (of(|i| i.service = "-web".into()), "instance.service"),
        (of(|i| i.service = "web_1".into()), "instance.service"),
        (of(|i| i.service = "w".repeat(64)), "instance.service"),
        (of(|i| i.id = String::new()), "instance.id"),
        (of(|i| i.id = "i".repeat(129)), "instance.id"),
        (of(|i| i.id = "a\nb".into()), "instance.id"),
        (of(|i| i.address = String::new()), "instance.address"),
        (of(|i| i.address = "256.1.1.1".into()), "instance.address"),
        (of(|i| i.address = "not a name".into()), "instance.address"),
        (of(|i| i.address = "a".repeat(254)), "instance.address"),
        (of(|i| i.port = 65_536), "instance.port"),
        (of(|i| i.ports = [("Metrics".to_owned(), 1)].into()), "instance.ports"),
        (of(|i| i.ports = [("m".to_owned(), 65_536)].into()), "instance.ports[\"m\"]"),
        (of(|i| i.ports = (0..17).map(|n| (format!("p{n}"), 1)).collect()), "instance.ports"),
        (of(|i| i.tags = vec![String::new()]), "instance.tags"),
        (of(|i| i.tags = vec!["t".into(), "t".into()]), "instance.tags"),
        (of(|i| i.tags = (0..65).map(|n| format!("t{n}")).collect()), "instance.tags"),
        (of(|i| i.metadata = many(65)), "instance.metadata"),
        (of(|i| i.metadata = [("k".to_owned(), "v".repeat(513))].into()), "instance.metadata[\"k\"]"),
        (of(|i| i.metadata = [("k".repeat(129), String::new())].into()), "instance.metadata"),
        (of(|i| i.version = "v".repeat(129)), "instance.version"),
        (of(|i| i.weights = Some(v1::Weights { passing: 65_536, warning: 0 })), "instance.weights.passing"),
        (of(|i| i.depends_on = vec!["DB".into()]), "instance.depends_on"),
        (of(|i| i.depends_on = (0..65).map(|n| format!("s{n}")).collect()), "instance.depends_on"),
        (of(|i| i.lease = u64::MAX), "instance.lease"),
        (on_node(|n| n.name = "a.b".into()), "node.name"),
        (on_node(|n| n.address = String::new()), "node.address"),
        (on_node(|n| n.id = "x".repeat(129)), "node.id"),
        (
            on_node(|n| n.tagged_addresses = [("lan".to_owned(), "?".to_owned())].into()),
            "node.tagged_addresses",
        ),
        (
            on_node(|n| {
                n.tagged_addresses = (0..17).map(|i| (format!("t{i}"), "192.0.2.1".into())).collect()
            }),
            "node.tagged_addresses",
        ),
        (
            v1::RegisterRequest { node_checks: Some(node_alias), ..on_node(|_| {}) },
            "node_checks.checks[0].alias",
        ),
        (checked(|k| k.kind = None), "checks[0].kind"),
        (checked(|k| k.id = "\0".into()), "checks[0].id"),
        (checked(|k| k.name = "n".repeat(257)), "checks[0].name"),
        (checked(|k| k.interval = seconds(10)), "checks[0].interval"),
        (checked(|k| k.fails_after = 1), "checks[0].fails_after"),
        (checked(|k| k.initial = HealthStatus::Maintenance.into()), "checks[0].initial"),
        (checked(|k| k.deregister_critical_after = seconds(0)), "checks[0].deregister_critical_after"),
        (
            checked(|k| k.deregister_critical_after = seconds(31 * 24 * 3600)),
            "checks[0].deregister_critical_after",
        ),
        (kind(Kind::Ttl(v1::TtlCheck { ttl: None })), "checks[0].ttl.ttl"),
        (kind(Kind::Ttl(v1::TtlCheck { ttl: seconds(24 * 3600 + 1) })), "checks[0].ttl.ttl"),
        (kind(tcp("")), "checks[0].tcp.address"),
        (kind(tcp(&"h".repeat(301))), "checks[0].tcp.address"),
        (kind(alias("W")), "checks[0].alias.service"),
        (
            kind(Kind::Alias(v1::AliasCheck { service: "web".into(), instance: "a".into() })),
            "checks[0].alias",
        ),
        (
            kind(Kind::Udp(v1::UdpCheck {
                address: "h:1".into(),
                payload: vec![0; 513].into(),
                ..Default::default()
            })),
            "checks[0].udp.payload",
        ),
        (
            kind(Kind::Grpc(v1::GrpcCheck {
                address: "h:1".into(),
                service: "s".repeat(257),
                ..Default::default()
            })),
            "checks[0].grpc.service",
        ),
        (http(|h| h.url = "ftp://h/".into()), "checks[0].http.url"),
        (http(|h| h.url = format!("http://{}", "h".repeat(2_048))), "checks[0].http.url"),
        (http(|h| h.method = "DELETE".into()), "checks[0].http.method"),
        (http(|h| h.headers = many(33)), "checks[0].http.headers"),
        (
            http(|h| h.headers = [("a b".to_owned(), "v".to_owned())].into()),
            "checks[0].http.headers[\"a b\"]",
        ),
        (http(|h| h.headers = [("a".to_owned(), "v".repeat(4_096))].into()), "checks[0].http.headers"),
        (http(|h| h.body = vec![0; 4_097].into()), "checks[0].http.body"),
        (http(|h| h.expect_status = vec!["2xx".into()]), "checks[0].http.expect_status[0]"),
        (http(|h| h.expect_status = vec!["300-200".into()]), "checks[0].http.expect_status[0]"),
        (http(|h| h.expect_status = vec!["200".into(); 17]), "checks[0].http.expect_status"),
        (http(|h| h.expect_body = "b".repeat(257)), "checks[0].http.expect_body"),
    ];
    for (request, want) in cases {
        let refused = c.client.register(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{want}: {refused:?}");
        assert_eq!(field(&refused), want, "{refused:?} for {request:?}");
    }
    let active = |interval, timeout, warns_after| {
        checked(|check| {
            check.kind = Some(tcp("192.0.2.1:80"));
            (check.interval, check.timeout, check.warns_after) = (interval, timeout, warns_after);
        })
    };
    let cases = [
        (active(seconds(0), None, 0), "checks[0].interval"),
        (active(seconds(3_601), None, 0), "checks[0].interval"),
        (active(seconds(100), seconds(61), 0), "checks[0].timeout"),
        (active(seconds(1), seconds(2), 0), "checks[0].timeout"),
        (active(None, None, 2), "checks[0].warns_after"),
        (active(None, None, 101), "checks[0].warns_after"),
    ];
    for (request, want) in cases {
        let refused = c.client.register(request).await.unwrap_err();
        assert_eq!(field(&refused), want, "{refused:?}");
    }
    let script = kind(Kind::Script(v1::ScriptCheck { script: "df".into() }));
    let refused = c.client.register(script).await.unwrap_err();
    assert_eq!(refusal(&refused), refused_with(Code::FailedPrecondition, "SCRIPTS_DISABLED"));
    assert_eq!(c.server.state.view().unwrap().revision().0, 0, "nothing was registered");
}

#[tokio::test]
async fn checks_differ_by_id_and_are_bounded() {
    let mut c = catalog().await;
    let twice = vec![ttl_check(HealthStatus::Passing); 2];
    let refused = c.client.register(v1::RegisterRequest { checks: twice, ..of(|_| {}) }).await.unwrap_err();
    assert_eq!(field(&refused), "checks[1].id");
    let check = |i| v1::Check { id: format!("c{i}"), ..ttl_check(HealthStatus::Passing) };
    let most: Vec<_> = (0..32).map(check).collect();
    c.client.register(v1::RegisterRequest { checks: most, ..of(|_| {}) }).await.unwrap();
    let more: Vec<_> = (0..33).map(check).collect();
    let refused = c.client.register(v1::RegisterRequest { checks: more, ..of(|_| {}) }).await.unwrap_err();
    assert_eq!(field(&refused), "checks");
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let mut c = catalog().await;
    let refused = c.client.register(of(|i| i.node = "n9".into())).await.unwrap_err();
    assert_eq!(refusal(&refused), refused_with(Code::NotFound, "NODE_NOT_FOUND"));
    let refused = c.client.register(of(|i| i.lease = 9)).await.unwrap_err();
    assert_eq!(refusal(&refused), refused_with(Code::NotFound, "LEASE_NOT_FOUND"));
    let get = v1::GetNodeRequest { name: "n9".into(), ..Default::default() };
    let refused = c.client.get_node(get).await.unwrap_err();
    assert_eq!(refusal(&refused), refused_with(Code::NotFound, "NODE_NOT_FOUND"));
    let name = v1::InstanceName { service: "web".into(), id: "a".into() };
    for (what, reason) in [
        (v1::set_maintenance_request::What::Instance(name), "INSTANCE_NOT_FOUND"),
        (v1::set_maintenance_request::What::Node("n9".into()), "NODE_NOT_FOUND"),
    ] {
        let request = v1::SetMaintenanceRequest { what: Some(what), enabled: true, ..Default::default() };
        let refused = c.client.set_maintenance(request).await.unwrap_err();
        assert_eq!(refusal(&refused), refused_with(Code::NotFound, reason));
    }
}

#[tokio::test]
async fn the_other_methods_have_bounds_too() {
    let mut c = catalog().await;
    c.register(instance("web", "a")).await;
    let resolve = |change: fn(&mut v1::ResolveRequest)| {
        let mut request = v1::ResolveRequest { service: "web".into(), ..Default::default() };
        change(&mut request);
        request
    };
    let cases = [
        (resolve(|r| r.limit = 1_001), "limit"),
        (resolve(|r| r.strategy = 99), "strategy"),
        (resolve(|r| r.strategy = v1::Strategy::ConsistentHash.into()), "hash_key"),
        (resolve(|r| r.strategy = v1::Strategy::Nearest.into()), "zone"),
        (
            resolve(|r| {
                r.strategy = v1::Strategy::ConsistentHash.into();
                r.hash_key = "k".repeat(1_025);
            }),
            "hash_key",
        ),
        (
            resolve(|r| {
                let tags = (0..65).map(|i| i.to_string()).collect();
                r.select = Some(v1::InstanceSelector { tags, ..Default::default() });
            }),
            "select.tags",
        ),
        (
            resolve(|r| r.select = Some(v1::InstanceSelector { health: vec![0], ..Default::default() })),
            "select.health",
        ),
    ];
    for (request, want) in cases {
        let refused = c.client.resolve(request).await.unwrap_err();
        assert_eq!(field(&refused), want, "{refused:?}");
    }
    let settings = |settings| v1::ConfigureServiceRequest {
        service: "web".into(),
        settings: Some(settings),
        ..Default::default()
    };
    for (request, want) in [
        (
            settings(v1::ServiceSettings { protect_threshold: 101, ..Default::default() }),
            "settings.protect_threshold",
        ),
        (
            settings(v1::ServiceSettings { dns_ttl: seconds(86_401), ..Default::default() }),
            "settings.dns_ttl",
        ),
        (settings(v1::ServiceSettings { metadata: many(65), ..Default::default() }), "settings.metadata"),
    ] {
        let refused = c.client.configure_service(request).await.unwrap_err();
        assert_eq!(field(&refused), want, "{refused:?}");
    }
    let refused = c.client.deregister(v1::DeregisterRequest::default()).await.unwrap_err();
    assert_eq!(field(&refused), "what");
    let registrations = vec![of(|_| {}); 257];
    let batch = v1::RegisterBatchRequest { registrations, ..Default::default() };
    let refused = c.client.register_batch(batch).await.unwrap_err();
    assert_eq!(field(&refused), "registrations");
    let elsewhere = v1::RegisterRequest { namespace: "other".into(), ..of(|_| {}) };
    let batch = v1::RegisterBatchRequest { registrations: vec![elsewhere], ..Default::default() };
    let refused = c.client.register_batch(batch).await.unwrap_err();
    assert_eq!(field(&refused), "registrations[0].namespace");
    let request = v1::ListServicesRequest { page_size: 10_001, ..Default::default() };
    assert_eq!(field(&c.client.list_services(request).await.unwrap_err()), "page_size");
}
