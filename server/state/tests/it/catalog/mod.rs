//! The catalog by example; and short ways to say its Commands.

mod checks;
mod limits;
mod registering;

use konsul_state::command::{
    CatalogConfigure, CatalogDeregister, CatalogMaintain, CatalogRegister, CheckDefinition, CheckReport,
    CheckSet, Health, InstanceDefinition, InstanceKey, InstanceRegistration, Item, LeaseGrant, NamedCheck,
    NodeDefinition, NodeRegistration, Registration, ServiceSettings, TcpProbe, check_definition::Kind,
    check_report::Report, command::Op, outcome, refusal::Reason,
};
use konsul_state::view::By;
use konsul_state::{Change, CheckId, CheckOwner, Ident, InstanceId, Label, NodeId, Outcome, ServiceId};

use crate::fixture::{Fixture, ns, refused};

pub const TERM: u64 = 1;
pub const LEADER: u64 = 1;

pub fn node_id(name: &str) -> NodeId {
    NodeId { namespace: ns(), name: Label::parse(name).unwrap() }
}

pub fn service_id(name: &str) -> ServiceId {
    ServiceId { namespace: ns(), name: Label::parse(name).unwrap() }
}

/// The instance of a service and id, as in `web/1`.
pub fn instance_id(name: &str) -> InstanceId {
    let (service, id) = name.split_once('/').unwrap();
    InstanceId { namespace: ns(), service: Label::parse(service).unwrap(), id: Ident::parse(id).unwrap() }
}

/// The owner of checks: an instance, as in `web/1`, or a node.
pub fn owner_of(name: &str) -> CheckOwner {
    match name.contains('/') {
        true => CheckOwner::Instance(instance_id(name)),
        false => CheckOwner::Node(node_id(name)),
    }
}

pub fn check_id(owner: &str, id: &str) -> CheckId {
    CheckId { owner: owner_of(owner), id: Ident::parse(id).unwrap() }
}

pub fn ttl(id: &str, initial: Health) -> NamedCheck {
    check(id, Kind::TtlMs(10_000), initial)
}

pub fn tcp(id: &str, initial: Health) -> NamedCheck {
    let probe = TcpProbe { address: "127.0.0.1:1".into(), tls: None };
    check(id, Kind::Tcp(probe), initial)
}

pub fn alias(id: &str, of: &str) -> NamedCheck {
    let InstanceKey { service, id: instance } = instance_id(of).to_key();
    check(id, Kind::Alias(InstanceKey { service, id: instance }), Health::Critical)
}

pub fn check(id: &str, kind: Kind, initial: Health) -> NamedCheck {
    let definition =
        CheckDefinition { kind: Some(kind), initial: initial.into(), ..CheckDefinition::default() };
    NamedCheck { id: id.into(), definition: Some(definition) }
}

pub fn items(items: &[(&str, &str)]) -> Vec<Item> {
    items.iter().map(|(name, value)| Item { name: (*name).into(), value: (*value).into() }).collect()
}

pub fn node(name: &str) -> NodeRegistration {
    let definition = NodeDefinition { address: format!("{name}.example"), ..NodeDefinition::default() };
    NodeRegistration { name: name.into(), definition: Some(definition), checks: None }
}

/// An instance on a node, or with an address of its own.
pub fn instance(name: &str, node: &str) -> InstanceRegistration {
    let address = if node.is_empty() { "192.0.2.1".to_owned() } else { String::new() };
    let definition = InstanceDefinition { node: node.into(), address, ..InstanceDefinition::default() };
    instance_with(name, definition, Vec::new())
}

pub fn instance_with(
    name: &str,
    definition: InstanceDefinition,
    checks: Vec<NamedCheck>,
) -> InstanceRegistration {
    let InstanceKey { service, id } = instance_id(name).to_key();
    InstanceRegistration { service, id, definition: Some(definition), checks: Some(CheckSet { checks }) }
}

pub fn checked(mut instance: InstanceRegistration, checks: Vec<NamedCheck>) -> InstanceRegistration {
    instance.checks = Some(CheckSet { checks });
    instance
}

pub fn checked_node(name: &str, checks: Vec<NamedCheck>) -> NodeRegistration {
    NodeRegistration { checks: Some(CheckSet { checks }), ..node(name) }
}

