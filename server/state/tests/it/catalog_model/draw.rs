//! What is drawn: few names, so that they meet often.

use konsul_state::command::{
    CheckDefinition, CheckRecord, CheckSet, Health, InstanceDefinition, InstanceRegistration, NamedCheck,
    NodeDefinition, NodeRegistration, Registration,
};
use konsul_state::{CheckId, CheckOwner, Ident, InstanceId, Label, Namespace, NodeId, ServiceId};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};

use super::model::Model;
use crate::catalog::{alias, items, tcp, ttl};

/// The second begins with the first.
pub const NAMESPACES: [&str; 2] = ["default", "default-2"];
pub const NODES: [&str; 3] = ["a", "a-b", "b"];
pub const SERVICES: [&str; 3] = ["web", "web-2", "db"];
pub const IDS: [&str; 3] = ["1", "1 2", "x"];
pub const CHECKS: [&str; 3] = ["al", "c", "c2"];
pub const TAGS: [&str; 2] = ["t", "t2"];
pub const LEASES: std::ops::Range<u64> = 1..4;

pub fn namespace(rng: &mut StdRng) -> Namespace {
    Namespace::parse(NAMESPACES.choose(rng).unwrap()).unwrap()
}

pub fn some_node(rng: &mut StdRng, namespace: &Namespace) -> NodeId {
    let name = Label::parse(NODES.choose(rng).unwrap()).unwrap();
    NodeId { namespace: namespace.clone(), name }
}

pub fn some_service(rng: &mut StdRng, namespace: &Namespace) -> ServiceId {
    let name = Label::parse(SERVICES.choose(rng).unwrap()).unwrap();
    ServiceId { namespace: namespace.clone(), name }
}

pub fn some_instance(rng: &mut StdRng, namespace: &Namespace) -> InstanceId {
    let service = some_service(rng, namespace);
    let id = Ident::parse(IDS.choose(rng).unwrap()).unwrap();
    InstanceId { namespace: namespace.clone(), service: service.name, id }
}

pub fn some_owner(rng: &mut StdRng, namespace: &Namespace) -> CheckOwner {
    match rng.random_ratio(1, 4) {
        true => CheckOwner::Node(some_node(rng, namespace)),
        false => CheckOwner::Instance(some_instance(rng, namespace)),
    }
}

/// Mostly one that is there.
pub fn some_check(rng: &mut StdRng, model: &Model, namespace: &Namespace) -> CheckId {
    let there = model.now.checks.keys().filter(|id| id.owner.namespace() == namespace).choose(rng);
    match there {
        Some(id) if rng.random_ratio(9, 10) => id.clone(),
        _ => {
            let id = Ident::parse(CHECKS.choose(rng).unwrap()).unwrap();
            CheckId { owner: some_owner(rng, namespace), id }
        }
    }
}

pub fn some_checks(rng: &mut StdRng, owner: &CheckOwner) -> CheckSet {
    let initial = if rng.random_ratio(4, 5) { Health::Passing } else { Health::Critical };
    let mut checks = Vec::new();
    for id in CHECKS {
        let mut check = match rng.random_range(0..8) {
            0..2 => ttl(id, initial),
            2 => tcp(id, initial),
            3..5 => {
                let CheckOwner::Instance(own) = owner else { continue };
                let of = some_instance(rng, &own.namespace);
                // One that follows itself follows two changes in one step: see `catalog.rs`.
                if of == *own {
                    continue;
                }
                alias(id, &format!("{}/{}", of.service, of.id))
            }
            _ => continue,
        };
        let definition: &mut CheckDefinition = check.definition.as_mut().unwrap();
        definition.deregister_after_ms = [0, 1_000][rng.random_range(0..2)];
        checks.push(check);
    }
    CheckSet { checks }
}

pub fn some_metadata(rng: &mut StdRng) -> Vec<konsul_state::command::Item> {
    let choices: [&[(&str, &str)]; 4] = [&[], &[("k", "v")], &[("k", "v"), ("zone", "z")], &[("zone", "z2")]];
    items(choices.choose(rng).unwrap())
}

pub fn node_registration(rng: &mut StdRng, model: &Model, id: &NodeId) -> NodeRegistration {
    let owner = CheckOwner::Node(id.clone());
    let checks = rng.random_bool(0.5).then(|| some_checks(rng, &owner));
    let known = model.now.nodes.get(id).and_then(|record| record.definition.clone());
    let definition = known.filter(|_| rng.random_ratio(2, 3)).unwrap_or_else(|| NodeDefinition {
        address: ["one.example", "two.example"].choose(rng).unwrap().to_string(),
        metadata: some_metadata(rng),
        ..NodeDefinition::default()
    });
    NodeRegistration { name: id.name.as_str().into(), definition: Some(definition), checks }
}

pub fn instance_registration(rng: &mut StdRng, model: &Model, id: &InstanceId) -> InstanceRegistration {
    let owner = CheckOwner::Instance(id.clone());
    let record = model.now.instances.get(id);
    let known = record.and_then(|record| record.definition.clone()).filter(|_| rng.random_ratio(1, 3));
    let definition = known.clone().unwrap_or_else(|| InstanceDefinition {
        node: if rng.random_bool(0.7) {
            some_node(rng, &id.namespace).name.as_str().into()
        } else {
            "".into()
        },
        address: ["", "own.example"].choose(rng).unwrap().to_string(),
        port: rng.random_range(0..2),
        tags: TAGS.iter().filter(|_| rng.random()).map(ToString::to_string).collect(),
        metadata: some_metadata(rng),
        lease: if rng.random_bool(0.3) { rng.random_range(LEASES) } else { 0 },
        ..InstanceDefinition::default()
    });
    let checks = match known.is_some() && rng.random_ratio(2, 3) {
        // All of it as it is.
        true => {
            let own = model.now.checks.iter().filter(|(check, _)| check.owner == owner);
            let named = |(id, record): (&CheckId, &CheckRecord)| NamedCheck {
                id: id.id.as_str().into(),
                definition: record.definition.clone(),
            };
            CheckSet { checks: own.map(named).collect() }
        }
        false => some_checks(rng, &owner),
    };
    let (service, id) = (id.service.as_str().into(), id.id.as_str().into());
    InstanceRegistration { service, id, definition: Some(definition), checks: Some(checks) }
}

pub fn some_registrations(rng: &mut StdRng, model: &Model, namespace: &Namespace) -> Vec<Registration> {
    let count = if rng.random_bool(0.7) { 1 } else { rng.random_range(0..6) };
    let mut registrations = Vec::new();
    for _ in 0..count {
        let mut registration = Registration::default();
        if rng.random_ratio(1, 2) {
            let id = some_node(rng, namespace);
            registration.node = Some(node_registration(rng, model, &id));
        }
        if rng.random_ratio(4, 5) {
            let id = some_instance(rng, namespace);
            registration.instance = Some(instance_registration(rng, model, &id));
        }
        registrations.push(registration);
    }
    registrations
}
