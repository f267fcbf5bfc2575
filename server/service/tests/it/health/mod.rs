//! Checks: who passes them, what happens when nobody does, and what is told of it.

mod active;

use std::time::{Duration, Instant};

use konsul_proto::v1::catalog_client::CatalogClient;
use konsul_proto::v1::health_client::HealthClient;
use konsul_proto::v1::{self, HealthStatus};
use konsul_service::Limits;
use konsul_service::duties::Duties;
use konsul_state::propose::{ProposeError, Standing};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::catalog::instance;
use crate::harness::{Server, invalid, refusal, refused, soon, start_duties, start_with};

struct Checks {
    server: Server,
    catalog: CatalogClient<Channel>,
    health: HealthClient<Channel>,
    _duties: Duties,
}

async fn checks() -> Checks {
    checks_with(Limits::default()).await
}

async fn checks_with(limits: Limits) -> Checks {
    let server = start_with(limits).await;
    let channel = server.channel().await;
    let duties = start_duties(&server, &server.limits);
    let catalog = CatalogClient::new(channel.clone());
    let mut checks = Checks { catalog, health: HealthClient::new(channel), server, _duties: duties };
    checks.leader_answers().await;
    checks
}

fn millis(ms: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(ms)).ok()
}

fn ttl(id: &str, ms: u64) -> v1::Check {
    let kind = Some(v1::check::Kind::Ttl(v1::TtlCheck { ttl: millis(ms) }));
    v1::Check { id: id.into(), kind, ..Default::default() }
}

fn name(id: &str, check: &str) -> v1::CheckName {
    let instance = v1::InstanceName { service: "web".into(), id: id.into() };
    v1::CheckName { owner: Some(v1::check_name::Owner::Instance(instance)), check: check.into() }
}

fn pass(id: &str) -> v1::Pass {
    let instance = Some(v1::InstanceName { service: "web".into(), id: id.into() });
    v1::Pass { instance, ..Default::default() }
}

/// A stream of heartbeats.
struct Heart {
    requests: tokio::sync::mpsc::UnboundedSender<v1::HeartbeatRequest>,
    answers: Streaming<v1::HeartbeatResponse>,
}

impl Heart {
    async fn beat(&mut self, passes: Vec<v1::Pass>) -> Result<Vec<Option<u64>>, tonic::Status> {
        self.requests.send(v1::HeartbeatRequest { passes, ..Default::default() }).unwrap();
        let answer = soon(self.answers.message()).await?.unwrap();
        let ttl = |ttl: prost_types::Duration| ttl.seconds as u64 * 1_000 + ttl.nanos as u64 / 1_000_000;
        Ok(answer.results.into_iter().map(|result| result.ttl.map(ttl)).collect())
    }
}

impl Checks {
    async fn register(&mut self, id: &str, checks: Vec<v1::Check>) {
        let request =
            v1::RegisterRequest { instance: Some(instance("web", id)), checks, ..Default::default() };
        self.catalog.register(request).await.unwrap();
    }

    async fn update(&mut self, id: &str, status: HealthStatus) -> Result<u64, tonic::Status> {
        let request = v1::UpdateCheckRequest {
            name: Some(name(id, "ttl")),
            status: status.into(),
            output: "by hand".into(),
            ..Default::default()
        };
        Ok(self.health.update_check(request).await?.into_inner().revision)
    }

    async fn heart(&mut self) -> Heart {
        let (requests, receiver) = tokio::sync::mpsc::unbounded_channel();
        let answers = self.health.heartbeat(UnboundedReceiverStream::new(receiver)).await.unwrap();
        Heart { requests, answers: answers.into_inner() }
    }

    /// Until the leader has read the checks, it can't tell how long they have.
    async fn leader_answers(&mut self) {
        soon(async {
            loop {
                let mut heart = self.heart().await;
                let answer = heart.beat(vec![pass("nobody")]).await;
                drop(heart.requests);
                while let Ok(Some(_)) = heart.answers.message().await {}
                if answer.is_ok() {
                    return;
                }
            }
        })
        .await;
    }

    async fn check(&mut self, id: &str) -> v1::CheckInfo {
        let request =
            v1::ListChecksRequest { service: "web".into(), instance: id.into(), ..Default::default() };
        self.health.list_checks(request).await.unwrap().into_inner().checks.remove(0)
    }