/// Registers nodes, then instances, in one Command.
pub fn register(nodes: Vec<NodeRegistration>, instances: Vec<InstanceRegistration>) -> Op {
    let nodes = nodes.into_iter().map(|node| Registration { node: Some(node), instance: None });
    let instances = instances.into_iter().map(|i| Registration { node: None, instance: Some(i) });
    Op::CatalogRegister(CatalogRegister {
        namespace: "default".into(),
        registrations: nodes.chain(instances).collect(),
    })
}

pub fn deregister(what: &str) -> Op {
    let what = Some(owner_of(what).to_owner());
    Op::CatalogDeregister(CatalogDeregister { namespace: "default".into(), what })
}

/// Begins maintenance, or ends it, without a reason.
pub fn maintain(what: &str, reason: &str) -> Op {
    let what = Some(owner_of(what).to_owner());
    Op::CatalogMaintain(CatalogMaintain { namespace: "default".into(), what, reason: reason.into() })
}

pub fn configure(service: &str, settings: ServiceSettings) -> Op {
    let (namespace, service) = ("default".into(), service.into());
    Op::CatalogConfigure(CatalogConfigure { namespace, service, settings: Some(settings) })
}

/// One result of a check, of the check that is there.
pub fn result(owner: &str, id: &str, status: Health, output: &str) -> Report {
    let check = Some(check_id(owner, id).to_name());
    Report { check, status: status.into(), output: output.into(), create_revision: 0 }
}

pub fn report(owner: &str, id: &str, status: Health, output: &str) -> Op {
    let reports = vec![result(owner, id, status, output)];
    Op::CheckReport(CheckReport { reports, ..CheckReport::default() })
}

/// Applies an operation that must not be refused; says whether it took a revision.
pub fn done(f: &mut Fixture, op: Op) -> bool {
    let before = f.state.view().unwrap().revision().0;
    let command = f.command(op);
    let outcome = f.apply(command);
    assert!(!matches!(outcome.result, Some(outcome::Result::Refused(_))), "{outcome:?}");
    outcome.revision > before
}

pub fn run(f: &mut Fixture, op: Op) -> Outcome {
    let command = f.command(op);
    f.apply(command)
}

pub fn grant(f: &mut Fixture, id: u64) {
    let grant = LeaseGrant { namespace: "default".into(), id, ttl_ms: 1_000, ..LeaseGrant::default() };
    assert!(done(f, Op::LeaseGrant(grant)));
}

pub fn sound(f: &Fixture) {
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
}

/// Health of an instance with its alias checks and without them.
pub fn health(f: &Fixture, name: &str) -> (Health, Health) {
    let record = f.state.view().unwrap().instance(&instance_id(name)).unwrap().unwrap();
    (record.health(), record.own_health())
}

pub fn status(f: &Fixture, owner: &str, id: &str) -> Health {
    f.state.view().unwrap().check(&check_id(owner, id)).unwrap().unwrap().status()
}

/// What the last Batch changed: `node a`, `service web`, `instance web/1`, `check web/1 c`, in order.
pub fn changed(f: &Fixture) -> Vec<String> {
    let named = |id: &InstanceId| format!("{}/{}", id.service, id.id);
    let name = |change: &Change| match change {
        Change::Node(change) => format!("node {}", change.id.name),
        Change::Service(change) => format!("service {}", change.id.name),
        Change::Instance(change) => format!("instance {}", named(&change.id)),
        Change::Check(change) => match &change.id.owner {
            CheckOwner::Instance(id) => format!("check {} {}", named(id), change.id.id),
            CheckOwner::Node(id) => format!("check {} {}", id.name, change.id.id),
        },
        other => format!("{other:?}"),
    };
    f.batches.last().unwrap().changes.iter().map(name).collect()
}

pub fn counted(f: &Fixture, by: &By<'_>) -> u64 {
    f.state.view().unwrap().count_instances(&ns(), by).unwrap()
}

/// Applies an operation that must be refused, and change nothing.
pub fn refusal(f: &mut Fixture, op: Op) -> Reason {
    let (hash, batches) = (f.writer.hash().unwrap(), f.batches.len());
    let outcome = run(f, op);
    let reason = refused(&outcome).clone();
    assert_eq!((f.writer.hash().unwrap(), f.batches.len()), (hash, batches), "half done: {reason:?}");
    reason
}

pub fn by_hand(owner: &str, id: &str) -> Op {
    let reports = vec![result(owner, id, Health::Passing, "")];
    Op::CheckReport(CheckReport { reports, by_hand: true, ..CheckReport::default() })
}
