//! Watches of the catalog and of checks: what is sent leads to what is there, each change once and in order.

use std::collections::BTreeMap;

use konsul_proto::v1::catalog_object::Object;
use konsul_proto::v1::catalog_watch_response::Kind;
use konsul_proto::v1::health_client::HealthClient;
use konsul_proto::v1::{
    self, CatalogWatchRequest, CatalogWatchTarget, HealthStatus, HealthWatchTarget, catalog_watch_target,
    health_watch_target,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::{Code, Streaming};

use super::directory::step;
use super::{Catalog, catalog, instance, node, ttl_check};
use crate::harness::{invalid, refusal, seed, soon};

/// What a watcher knows, by name.
#[derive(Default)]
struct Copy {
    objects: BTreeMap<String, String>,
    /// The last revision of which all was sent.
    revision: u64,
    events: usize,
}

fn name(object: &Object) -> String {
    match object {
        Object::Service(service) => format!("service {}", service.name),
        Object::Instance(info) => {
            let instance = info.instance.as_ref().unwrap();
            format!("instance {} {}", instance.service, instance.id)
        }
        Object::Node(info) => format!("node {}", info.node.as_ref().unwrap().name),
    }
}

/// Maps have no order of their own.
fn shown(object: &Object) -> String {
    match object {
        Object::Service(service) => format!("{:?} {}", service.settings, service.mod_revision),
        Object::Instance(info) => format!("{:?} {} {}", info.health(), info.address, info.mod_revision),
        Object::Node(info) => format!("{:?} {}", info.health(), info.mod_revision),
    }
}

impl Copy {
    /// Takes a message, and checks that it follows what came before.
    fn take(&mut self, message: v1::CatalogWatchResponse) {
        for object in message.objects.iter().filter_map(|object| object.object.as_ref()) {
            self.objects.insert(name(object), shown(object));
        }
        for event in &message.events {
            let object = event.object.as_ref().unwrap().object.as_ref().unwrap();
            let modified = match object {
                Object::Service(service) => service.mod_revision,
                Object::Instance(info) => info.mod_revision,
                Object::Node(info) => info.mod_revision,
            };
            assert!(modified > self.revision, "{modified} comes after {}", self.revision);
            self.events += 1;
            match event.r#type() {
                v1::catalog_event::Type::Put => drop(self.objects.insert(name(object), shown(object))),
                v1::catalog_event::Type::Delete => {
                    assert!(self.objects.remove(&name(object)).is_some(), "{object:?} was not there");
                }
                v1::catalog_event::Type::Unspecified => panic!("{event:?}"),
            }
        }
        if !message.fragment && message.kind() != Kind::State {
            self.revision = self.revision.max(message.revision);
        }
    }

    async fn read_to(&mut self, stream: &mut Streaming<v1::CatalogWatchResponse>, revision: u64) {
        while self.revision < revision {
            self.take(soon(stream.message()).await.unwrap().unwrap());
        }
    }
}

async fn watch(c: &mut Catalog, target: CatalogWatchTarget) -> Streaming<v1::CatalogWatchResponse> {
    let progress_interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
    let request = CatalogWatchRequest { targets: vec![target], progress_interval, ..Default::default() };
    c.client.watch(request).await.unwrap().into_inner()
}

fn kind(kind: catalog_watch_target::Kind) -> CatalogWatchTarget {
    let selector = Some(catalog_watch_target::Selector::Kind(kind.into()));
    CatalogWatchTarget { selector, ..Default::default() }
}

fn service(name: &str) -> CatalogWatchTarget {
    let selector = Some(catalog_watch_target::Selector::Service(name.into()));
    CatalogWatchTarget { selector, ..Default::default() }
}

/// What there is, as a watcher of everything should know it.
async fn present(c: &mut Catalog) -> BTreeMap<String, String> {
    let mut stream =
        watch(c, CatalogWatchTarget { initial_state: true, ..kind(catalog_watch_target::Kind::Everything) })
            .await;
    let mut copy = Copy::default();
    loop {
        let message = soon(stream.message()).await.unwrap().unwrap();
        if message.kind() == Kind::Synced {
            return copy.objects;
        }
        copy.take(message);
    }
}

#[tokio::test]
async fn every_change_leads_to_what_is_there_once_and_in_order() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut c = catalog().await;
    let everything = || kind(catalog_watch_target::Kind::Everything);
    let mut first = watch(&mut c, everything()).await;
    let mut all = Copy::default();
    for _ in 0..30 {
        for _ in 0..rng.random_range(1..8) {
            step(&mut c, &mut rng).await;
        }
        let now = c.server.state.view().unwrap().revision().0;
        // One that begins here with what is there, and one that begins with a revision of the past.
        let want = present(&mut c).await;
        all.read_to(&mut first, now).await;
        assert_eq!(all.objects, want, "at {now}");
        let start_revision = rng.random_range(1..=now + 1);
        let mut resumed = watch(&mut c, CatalogWatchTarget { start_revision, ..everything() }).await;
        let mut later = Copy { revision: start_revision - 1, ..Copy::default() };
        while later.revision < now {
            let message = soon(resumed.message()).await.unwrap().unwrap();
            // What was there before it began it does not know.
            later.events += message.events.len();
            later.revision = later.revision.max(message.revision);
        }
        let mut again = watch(&mut c, CatalogWatchTarget { start_revision: 1, ..everything() }).await;
        let mut whole = Copy::default();
        whole.read_to(&mut again, now).await;
        assert_eq!((whole.objects, whole.events), (want, all.events), "from the beginning");
        assert!(later.events <= all.events);
    }
}

