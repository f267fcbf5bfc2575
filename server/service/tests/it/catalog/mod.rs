//! The catalog: what is registered is found, picked and listed; what can't be is refused.

mod directory;
mod listing;
mod refusals;
mod resolving;
mod watching;

use konsul_proto::v1::catalog_client::CatalogClient;
use konsul_proto::v1::{self, HealthStatus};
use konsul_service::Limits;
use konsul_state::command::{self, command::Op};
use konsul_state::propose::Propose;
use konsul_state::{Command, Outcome};
use tonic::transport::Channel;

use crate::harness::{Server, start_with};

pub(super) struct Catalog {
    pub(super) server: Server,
    pub(super) client: CatalogClient<Channel>,
}

pub(super) async fn catalog() -> Catalog {
    let server = start_with(Limits::default()).await;
    let client = CatalogClient::new(server.channel().await).max_decoding_message_size(64 << 20);
    Catalog { server, client }
}

impl Catalog {
    pub(super) async fn register(&mut self, instance: v1::Instance) -> v1::RegisterResponse {
        let request = v1::RegisterRequest { instance: Some(instance), ..Default::default() };
        self.client.register(request).await.unwrap().into_inner()
    }

    /// With a TTL check that begins in this status.
    pub(super) async fn register_in(&mut self, instance: v1::Instance, status: HealthStatus) {
        let request = v1::RegisterRequest {
            instance: Some(instance),
            checks: vec![ttl_check(status)],
            ..Default::default()
        };
        self.client.register(request).await.unwrap();
    }

    pub(super) async fn resolve(&mut self, request: v1::ResolveRequest) -> Vec<String> {
        ids(&self.client.resolve(request).await.unwrap().into_inner().instances)
    }

    pub(super) async fn instances(&mut self, request: v1::ListInstancesRequest) -> Vec<String> {
        ids(&self.client.list_instances(request).await.unwrap().into_inner().instances)
    }

    /// Has a Command carried out that no method makes.
    pub(super) async fn carry_out(&self, op: Op) -> Outcome {
        let command = Command { format: command::FORMAT, time_ms: 1, op: Some(op), ..Default::default() };
        self.server.consensus.propose(command).await.unwrap()
    }
}

pub(crate) fn instance(service: &str, id: &str) -> v1::Instance {
    v1::Instance {
        service: service.into(),
        id: id.into(),
        address: "192.0.2.10".into(),
        port: 8080,
        ..Default::default()
    }
}

pub(super) fn ttl_check(initial: HealthStatus) -> v1::Check {
    let ttl = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let kind = Some(v1::check::Kind::Ttl(v1::TtlCheck { ttl }));
    v1::Check { initial: initial.into(), kind, ..Default::default() }
}

pub(super) fn node(name: &str) -> v1::Node {
    v1::Node { name: name.into(), address: "192.0.2.1".into(), ..Default::default() }
}

pub(crate) fn ids(instances: &[v1::InstanceInfo]) -> Vec<String> {
    instances.iter().map(|info| info.instance.as_ref().unwrap().id.clone()).collect()
}

pub(super) fn resolve(service: &str, strategy: v1::Strategy, limit: u32) -> v1::ResolveRequest {
    v1::ResolveRequest { service: service.into(), strategy: strategy.into(), limit, ..Default::default() }
}

pub(crate) fn all_of(service: &str) -> v1::ListInstancesRequest {
    v1::ListInstancesRequest { service: service.into(), ..Default::default() }
}

#[tokio::test]
async fn what_is_registered_is_there_and_registering_it_again_changes_nothing() {
    let mut c = catalog().await;
    let full = v1::Instance {
        node: String::new(),
        ports: [("metrics".to_owned(), 9090)].into(),
        tags: vec!["v1".into(), "canary".into()],
        metadata: [("zone".to_owned(), "a".to_owned())].into(),
        version: "1.2.3".into(),
        weights: Some(v1::Weights { passing: 10, warning: 2 }),
        depends_on: vec!["db".into()],
        ..instance("web", "web-1")
    };
    let request = v1::RegisterRequest {
        node: Some(node("n1")),
        node_checks: Some(v1::CheckList { checks: vec![ttl_check(HealthStatus::Passing)] }),
        instance: Some(full.clone()),
        checks: vec![ttl_check(HealthStatus::Warning)],
        ..Default::default()
    };
    let first = c.client.register(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.id.as_str(), first.revision, first.warnings.len()), ("web-1", 1, 0));
    assert_eq!(c.client.register(request).await.unwrap().into_inner().revision, 1);
    let found = c.client.list_instances(all_of("web")).await.unwrap().into_inner();
    assert_eq!((found.revision, found.instances.len()), (1, 1));
    let info = &found.instances[0];
    // Tags have an order of their own.
    let want = v1::Instance { node: "n1".into(), tags: vec!["canary".into(), "v1".into()], ..full };
    assert_eq!(info.instance.as_ref().unwrap(), &want);
    assert_eq!((info.address.as_str(), info.zone.as_str()), ("192.0.2.10", "a"));
    assert_eq!((info.health(), info.create_revision, info.mod_revision), (HealthStatus::Warning, 1, 1));
    let got = c.client.get_node(v1::GetNodeRequest { name: "n1".into(), ..Default::default() }).await;
    let got = got.unwrap().into_inner().node.unwrap();
    assert_eq!((got.node.clone().unwrap(), got.health()), (node("n1"), HealthStatus::Passing));
}

