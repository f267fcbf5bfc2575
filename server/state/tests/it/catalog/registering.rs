//! What registering, taking away, maintenance and the ends of leases make of the catalog, and what is refused.

use konsul_state::command::{
    CatalogDeregister, CatalogMaintain, CatalogReap, CatalogRegister, CheckReport, CheckSettle, Health,
    InstanceDefinition, InstanceRegistration, KvOperation, KvPut, LeaseExpire, LeaseRevoke, NodeDefinition,
    NodeRegistration, Owner, ServiceSettings, check_definition::Kind, check_report::Report, command::Op,
    kv_operation, lease_expire::Due, outcome, owner,
};
use konsul_state::view::By;
use konsul_state::{Entry, LeaseId, LogPosition, Payload};

use super::{
    LEADER, TERM, alias, by_hand, changed, checked, checked_node, configure, counted, deregister, done,
    grant, health, instance, instance_id, instance_with, items, maintain, node, node_id, owner_of, refusal,
    register, report, result, run, service_id, sound, status, tcp, ttl,
};
use crate::fixture::{Fixture, ns};

#[test]
fn registering_the_same_again_takes_no_revision() {
    use Health::{Critical, Passing};
    let definition = InstanceDefinition {
        node: "a".into(),
        port: 80,
        tags: vec!["v1".into()],
        metadata: items(&[("zone", "z")]),
        ..InstanceDefinition::default()
    };
    let table: Vec<(&str, Op)> = vec![
        ("a node", register(vec![node("a")], vec![])),
        ("a node with checks", register(vec![checked_node("a", vec![ttl("c", Passing)])], vec![])),
        ("an instance", register(vec![], vec![instance("web/1", "")])),
        (
            "a node and an instance with checks",
            register(
                vec![node("a")],
                vec![instance_with("web/1", definition, vec![ttl("c", Critical), tcp("d", Passing)])],
            ),
        ),
        (
            "an alias of what is not there, and one of what is",
            register(
                vec![node("a")],
                vec![
                    checked(instance("web/1", "a"), vec![alias("x", "db/1"), alias("y", "web/2")]),
                    instance("web/2", "a"),
                ],
            ),
        ),
        ("the same twice", register(vec![], vec![instance("web/1", ""), instance("web/1", "")])),
        ("settings", configure("web", ServiceSettings { protect_threshold: 3, ..Default::default() })),
    ];
    for (what, op) in table {
        let mut f = Fixture::new();
        assert!(done(&mut f, op.clone()), "{what}");
        let hash = f.writer.hash().unwrap();
        assert!(!done(&mut f, op), "{what}");
        assert_eq!(f.writer.hash().unwrap(), hash, "{what}");
        sound(&f);
    }
    // What a check found stays, with all that is remembered of it; what is in maintenance stays so.
    let mut f = Fixture::new();
    let op = register(vec![], vec![checked(instance("web/1", ""), vec![ttl("c", Critical)])]);
    done(&mut f, op.clone());
    done(&mut f, report("web/1", "c", Passing, "fine"));
    done(&mut f, maintain("web/1", "disk"));
    assert!(!done(&mut f, maintain("web/1", "disk")));
    assert!(!done(&mut f, op));
    assert_eq!(status(&f, "web/1", "c"), Passing);
    assert_eq!(health(&f, "web/1").0, Health::Maintenance);
    // A check with another definition of the same kind goes on as it is.
    let mut later = ttl("c", Critical);
    later.definition.as_mut().unwrap().kind = Some(Kind::TtlMs(99_000));
    assert!(done(&mut f, register(vec![], vec![checked(instance("web/1", ""), vec![later])])));
    assert_eq!(status(&f, "web/1", "c"), Passing);
    assert_eq!(changed(&f), ["check web/1 c"]);
}