#[tokio::test]
async fn each_kind_of_target_is_sent_its_own() {
    use catalog_watch_target::Kind::{Nodes, Services};
    let mut c = catalog().await;
    let mut streams = Vec::new();
    for target in [service("web"), kind(Services), kind(Nodes)] {
        streams.push((watch(&mut c, target).await, Copy::default()));
    }
    c.register_in(instance("web", "a"), HealthStatus::Passing).await;
    c.register(instance("webshop", "b")).await;
    let request = v1::RegisterRequest { node: Some(node("n1")), ..Default::default() };
    c.client.register(request).await.unwrap();
    // A check that changes nothing but itself.
    let named = v1::Check { name: "another name".into(), ..ttl_check(HealthStatus::Passing) };
    let request = v1::RegisterRequest {
        instance: Some(instance("web", "a")),
        checks: vec![named],
        ..Default::default()
    };
    assert_eq!(c.client.register(request).await.unwrap().into_inner().revision, 4);
    let mut told = Vec::new();
    for (stream, copy) in &mut streams {
        copy.read_to(stream, 4).await;
        told.push((copy.events, copy.objects.keys().cloned().collect::<Vec<_>>()));
    }
    assert_eq!(told[0], (2, vec!["instance web a".to_owned(), "service web".to_owned()]));
    assert_eq!(told[1], (2, vec!["service web".to_owned(), "service webshop".to_owned()]));
    assert_eq!(told[2], (1, vec!["node n1".to_owned()]));
}

#[tokio::test]
async fn what_went_is_told_as_it_was_last_and_what_was_before_on_request() {
    let mut c = catalog().await;
    c.register(instance("web", "a")).await;
    let mut stream = watch(&mut c, CatalogWatchTarget { previous: true, ..service("web") }).await;
    c.register(v1::Instance { port: 9090, ..instance("web", "a") }).await;
    let what = v1::InstanceName { service: "web".into(), id: "a".into() };
    let what = Some(v1::deregister_request::What::Instance(what));
    c.client.deregister(v1::DeregisterRequest { what, ..Default::default() }).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(soon(stream.message()).await.unwrap().unwrap().events);
    }
    let port = |object: &Option<v1::CatalogObject>| match object.as_ref().unwrap().object.as_ref().unwrap() {
        Object::Instance(info) => (info.instance.as_ref().unwrap().port, info.mod_revision),
        other => panic!("{other:?}"),
    };
    assert_eq!((port(&events[0].previous), port(&events[0].object)), ((8080, 1), (9090, 2)));
    let gone = events.iter().find(|event| event.r#type() == v1::catalog_event::Type::Delete).unwrap();
    assert_eq!((port(&gone.previous), port(&gone.object)), ((9090, 2), (9090, 3)));
}

#[tokio::test]
async fn checks_are_watched_by_service_node_and_all() {
    let mut c = catalog().await;
    let mut health = HealthClient::new(c.server.channel().await);
    let selectors = [
        health_watch_target::Selector::Service("web".into()),
        health_watch_target::Selector::Node("n1".into()),
        health_watch_target::Selector::Everything(true),
    ];
    let target = |(id, selector): (usize, &health_watch_target::Selector)| HealthWatchTarget {
        id: id as u64,
        selector: Some(selector.clone()),
        initial_state: id == 2,
        ..Default::default()
    };
    c.register_in(instance("db", "x"), HealthStatus::Passing).await;
    let targets = selectors.iter().enumerate().map(target).collect();
    let request = v1::HealthWatchRequest { targets, ..Default::default() };
    let mut stream = health.watch(request).await.unwrap().into_inner();
    let request = v1::RegisterRequest {
        node: Some(node("n1")),
        node_checks: Some(v1::CheckList { checks: vec![ttl_check(HealthStatus::Warning)] }),
        instance: Some(instance("web", "a")),
        checks: vec![ttl_check(HealthStatus::Critical)],
        ..Default::default()
    };
    c.client.register(request).await.unwrap();
    let mut told: BTreeMap<u64, Vec<HealthStatus>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < 5 {
        let message = soon(stream.message()).await.unwrap().unwrap();
        let checks = message.events.into_iter().filter_map(|event| event.check).chain(message.checks);
        told.entry(message.target_id).or_default().extend(checks.map(|check| check.status()));
    }
    told.values_mut().for_each(|statuses| statuses.sort());
    use HealthStatus::{Critical, Passing, Warning};
    assert_eq!(told[&0], [Critical]);
    assert_eq!(told[&1], [Warning]);
    assert_eq!(told[&2], [Passing, Warning, Critical]);
}

#[tokio::test]
async fn targets_that_are_none_are_refused() {
    let mut c = catalog().await;
    let cases = [
        (vec![], "targets"),
        (vec![CatalogWatchTarget::default()], "targets[0].selector"),
        (vec![service("Web")], "targets[0].service"),
        (vec![kind(catalog_watch_target::Kind::Unspecified)], "targets[0].kind"),
        (vec![service("web"), service("db")], "targets[1].id"),
        (
            vec![CatalogWatchTarget { start_revision: 1, initial_state: true, ..service("web") }],
            "targets[0].start_revision",
        ),
        (vec![service("web"); 1_001], "targets"),
    ];
    for (targets, field) in cases {
        let request = CatalogWatchRequest { targets, ..Default::default() };
        let refused = c.client.watch(request).await.unwrap_err();
        assert_eq!(refusal(&refused), invalid(field));
    }
    let mut health = HealthClient::new(c.server.channel().await);
    let nothing = health_watch_target::Selector::Everything(false);
    let targets = vec![HealthWatchTarget { selector: Some(nothing), ..Default::default() }];
    let request = v1::HealthWatchRequest { targets, ..Default::default() };
    let refused = health.watch(request).await.unwrap_err();
    assert_eq!((refusal(&refused), refused.code()), (invalid("targets[0].selector"), Code::InvalidArgument));
}
