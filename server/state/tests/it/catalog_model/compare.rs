//! What is compared: all listings, now and in the past, what is found and counted, and what the changes replay to.

use std::collections::BTreeMap;
use std::fmt::Debug;

use konsul_state::command::{CheckRecord, InstanceDefinition, InstanceRecord};
use konsul_state::view::{By, Paging, RowCursor, Rows, View};
use konsul_state::{
    Change, CheckId, CheckOwner, Ident, InstanceId, Label, LeaseId, Namespace, NodeId, ReadError, Revision,
    ServiceId,
};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::draw::{IDS, LEASES, NAMESPACES, NODES, SERVICES, TAGS, some_owner, some_service};
use super::model::{Now, followed};
use crate::fixture::Fixture;

/// All pages of a listing.
pub fn pages<K, R>(
    rng: &mut StdRng,
    f: &Fixture,
    at: Option<u64>,
    list: impl Fn(&View, &Paging<'_>) -> Result<Rows<K, R>, ReadError>,
) -> Vec<(K, R)> {
    let (mut all, mut after): (Vec<(K, R)>, Option<RowCursor>) = (Vec::new(), None);
    loop {
        let paging = Paging {
            at: at.map(Revision),
            after: after.as_ref(),
            limit: rng.random_range(1..8),
            max_bytes: rng.random_range(1..2_000),
            max_rows: rng.random_range(1..10),
        };
        let page = list(&f.state.view().unwrap(), &paging).unwrap();
        assert!(page.rows.len() <= paging.limit.min(paging.max_rows));
        all.extend(page.rows);
        match page.next {
            None => return all,
            Some(next) => after = Some(RowCursor::from_bytes(next.as_bytes().to_vec())),
        }
    }
}

pub fn some_of<K: Ord + Clone, R: Clone>(map: &BTreeMap<K, R>, is_meant: impl Fn(&K) -> bool) -> Vec<(K, R)> {
    let meant = map.iter().filter(|(key, _)| is_meant(key));
    meant.map(|(key, record)| (key.clone(), record.clone())).collect()
}

/// Compares two listings, and shows where they part.
pub fn same<K: PartialEq + Debug, R: PartialEq + Debug>(found: Vec<(K, R)>, expected: Vec<(K, R)>) {
    let parts = found.iter().zip(&expected).find(|(a, b)| a != b);
    assert_eq!(parts.map(|(a, _)| a), parts.map(|(_, b)| b));
    assert_eq!(found.len(), expected.len());
}

/// Compares all listings at a revision with what was there.
pub fn compare_lists(rng: &mut StdRng, f: &Fixture, at: Option<u64>, was: &Now) {
    let all = |namespace: &Namespace, within: Option<&Namespace>| within.is_none_or(|w| w == namespace);
    let first = Namespace::parse(NAMESPACES[0]).unwrap();
    let second = Namespace::parse(NAMESPACES[1]).unwrap();
    for within in [None, Some(&first), Some(&second)] {
        let nodes = pages(rng, f, at, |view, paging| view.nodes(within, paging));
        same(nodes, some_of(&was.nodes, |id| all(&id.namespace, within)));
        let services = pages(rng, f, at, |view, paging| view.services(within.map(|w| (w, "")), paging));
        same(services, some_of(&was.services, |id| all(&id.namespace, within)));
        let instances = pages(rng, f, at, |view, paging| view.instances(within.map(|w| (w, None)), paging));
        same(instances, some_of(&was.instances, |id| all(&id.namespace, within)));
        let checks = pages(rng, f, at, |view, paging| view.checks(within.map(|w| (w, None)), paging));
        let mut expected = some_of(&was.checks, |id| all(id.owner.namespace(), within));
        expected.sort_by(|(a, _), (b, _)| a.owner.namespace().cmp(b.owner.namespace()));
        same(checks, expected);
    }
    let within = if rng.random() { first } else { second };
    let service = some_service(rng, &within);
    let instances =
        pages(rng, f, at, |view, paging| view.instances(Some((&within, Some(&service.name))), paging));
    same(instances, some_of(&was.instances, |id| id.service_id() == service));
    let checks = pages(rng, f, at, |view, paging| view.checks(Some((&within, Some(&service.name))), paging));
    let of_service =
        |id: &CheckId| matches!(&id.owner, CheckOwner::Instance(id) if id.service_id() == service);
    same(checks, some_of(&was.checks, of_service));
    let prefix = *["", "w", "web", "web-", "x"].choose(rng).unwrap();
    let services = pages(rng, f, at, |view, paging| view.services(Some((&within, prefix)), paging));
    let begins = |id: &ServiceId| id.namespace == within && id.name.as_str().starts_with(prefix);
    same(services, some_of(&was.services, begins));
    let owner = some_owner(rng, &within);
    let checks = pages(rng, f, at, |view, paging| view.checks_of_owner(&owner, paging));
    same(checks, some_of(&was.checks, |id| id.owner == owner));
}

/// Compares what is found by something, in pages, and what is counted.
pub fn compare_found(rng: &mut StdRng, f: &Fixture, now: &Now) {
    let view = f.state.view().unwrap();
    for namespace in NAMESPACES.map(|name| Namespace::parse(name).unwrap()) {
        let definitions = || now.instances.iter().filter(|(id, _)| id.namespace == namespace);
        let found = |is_meant: &dyn Fn(&InstanceDefinition) -> bool| {
            let meant = definitions().filter(|(_, record)| is_meant(record.definition.as_ref().unwrap()));
            meant.map(|(id, record)| (id.clone(), record.clone())).collect::<Vec<_>>()
        };
        let mut expected: Vec<(By<'_>, Vec<(InstanceId, InstanceRecord)>)> = Vec::new();
        for node in NODES {
            expected.push((By::Node(node), found(&|definition| definition.node == node)));
        }
        for tag in TAGS {
            expected.push((By::Tag(tag), found(&|definition| definition.tags.iter().any(|t| t == tag))));
        }
        for (name, value) in [("k", "v"), ("zone", "z"), ("zone", "z2")] {
            let has = |definition: &InstanceDefinition| {
                definition
                    .metadata
                    .iter()
                    .any(|item| (item.name.as_str(), item.value.as_str()) == (name, value))
            };
            expected.push((By::Metadata(name, value), found(&has)));
        }
        for (by, expected) in expected {
            let mut all: Vec<(InstanceId, InstanceRecord)> = Vec::new();
            let most = rng.random_range(1..4);
            loop {
                let after = all.last().map(|(id, _)| id.clone());
                let page = view.instances_by(&namespace, &by, after.as_ref(), most).unwrap();
                all.extend(page.clone());
                if page.len() < most {
                    break;
                }
            }
            if let By::Node(_) = by {
                assert_eq!(view.count_instances(&namespace, &by).unwrap(), expected.len() as u64);
            }
            same(all, expected);
        }
        for service in SERVICES.map(|name| Label::parse(name).unwrap()) {
            let count = definitions().filter(|(id, _)| id.service == service).count() as u64;
            assert_eq!(view.count_instances(&namespace, &By::Service(&service)).unwrap(), count);
            for id in IDS.map(|id| Ident::parse(id).unwrap()) {
                let id = InstanceId { namespace: namespace.clone(), service: service.clone(), id };
                let follows = |(check, record): &(&CheckId, &CheckRecord)| {
                    followed(check, record).as_ref() == Some(&id)
                };
                let count = now.checks.iter().filter(follows).count() as u64;
                assert_eq!(view.count_instances(&namespace, &By::Followed(&id)).unwrap(), count);
                assert_eq!(view.instance(&id).unwrap().as_ref(), now.instances.get(&id));
                let owner = CheckOwner::Instance(id);
                assert_eq!(view.checks_of(&owner).unwrap(), some_of(&now.checks, |id| id.owner == owner));
            }
            let id = ServiceId { namespace: namespace.clone(), name: service };
            assert_eq!(view.service(&id).unwrap().as_ref(), now.services.get(&id));
        }
        for node in NODES {
            let id = NodeId { namespace: namespace.clone(), name: Label::parse(node).unwrap() };
            assert_eq!(view.node(&id).unwrap().as_ref(), now.nodes.get(&id));
        }
        for lease in LEASES {
            let count = now.leased(&namespace, lease).len() as u64;
            assert_eq!(view.lease_instances(&namespace, LeaseId(lease)).unwrap(), count);
            assert_eq!(view.lease_load(&namespace, LeaseId(lease)).unwrap().count, count);
            let record = view.lease(&namespace, LeaseId(lease)).unwrap().map(|record| record.create_revision);
            assert_eq!(record.as_ref(), now.leases.get(&(namespace.clone(), lease)));
        }
    }
}

/// Carries out a change of one row, before which it was as the change says.
pub fn replay_one<K: Ord + Debug, R: PartialEq + Clone + Debug>(
    map: &mut BTreeMap<K, R>,
    id: K,
    before: &Option<R>,
    after: &Option<R>,
) {
    assert_eq!(map.get(&id), before.as_ref(), "{id:?}");
    assert!(before != after, "no change of {id:?}");
    match after.clone() {
        Some(record) => drop(map.insert(id, record)),
        None => drop(map.remove(&id)),
    }
}

pub fn replay(onto: &mut Now, change: &Change) {
    match change.clone() {
        Change::Node(c) => replay_one(&mut onto.nodes, c.id, &c.before, &c.after),
        Change::Service(c) => replay_one(&mut onto.services, c.id, &c.before, &c.after),
        Change::Instance(c) => replay_one(&mut onto.instances, c.id, &c.before, &c.after),
        Change::Check(c) => replay_one(&mut onto.checks, c.id, &c.before, &c.after),
        Change::Lease(c) => {
            let made = |record: Option<konsul_state::command::LeaseRecord>| record.map(|r| r.create_revision);
            replay_one(&mut onto.leases, (c.namespace, c.id.0), &made(c.before), &made(c.after));
        }
        other => panic!("{other:?}"),
    }
}