#[test]
fn address_and_zone_are_the_instances_own_or_its_nodes() {
    let mut f = Fixture::new();
    let at = |address: &str, zone: &str| {
        let metadata = if zone.is_empty() { Vec::new() } else { items(&[("a", "b"), ("zone", zone)]) };
        (address.to_owned(), metadata)
    };
    let put_node = |f: &mut Fixture, address: &str, zone: &str| {
        let (address, metadata) = at(address, zone);
        let definition = NodeDefinition { address, metadata, ..NodeDefinition::default() };
        let node = NodeRegistration { name: "a".into(), definition: Some(definition), checks: None };
        done(f, register(vec![node], vec![]))
    };
    put_node(&mut f, "node.example", "east");
    // (node, address, zone; address and zone that follow)
    let table = [
        ("a", "", "", "node.example", "east"),
        ("a", "own.example", "", "own.example", "east"),
        ("a", "", "west", "node.example", "west"),
        ("", "own.example", "", "own.example", ""),
        ("", "own.example", "west", "own.example", "west"),
    ];
    let place = |f: &Fixture, name: &str| {
        let record = f.state.view().unwrap().instance(&instance_id(name)).unwrap().unwrap();
        (record.address, record.zone)
    };
    for (n, (node, address, zone, ..)) in table.iter().enumerate() {
        let (address, metadata) = at(address, zone);
        let node = (*node).to_owned();
        let definition = InstanceDefinition { node, address, metadata, ..InstanceDefinition::default() };
        done(&mut f, register(vec![], vec![instance_with(&format!("web/{n}"), definition, vec![])]));
    }
    for (n, (.., address, zone)) in table.iter().enumerate() {
        assert_eq!(place(&f, &format!("web/{n}")), ((*address).into(), (*zone).into()), "{n}");
    }
    // Only those are told who are elsewhere by that.
    assert!(put_node(&mut f, "node2.example", "east"));
    assert_eq!(changed(&f), ["node a", "instance web/0", "instance web/2"]);
    assert!(put_node(&mut f, "node2.example", "north"));
    assert_eq!(changed(&f), ["node a", "instance web/0", "instance web/1"]);
    assert_eq!(place(&f, "web/1"), ("own.example".into(), "north".into()));
    sound(&f);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut f = Fixture::new();
    grant(&mut f, 1);
    // A key that has a lease of its own.
    let own = KvPut { key: "k".into(), ttl_ms: 1_000, ..KvPut::default() };
    f.kv(vec![KvOperation { op: Some(kv_operation::Op::Put(own)) }]);
    let leases = f.state.view().unwrap().leases(None, None, 9).unwrap();
    let implicit = leases.iter().find(|lease| lease.record.implicit).unwrap().id.0;
    done(&mut f, register(vec![], vec![checked(instance("web/1", ""), vec![tcp("t", Health::Passing)])]));
    let leased = |lease: u64| {
        let address = "192.0.2.1".into();
        let definition = InstanceDefinition { lease, address, ..InstanceDefinition::default() };
        register(vec![node("new")], vec![instance_with("web/2", definition, vec![])])
    };
    let of = |instances: Vec<InstanceRegistration>| register(vec![node("new")], instances);
    let reversed = {
        let Op::CatalogRegister(mut late) = of(vec![instance("web/3", "new")]) else { unreachable!() };
        late.registrations.reverse();
        Op::CatalogRegister(late)
    };
    let deposed = CheckReport {
        reports: vec![result("web/1", "t", Health::Critical, "")],
        term: TERM,
        leader: LEADER + 1,
        by_hand: false,
    };
    let many = CheckReport {
        reports: vec![
            result("web/1", "none", Health::Critical, ""),
            result("web/1", "t", Health::Critical, ""),
        ],
        by_hand: true,
        ..CheckReport::default()
    };
    let table: Vec<(&str, Op)> = vec![
        ("NodeNotFound", of(vec![instance("web/2", ""), instance("web/3", "none")])),
        // It comes only after it is needed.
        ("NodeNotFound", reversed),
        ("LeaseNotFound", leased(7)),
        ("LeaseNotFound", leased(implicit)),
        ("InstanceNotFound", maintain("web/9", "why")),
        ("NodeNotFound", maintain("none", "why")),
        ("CheckNotFound", by_hand("web/1", "none")),
        ("CheckNotFound", by_hand("web/9", "t")),
        ("CheckNotFound", by_hand("none", "t")),
        ("CheckNotTtl", by_hand("web/1", "t")),
        ("CheckNotFound", Op::CheckReport(many)),
        ("Deposed", Op::CheckReport(deposed)),
        ("Deposed", Op::CatalogReap(CatalogReap { term: TERM, leader: 2, instances: vec![] })),
        ("Deposed", Op::CheckSettle(CheckSettle { term: TERM + 1, leader: LEADER, checks: vec![] })),
    ];
    for (why, op) in table {
        let reason = format!("{:?}", refusal(&mut f, op));
        assert!(reason.starts_with(why), "{reason} is not {why}");
    }
    // What is not there is taken away without a word, and nothing said of nothing is nothing.
    for op in [deregister("web/9"), deregister("none"), configure("none", ServiceSettings::default())] {
        assert!(!done(&mut f, op));
    }
    assert!(!done(&mut f, report("web/9", "c", Health::Passing, "")), "nobody waits for the answer");
    let nothing = CatalogRegister { namespace: "default".into(), registrations: vec![Default::default()] };
    assert!(!done(&mut f, Op::CatalogRegister(nothing)));
    sound(&f);
}