    /// Waits until the instance's first check is so, through a watch.
    async fn becomes(&mut self, id: &str, is_so: impl Fn(&v1::CheckInfo) -> bool) -> v1::CheckInfo {
        let target = v1::HealthWatchTarget {
            selector: Some(v1::health_watch_target::Selector::Service("web".into())),
            initial_state: true,
            ..Default::default()
        };
        let request = v1::HealthWatchRequest { targets: vec![target], ..Default::default() };
        let mut stream = self.health.watch(request).await.unwrap().into_inner();
        soon(async {
            loop {
                let message = stream.message().await.unwrap().unwrap();
                let events = message.events.into_iter().filter_map(|event| event.check);
                let of_instance = |check: &v1::CheckInfo| check.name == Some(name(id, "ttl"));
                if let Some(check) =
                    message.checks.into_iter().chain(events).filter(of_instance).find(|c| is_so(c))
                {
                    return check;
                }
            }
        })
        .await
    }

    fn applied(&self) -> u64 {
        self.server.state.applied().index
    }
}

#[tokio::test]
async fn a_check_that_nobody_passes_is_critical_and_not_before_its_time() {
    let mut c = checks().await;
    c.register("a", vec![ttl("ttl", 1_500)]).await;
    assert_eq!(c.check("a").await.status(), HealthStatus::Critical);
    let mut heart = c.heart().await;
    assert_eq!(heart.beat(vec![pass("a")]).await.unwrap(), [Some(1_500)]);
    let passed = Instant::now();
    assert_eq!(c.check("a").await.status(), HealthStatus::Passing);
    let check = c.becomes("a", |check| check.status() == HealthStatus::Critical).await;
    let lived = passed.elapsed();
    assert!(lived >= Duration::from_millis(1_400), "it lived for {lived:?}");
    assert!(check.output.contains("1.5s"), "{}", check.output);
    // And back.
    assert_eq!(heart.beat(vec![pass("a")]).await.unwrap(), [Some(1_500)]);
    assert_eq!(c.check("a").await.status(), HealthStatus::Passing);
    let request =
        v1::ListTransitionsRequest { service: "web".into(), instance: "a".into(), ..Default::default() };
    let told = c.health.list_transitions(request).await.unwrap().into_inner().transitions;
    let statuses: Vec<_> = told.iter().map(v1::Transition::status).collect();
    assert_eq!(statuses, [HealthStatus::Passing, HealthStatus::Critical, HealthStatus::Passing]);
    assert_eq!(told[0].output, "heartbeat");
}

#[tokio::test]
async fn a_heartbeat_that_changes_nothing_writes_nothing() {
    let mut c = checks().await;
    for i in 0..100 {
        c.register(&format!("i{i}"), vec![ttl("ttl", 3_600_000)]).await;
    }
    let mut heart = c.heart().await;
    let all: Vec<_> = (0..100).map(|i| pass(&format!("i{i}"))).collect();
    let before = c.applied();
    assert_eq!(heart.beat(all.clone()).await.unwrap(), [Some(3_600_000); 100]);
    assert_eq!(c.applied(), before + 1, "all that came to life are one write");
    let many: Vec<_> = all.iter().cloned().cycle().take(10_000).collect();
    for _ in 0..5 {
        assert_eq!(heart.beat(many.clone()).await.unwrap().len(), 10_000);
    }
    assert_eq!(c.applied(), before + 1);
}

#[tokio::test]
async fn a_pass_says_what_is_not_there_and_which_check_is_meant() {
    let mut c = checks().await;
    c.register("a", vec![ttl("long", 60_000), ttl("short", 30_000)]).await;
    let mut heart = c.heart().await;
    let of = |check: &str| v1::Pass { check: check.into(), ..pass("a") };
    let passes = vec![pass("nobody"), of("nothing"), of("long"), pass("a")];
    assert_eq!(heart.beat(passes).await.unwrap(), [None, None, Some(60_000), Some(30_000)]);
    for (wrong, field) in [
        (v1::Pass::default(), "passes[0].instance"),
        (v1::Pass { load: Some(f64::NAN), ..pass("a") }, "passes[0].load"),
        (v1::Pass { load: Some(-1.0), ..pass("a") }, "passes[0].load"),
        (v1::Pass { check: "\n".into(), ..pass("a") }, "passes[0].check"),
    ] {
        let mut heart = c.heart().await;
        assert_eq!(refusal(&heart.beat(vec![wrong]).await.unwrap_err()), invalid(field));
    }
    let mut heart = c.heart().await;
    assert_eq!(refusal(&heart.beat(vec![pass("a"); 10_001]).await.unwrap_err()), invalid("passes"));
    let mut heart = c.heart().await;
    assert_eq!(refusal(&heart.beat(vec![]).await.unwrap_err()), invalid("passes"));
}