#[tokio::test]
async fn an_instance_without_an_id_or_address_has_its_nodes() {
    let mut c = catalog().await;
    let request = v1::RegisterRequest {
        node: Some(node("n1")),
        instance: Some(v1::Instance { id: String::new(), address: String::new(), ..instance("web", "") }),
        ..Default::default()
    };
    assert_eq!(c.client.register(request).await.unwrap().into_inner().id, "n1");
    let address = |found: v1::ListInstancesResponse| found.instances[0].address.clone();
    let found = c.client.list_instances(all_of("web")).await.unwrap().into_inner();
    assert_eq!(address(found), "192.0.2.1");
    let moved = v1::Node { address: "192.0.2.2".into(), ..node("n1") };
    let request = v1::RegisterRequest { node: Some(moved), ..Default::default() };
    c.client.register(request).await.unwrap();
    let found = c.client.list_instances(all_of("web")).await.unwrap().into_inner();
    assert_eq!(address(found), "192.0.2.2");
}

#[tokio::test]
async fn what_dns_does_not_serve_is_told() {
    let mut c = catalog().await;
    let odd = v1::Instance { tags: vec!["a tag".into(), "V1".into()], ..instance("web", "10.0.0.1:80") };
    let warnings = c.register(odd).await.warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("\"10.0.0.1:80\"") && warnings[1].contains("\"a tag\""), "{warnings:?}");
}

#[tokio::test]
async fn what_is_deregistered_is_gone_and_its_service_with_its_last_instance() {
    let mut c = catalog().await;
    c.register(instance("web", "a")).await;
    let on_node = v1::RegisterRequest {
        node: Some(node("n1")),
        instance: Some(instance("web", "b")),
        ..Default::default()
    };
    c.client.register(on_node).await.unwrap();
    let what = v1::InstanceName { service: "web".into(), id: "a".into() };
    let what = Some(v1::deregister_request::What::Instance(what));
    let request = v1::DeregisterRequest { what, ..Default::default() };
    let done = c.client.deregister(request.clone()).await.unwrap().into_inner();
    assert_eq!((done.revision, done.instances), (3, 1));
    let again = c.client.deregister(request).await.unwrap().into_inner();
    assert_eq!((again.revision, again.instances), (3, 0));
    assert_eq!(c.instances(all_of("web")).await, ["b"]);
    let what = Some(v1::deregister_request::What::Node("n1".into()));
    let done = c.client.deregister(v1::DeregisterRequest { what, ..Default::default() }).await.unwrap();
    assert_eq!(done.into_inner().instances, 1);
    let services = c.client.list_services(v1::ListServicesRequest::default()).await.unwrap().into_inner();
    assert_eq!(services.services, []);
}

#[tokio::test]
async fn a_batch_is_one_revision_or_none() {
    let mut c = catalog().await;
    let of = |instance| v1::RegisterRequest { instance: Some(instance), ..Default::default() };
    let good = [of(instance("web", "a")), of(instance("web", "b")), of(instance("db", "c"))];
    let batch = v1::RegisterBatchRequest { registrations: good.to_vec(), ..Default::default() };
    let done = c.client.register_batch(batch).await.unwrap().into_inner();
    assert_eq!((done.revision, done.ids), (1, vec!["a".into(), "b".into(), "c".into()]));
    let lost = of(v1::Instance { node: "nowhere".into(), ..instance("web", "d") });
    let registrations = vec![of(instance("web", "e")), lost];
    let batch = v1::RegisterBatchRequest { registrations, ..Default::default() };
    let refused = c.client.register_batch(batch).await.unwrap_err();
    assert!(refused.message().contains("nowhere"), "{refused:?}");
    assert_eq!(c.instances(all_of("web")).await, ["a", "b"]);
}

#[tokio::test]
async fn instances_end_with_their_lease() {
    let mut c = catalog().await;
    let grant =
        command::LeaseGrant { namespace: "default".into(), id: 7, ttl_ms: 60_000, ..Default::default() };
    c.carry_out(Op::LeaseGrant(grant)).await;
    c.register(v1::Instance { lease: 7, ..instance("web", "a") }).await;
    c.register(instance("web", "b")).await;
    let revoke = command::LeaseRevoke { namespace: "default".into(), id: 7 };
    c.carry_out(Op::LeaseRevoke(revoke)).await;
    assert_eq!(c.instances(all_of("web")).await, ["b"]);
}