#[test]
fn a_service_is_there_with_instances_or_settings() {
    let mut f = Fixture::new();
    let is_there = |f: &Fixture| f.state.view().unwrap().service(&service_id("web")).unwrap().is_some();
    done(&mut f, register(vec![], vec![instance("web/1", ""), instance("web/2", "")]));
    assert_eq!(changed(&f), ["service web", "instance web/1", "instance web/2"]);
    done(&mut f, deregister("web/1"));
    assert!(is_there(&f));
    done(&mut f, deregister("web/2"));
    assert_eq!((is_there(&f), changed(&f)), (false, vec!["instance web/2".into(), "service web".into()]));
    // Zero seconds is a setting.
    let settings = ServiceSettings { dns_ttl_ms: Some(0), ..ServiceSettings::default() };
    assert!(done(&mut f, configure("web", settings)));
    done(&mut f, register(vec![], vec![instance("web/1", "")]));
    assert_eq!(changed(&f), ["instance web/1"]);
    done(&mut f, deregister("web/1"));
    assert!(is_there(&f));
    assert!(done(&mut f, configure("web", ServiceSettings::default())));
    assert!(!is_there(&f));
    sound(&f);
}

#[test]
fn a_nodes_end_is_that_of_all_that_runs_on_it() {
    let mut f = Fixture::new();
    let nodes = vec![checked_node("a", vec![ttl("n", Health::Passing)]), node("b")];
    let followers = checked(instance("db/1", "b"), vec![alias("x", "web/1"), alias("y", "web/2")]);
    let both = checked(instance("web/2", "a"), vec![alias("x", "web/1")]);
    let all = vec![checked(instance("web/1", "a"), vec![ttl("c", Health::Passing)]), both, followers];
    done(&mut f, register(nodes, all));
    let outcome = run(&mut f, deregister("a"));
    let Some(outcome::Result::Catalog(catalog)) = outcome.result else { panic!("{outcome:?}") };
    assert_eq!(catalog.deregistered, 2);
    assert_eq!(health(&f, "db/1"), (Health::Critical, Health::Passing));
    let view = f.state.view().unwrap();
    assert_eq!(view.checks_of(&owner_of("a")).unwrap(), []);
    assert_eq!(view.node(&node_id("a")).unwrap(), None);
    assert_eq!(view.service(&service_id("web")).unwrap(), None);
    for by in [By::Node("a"), By::Service(&service_id("web").name)] {
        assert_eq!(view.count_instances(&ns(), &by).unwrap(), 0);
    }
    drop(view);
    sound(&f);
}

#[test]
fn instances_end_with_their_lease() {
    let mut f = Fixture::new();
    (1..4).for_each(|id| grant(&mut f, id));
    let leased = |name: &str, lease: u64| {
        let address = "192.0.2.1".into();
        let definition = InstanceDefinition { lease, address, ..InstanceDefinition::default() };
        instance_with(name, definition, vec![ttl("c", Health::Passing)])
    };
    let put = KvPut { key: "k".into(), lease: 1, ..KvPut::default() };
    f.kv(vec![KvOperation { op: Some(kv_operation::Op::Put(put)) }]);
    done(&mut f, register(vec![], vec![leased("web/1", 1), leased("web/2", 1), leased("db/1", 2)]));
    let load = |f: &Fixture, id: u64| {
        let view = f.state.view().unwrap();
        let load = view.lease_load(&ns(), LeaseId(id)).unwrap();
        (load.count, view.lease_instances(&ns(), LeaseId(id)).unwrap())
    };
    assert_eq!((load(&f, 1), load(&f, 2)), ((3, 2), (1, 1)));
    // One goes over to another lease, and one is bound to none any more.
    done(&mut f, register(vec![], vec![leased("web/2", 3), leased("db/1", 0)]));
    assert_eq!((load(&f, 1), load(&f, 2), load(&f, 3)), ((2, 1), (0, 0), (1, 1)));
    sound(&f);
    let revoke = LeaseRevoke { namespace: "default".into(), id: 1 };
    let outcome = run(&mut f, Op::LeaseRevoke(revoke));
    let Some(outcome::Result::Lease(lease)) = outcome.result else { panic!("{outcome:?}") };
    assert_eq!((lease.deleted, lease.ended), (1, 1));
    let names = |f: &Fixture| {
        let view = f.state.view().unwrap();
        ["web/1", "web/2", "db/1"].map(|name| view.instance(&instance_id(name)).unwrap().is_some())
    };
    assert_eq!(names(&f), [false, true, true]);
    let record = f.state.view().unwrap().lease(&ns(), LeaseId(3)).unwrap().unwrap();
    let due = Due { namespace: "default".into(), id: 3, create_revision: record.create_revision };
    done(&mut f, Op::LeaseExpire(LeaseExpire { term: TERM, leader: LEADER, leases: vec![due] }));
    assert_eq!(names(&f), [false, false, true]);
    assert!(changed(&f).contains(&"service web".to_owned()));
    done(&mut f, Op::LeaseRevoke(LeaseRevoke { namespace: "default".into(), id: 2 }));
    assert_eq!(names(&f), [false, false, true]);
    sound(&f);
}