#[tokio::test]
async fn streams_of_heartbeats_have_a_limit() {
    let mut c = checks_with(Limits { max_heartbeat_streams: 1, ..Limits::default() }).await;
    c.register("a", vec![ttl("ttl", 60_000)]).await;
    let mut heart = c.heart().await;
    heart.beat(vec![pass("a")]).await.unwrap();
    let (_requests, receiver) = tokio::sync::mpsc::unbounded_channel();
    let second = c.health.heartbeat(UnboundedReceiverStream::new(receiver)).await.unwrap_err();
    assert_eq!(refusal(&second), refused(Code::ResourceExhausted, "TOO_MANY_HEARTBEATS"));
}

#[tokio::test]
async fn checks_are_set_by_hand_if_they_have_a_ttl() {
    let mut c = checks().await;
    let alias = v1::AliasCheck { service: "web".into(), instance: "b".into() };
    let alias = v1::Check { kind: Some(v1::check::Kind::Alias(alias)), ..Default::default() };
    c.register("a", vec![ttl("ttl", 60_000), alias]).await;
    assert_eq!(c.update("a", HealthStatus::Warning).await.unwrap(), 2);
    let request = v1::ListChecksRequest { status: vec![HealthStatus::Warning.into()], ..Default::default() };
    let found = c.health.list_checks(request).await.unwrap().into_inner().checks;
    assert_eq!((found.len(), found[0].output.as_str()), (1, "by hand"));
    assert_eq!(c.update("a", HealthStatus::Warning).await.unwrap(), 2, "nothing has changed");
    let not_found = c.update("b", HealthStatus::Passing).await.unwrap_err();
    assert_eq!(refusal(&not_found), refused(Code::NotFound, "CHECK_NOT_FOUND"));
    let request = v1::UpdateCheckRequest {
        name: Some(name("a", "alias")),
        status: HealthStatus::Passing.into(),
        ..Default::default()
    };
    let not_ttl = c.health.update_check(request).await.unwrap_err();
    assert_eq!(refusal(&not_ttl), refused(Code::FailedPrecondition, "CHECK_NOT_TTL"));
    let maintenance = c.update("a", HealthStatus::Maintenance).await.unwrap_err();
    assert_eq!(refusal(&maintenance), invalid("status"));
}

#[tokio::test]
async fn long_and_strange_output_is_cut_and_cleaned() {
    let mut c = checks().await;
    c.register("a", vec![ttl("ttl", 60_000)]).await;
    let request = v1::UpdateCheckRequest {
        name: Some(name("a", "ttl")),
        status: HealthStatus::Passing.into(),
        output: format!("\u{1b}[31mred\n{}", "ä".repeat(4_096)),
        ..Default::default()
    };
    c.health.update_check(request).await.unwrap();
    let output = c.check("a").await.output;
    assert!(output.starts_with(" [31mred\n") && output.len() <= 4_096 && output.len() > 4_090, "{output}");
}

#[tokio::test]
async fn a_check_that_flaps_is_held_at_its_worse_status() {
    let mut c = checks().await;
    c.register("a", vec![ttl("ttl", 60_000)]).await;
    for _ in 0..2 {
        c.update("a", HealthStatus::Passing).await.unwrap();
        c.update("a", HealthStatus::Critical).await.unwrap();
    }
    assert!(c.check("a").await.held_until.is_none());
    c.update("a", HealthStatus::Passing).await.unwrap();
    let held = c.check("a").await;
    assert_eq!((held.status(), held.observed()), (HealthStatus::Critical, HealthStatus::Passing));
    assert!(held.held_until.is_some());
}

#[tokio::test]
async fn an_instance_that_stays_critical_is_deregistered() {
    let mut c = checks().await;
    let check = v1::Check { deregister_critical_after: millis(1_000), ..ttl("ttl", 60_000) };
    c.register("a", vec![check.clone()]).await;
    c.register("b", vec![check]).await;
    c.update("b", HealthStatus::Passing).await.unwrap();
    let target = v1::CatalogWatchTarget {
        selector: Some(v1::catalog_watch_target::Selector::Service("web".into())),
        ..Default::default()
    };
    let request = v1::CatalogWatchRequest { targets: vec![target], ..Default::default() };
    let mut stream = c.catalog.watch(request).await.unwrap().into_inner();
    let gone = soon(async {
        loop {
            let message = stream.message().await.unwrap().unwrap();
            for event in message.events {
                let object = event.object.clone().unwrap().object.unwrap();
                if let (v1::catalog_event::Type::Delete, v1::catalog_object::Object::Instance(info)) =
                    (event.r#type(), object)
                {
                    return info.instance.unwrap().id;
                }
            }
        }
    })
    .await;
    assert_eq!(gone, "a");
    let left = c.catalog.list_instances(crate::catalog::all_of("web")).await.unwrap().into_inner();
    assert_eq!(crate::catalog::ids(&left.instances), ["b"]);
}

#[tokio::test]
async fn a_new_leader_gives_every_check_its_full_time() {
    let mut c = checks().await;
    c.register("a", vec![ttl("ttl", 2_000)]).await;
    let mut heart = c.heart().await;
    heart.beat(vec![pass("a")]).await.unwrap();
    // It leads no more, and nobody can be asked.
    c.server.consensus.stand(Standing { member_id: 1, leader_id: Some(2), term: 2, ..Standing::default() });
    c.server.consensus.fail(Some(ProposeError::NoLeader));
    let refused = heart.beat(vec![pass("a")]).await.unwrap_err();
    assert_eq!(refusal(&refused).reason, "NO_LEADER");
    tokio::time::timeout(Duration::from_millis(2_300), std::future::pending::<()>()).await.unwrap_err();
    // It leads again, in `Solo`'s only term.
    c.server.consensus.fail(None);
    c.server.consensus.stand(Standing { member_id: 1, leader_id: Some(1), term: 1, ..Standing::default() });
    let again = Instant::now();
    assert_eq!(c.check("a").await.status(), HealthStatus::Passing);
    c.becomes("a", |check| check.status() == HealthStatus::Critical).await;
    assert!(again.elapsed() >= Duration::from_millis(1_900), "{:?}", again.elapsed());
}

#[tokio::test]
async fn the_least_loaded_come_first() {
    let mut c = checks().await;
    for id in ["a", "b", "c", "d"] {
        let check = v1::Check { initial: HealthStatus::Passing.into(), ..ttl("ttl", 60_000) };
        c.register(id, vec![check]).await;
    }
    let mut heart = c.heart().await;
    let loaded = |id: &str, load: f64| v1::Pass { load: Some(load), ..pass(id) };
    heart.beat(vec![loaded("a", 9.0), loaded("b", 0.5), loaded("c", 4.0), pass("d")]).await.unwrap();
    let request = v1::ResolveRequest {
        service: "web".into(),
        strategy: v1::Strategy::LeastLoaded.into(),
        limit: 4,
        ..Default::default()
    };
    let got = c.catalog.resolve(request).await.unwrap().into_inner();
    // Who says nothing counts as the average, 4.5.
    assert_eq!(crate::catalog::ids(&got.instances), ["b", "c", "d", "a"]);
}

#[tokio::test]
async fn checks_are_listed_in_pages_of_one_revision() {
    let mut c = checks().await;
    for i in 0..5 {
        c.register(&format!("i{i}"), vec![ttl("one", 60_000), ttl("two", 60_000)]).await;
    }
    let mut request = v1::ListChecksRequest { service: "web".into(), page_size: 3, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page = c.health.list_checks(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.revision, 5);
        found.extend(page.checks.into_iter().map(|check| check.name.unwrap().check));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
        // What comes meanwhile is not in the listing.
        c.register("later", vec![ttl("one", 60_000)]).await;
    }
    assert_eq!(found, ["one", "two"].repeat(5));
    let wrong = v1::ListChecksRequest { instance: "i1".into(), ..Default::default() };
    assert_eq!(refusal(&c.health.list_checks(wrong).await.unwrap_err()), invalid("instance"));
    let wrong = v1::ListChecksRequest { service: "web".into(), node: "n1".into(), ..Default::default() };
    assert_eq!(refusal(&c.health.list_checks(wrong).await.unwrap_err()), invalid("node"));
}