#[test]
fn what_is_brief_touches_few_rows() {
    let tagged = |tags: usize| {
        let tags = (0..tags).map(|n| format!("{n:02}")).collect();
        let definition = InstanceDefinition { tags, ..InstanceDefinition::default() };
        register(vec![], vec![instance_with("web/1", definition, vec![])])
    };
    let ttls = |count: usize| (0..count).map(|n| ttl(&format!("c{n}"), Health::Passing)).collect();
    let results = |owners: &[&str]| {
        let reports = owners.iter().map(|owner| result(owner, "c", Health::Passing, "")).collect();
        Op::CheckReport(CheckReport { reports, ..CheckReport::default() })
    };
    let table: Vec<(&str, bool, Op)> = vec![
        ("an instance", true, register(vec![], vec![checked(instance("web/1", "a"), ttls(4))])),
        ("many checks", false, register(vec![], vec![checked(instance("web/1", "a"), ttls(5))])),
        ("some tags", true, tagged(16)),
        ("many tags", false, tagged(17)),
        ("two instances", false, register(vec![], vec![instance("web/1", ""), instance("web/2", "")])),
        ("a node, which others run on", false, register(vec![node("a")], vec![])),
        ("settings", true, configure("web", ServiceSettings::default())),
        ("results", true, results(&["web/1", "web/2"])),
        ("many results", false, results(&["web/1", "web/2", "web/3"])),
        ("a node's result", false, results(&["a"])),
        ("maintenance", false, maintain("a", "why")),
        ("a deregistration", false, deregister("web/1")),
    ];
    for (what, expected, op) in table {
        let mut f = Fixture::new();
        let command = f.command(op);
        let payload = Payload::Commands(konsul_state::CommandGroup { commands: vec![command] });
        let position = LogPosition { term: TERM, leader: LEADER, index: 1 };
        assert_eq!(Entry { position, payload }.is_brief(), expected, "{what}");
    }
}

#[test]
fn nothing_said_of_whom_is_nothing() {
    let mut f = Fixture::new();
    let unset = Some(Owner { owner: None });
    let namespace = String::from("default");
    let table = [
        Op::CatalogDeregister(CatalogDeregister { namespace: namespace.clone(), what: unset.clone() }),
        Op::CatalogDeregister(CatalogDeregister { namespace: namespace.clone(), what: None }),
        Op::CatalogMaintain(CatalogMaintain { namespace, what: unset, reason: "why".into() }),
        Op::CheckReport(CheckReport { reports: vec![Report::default()], ..CheckReport::default() }),
    ];
    for op in table {
        assert!(!done(&mut f, op));
    }
    // A definition that says nothing is counted as any other.
    let bare = InstanceRegistration { definition: None, ..instance("web/1", "") };
    done(&mut f, register(vec![], vec![bare.clone()]));
    assert!(!done(&mut f, register(vec![], vec![bare])));
    assert_eq!(counted(&f, &By::Service(&service_id("web").name)), 1);
    sound(&f);
    let what = Some(owner::Owner::Instance(instance_id("web/1").to_key()));
    let deregister = CatalogDeregister { namespace: "default".into(), what: Some(Owner { owner: what }) };
    done(&mut f, Op::CatalogDeregister(deregister));
    assert_eq!(f.state.view().unwrap().service(&service_id("web")).unwrap(), None);
    sound(&f);
}
