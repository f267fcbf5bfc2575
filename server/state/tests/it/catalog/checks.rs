//! What results of checks make of instances and nodes.

use konsul_state::command::{
    CatalogReap, CheckReport, CheckSettle, Health, NamedCheck, catalog_reap::Overdue, check_report::Report,
    check_settle::Held, command::Op, outcome, refusal::Reason,
};
use konsul_state::view::By;
use konsul_state::{FLIPS, HOLD_MS, OUTPUT_EVERY_MS};

use super::{
    LEADER, TERM, alias, by_hand, changed, check_id, checked, checked_node, counted, deregister, done,
    health, instance, instance_id, maintain, refusal, register, report, result, run, sound, status, tcp, ttl,
};
use crate::fixture::Fixture;

#[test]
fn health_is_the_worst_of_all_that_counts() {
    use Health::{Critical, Maintenance, Passing, Warning};
    // (node's check, node in maintenance, own check, in maintenance, health of the one that is followed; health, own health)
    let table = [
        (Passing, false, Passing, false, Passing, Passing, Passing),
        (Warning, false, Passing, false, Passing, Warning, Warning),
        (Passing, false, Warning, false, Critical, Critical, Warning),
        (Critical, false, Warning, false, Warning, Critical, Critical),
        (Passing, false, Passing, false, Maintenance, Critical, Passing),
        (Passing, true, Passing, false, Critical, Maintenance, Maintenance),
        (Critical, false, Critical, true, Critical, Maintenance, Maintenance),
    ];
    for (on_node, node_rests, own, rests, other, expected, expected_own) in table {
        let mut f = Fixture::new();
        let nodes = vec![checked_node("a", vec![ttl("n", on_node)])];
        let web = checked(instance("web/1", "a"), vec![ttl("c", own), alias("x", "db/1")]);
        let db = checked(instance("db/1", ""), vec![ttl("c", other.min(Critical))]);
        done(&mut f, register(nodes, vec![web, db]));
        for (what, is_set) in [("a", node_rests), ("web/1", rests), ("db/1", other == Maintenance)] {
            assert_eq!(done(&mut f, maintain(what, if is_set { "why" } else { "" })), is_set);
        }
        assert_eq!(health(&f, "web/1"), (expected, expected_own));
        sound(&f);
        // Out of maintenance, all is as the checks say.
        for what in ["a", "web/1", "db/1"] {
            done(&mut f, maintain(what, ""));
        }
        let worst = on_node.max(own);
        assert_eq!(health(&f, "web/1"), (worst.max(other.min(Critical)), worst));
        sound(&f);
    }
}

#[test]
fn alias_checks_follow_one_step_and_no_further() {
    use Health::{Critical, Passing};
    let mut f = Fixture::new();
    // A circle, one that follows itself, and one at its end.
    let follow = |name: &str, of: &str| checked(instance(name, ""), vec![alias("x", of)]);
    let a = checked(instance("a/1", ""), vec![alias("x", "b/1"), ttl("c", Passing)]);
    let all = vec![a, follow("b/1", "a/1"), follow("c/1", "c/1"), follow("d/1", "b/1")];
    done(&mut f, register(vec![], all));
    for name in ["a/1", "b/1", "c/1", "d/1"] {
        assert_eq!(health(&f, name), (Passing, Passing), "{name}");
    }
    sound(&f);
    done(&mut f, report("a/1", "c", Critical, "down"));
    assert_eq!(changed(&f), ["check a/1 c", "instance a/1", "check b/1 x", "instance b/1"]);
    assert_eq!((health(&f, "b/1"), health(&f, "d/1").0), ((Critical, Passing), Passing));
    assert_eq!(status(&f, "b/1", "x"), Critical);
    // Its output is nobody's business.
    done(&mut f, deregister("b/1"));
    assert_eq!((status(&f, "d/1", "x"), status(&f, "a/1", "x")), (Critical, Critical));
    assert_eq!(counted(&f, &By::Followed(&instance_id("a/1"))), 0);
    assert_eq!(counted(&f, &By::Followed(&instance_id("b/1"))), 2);
    // It comes back, and those who followed it follow it again.
    done(&mut f, register(vec![], vec![instance("b/1", "")]));
    assert_eq!((status(&f, "d/1", "x"), status(&f, "a/1", "x")), (Passing, Passing));
    sound(&f);
    // What an alias check says nobody can say otherwise, by hand or not.
    assert!(matches!(refusal(&mut f, by_hand("d/1", "x")), Reason::CheckNotTtl(found) if found.id == "x"));
    assert!(!done(&mut f, report("d/1", "x", Critical, "I say so")));
    assert!(!done(&mut f, register(vec![], vec![follow("d/1", "b/1")])));
    sound(&f);
}

#[test]
fn an_output_alone_is_a_change_of_the_check_and_that_once_a_minute() {
    use Health::{Critical, Passing};
    let mut f = Fixture::new();
    done(&mut f, register(vec![], vec![checked(instance("web/1", ""), vec![ttl("c", Critical)])]));
    let output =
        |f: &Fixture| f.state.view().unwrap().check(&check_id("web/1", "c")).unwrap().unwrap().output;
    // The first result is written that is, even in the first minute of all.
    assert!(done(&mut f, report("web/1", "c", Critical, "no route")));
    assert_eq!((changed(&f), output(&f).as_str()), (vec!["check web/1 c".to_owned()], "no route"));
    for second in 0..59 {
        f.time_ms += 999;
        assert!(!done(&mut f, report("web/1", "c", Critical, &format!("{second}"))));
    }
    f.time_ms += OUTPUT_EVERY_MS;
    assert!(!done(&mut f, report("web/1", "c", Critical, "no route")), "nothing new");
    assert!(done(&mut f, report("web/1", "c", Critical, "refused")));
    assert!(!done(&mut f, report("web/1", "c", Critical, "again")));
    // Another status is another matter.
    assert!(done(&mut f, report("web/1", "c", Passing, "fine")));
    assert_eq!((changed(&f).len(), output(&f).as_str()), (2, "fine"));
    assert!(!done(&mut f, report("web/1", "c", Passing, "fine")));
    // No check is in maintenance, whatever somebody reports.
    done(&mut f, report("web/1", "c", Health::Maintenance, ""));
    assert_eq!(status(&f, "web/1", "c"), Critical);
    sound(&f);
}

#[test]
fn a_check_that_flaps_is_held_at_its_worse_status() {
    use Health::{Critical, Passing, Warning};
    let mut f = Fixture::new();
    done(&mut f, register(vec![], vec![checked(instance("web/1", ""), vec![ttl("c", Passing)])]));
    let check = |f: &Fixture| f.state.view().unwrap().check(&check_id("web/1", "c")).unwrap().unwrap();
    let turn = |f: &mut Fixture, n: usize| {
        f.time_ms += 999;
        let status = if n.is_multiple_of(2) { Critical } else { Passing };
        done(f, report("web/1", "c", status, &n.to_string()))
    };
    for n in 0..FLIPS - 1 {
        assert!(turn(&mut f, n));
        assert_eq!(check(&f).held_until_ms, 0);
    }
    assert!(turn(&mut f, 0));
    assert!(turn(&mut f, 1));
    let held = check(&f);
    assert_eq!(
        (held.status(), held.observed(), held.held_until_ms),
        (Critical, Passing, f.time_ms + HOLD_MS)
    );
    assert_eq!(changed(&f), ["check web/1 c"], "its instance is as it was");
    // One more result, and it is held from then on; a settlement that knew of less does nothing.
    done(&mut f, report("web/1", "c", Warning, "slow"));
    let longer = check(&f);
    assert_eq!((longer.status(), longer.observed()), (Critical, Warning));
    assert!(longer.held_until_steady_ms > held.held_until_steady_ms);
    let settle = |held_until_steady_ms: u64| {
        let check = Some(check_id("web/1", "c").to_name());
        let checks = vec![Held { check, held_until_steady_ms }];
        Op::CheckSettle(CheckSettle { term: TERM, leader: LEADER, checks })
    };
    assert!(!done(&mut f, settle(held.held_until_steady_ms)));
    assert!(!done(&mut f, settle(0)));
    assert!(done(&mut f, settle(longer.held_until_steady_ms)));
    assert_eq!(changed(&f), ["check web/1 c", "instance web/1"]);
    let settled = check(&f);
    assert_eq!((settled.status(), settled.held_until_ms, settled.since_ms), (Warning, 0, f.time_ms));
    let last = settled.transitions.last().unwrap();
    assert_eq!((last.status(), last.output.as_str()), (Warning, "slow"));
    assert!(!done(&mut f, settle(0)), "it is not held");
    sound(&f);
    // Nobody settles it, but a result comes when it is over: that is what is said then.
    for n in 0..2 * FLIPS {
        turn(&mut f, n);
    }
    assert_eq!((check(&f).status(), check(&f).observed()), (Critical, Passing));
    for _ in 0..HOLD_MS / 1_000 {
        f.time_ms += 1_000;
        assert!(!done(&mut f, deregister("none")));
    }
    assert!(done(&mut f, report("web/1", "c", Passing, "well again")));
    let over = check(&f);
    assert_eq!((over.status(), over.held_until_steady_ms, over.output.as_str()), (Passing, 0, "well again"));
    assert_eq!(over.transitions.last().unwrap().output, "well again");
    sound(&f);
}

#[test]
fn a_check_that_turns_now_and_then_does_not_flap_where_nothing_else_is_written() {
    let mut f = Fixture::new();
    let checks = vec![ttl("c", Health::Passing)];
    done(&mut f, register(vec![], vec![checked(instance("web/1", ""), checks)]));
    for n in 0..20 {
        f.time_ms += 15_001;
        let status = if n % 2 == 0 { Health::Critical } else { Health::Passing };
        done(&mut f, report("web/1", "c", status, &"é".repeat(200)));
        let check = f.state.view().unwrap().check(&check_id("web/1", "c")).unwrap().unwrap();
        assert_eq!((check.status(), check.held_until_ms), (status, 0), "turn {n}");
        // The last ten are remembered, with what fits of what was said.
        assert_eq!(check.transitions.len(), (n + 1).min(10));
        let last = check.transitions.last().unwrap();
        assert_eq!(
            (last.status(), last.time_ms, last.output.as_str()),
            (status, f.time_ms, "é".repeat(128).as_str())
        );
    }
}

#[test]
fn a_check_of_another_kind_is_another_check() {
    use Health::{Critical, Passing};
    let mut f = Fixture::new();
    let web = |checks: Vec<NamedCheck>| register(vec![], vec![checked(instance("web/1", ""), checks)]);
    done(&mut f, register(vec![], vec![instance("db/1", "")]));
    done(&mut f, web(vec![ttl("c", Passing)]));
    let check = |f: &Fixture| f.state.view().unwrap().check(&check_id("web/1", "c")).unwrap().unwrap();
    let first = check(&f).create_revision;
    let late = |create_revision: u64, term: u64| {
        let report = Report { create_revision, ..result("web/1", "c", Critical, "late") };
        let leader = if term == 0 { 0 } else { LEADER };
        Op::CheckReport(CheckReport { reports: vec![report], term, leader, by_hand: false })
    };
    // The leader saw nobody pass it, or a member probed it, when it was what it is no more.
    for checks in [vec![tcp("c", Passing)], vec![alias("c", "db/1")], vec![tcp("c", Passing)]] {
        done(&mut f, web(checks));
        assert!(!done(&mut f, late(first, TERM)));
        assert!(!done(&mut f, late(first, 0)));
        assert_eq!(check(&f).status(), Passing);
        assert!(check(&f).create_revision > first);
    }
    let now = check(&f).create_revision;
    assert!(done(&mut f, late(now, 0)));
    assert_eq!(check(&f).status(), Critical);
    sound(&f);
}

#[test]
fn instances_are_reaped_that_still_are_what_the_leader_saw() {
    use Health::{Critical, Passing};
    let reaped = |id: &str, deregister_after_ms: u64| {
        let mut check = ttl(id, Critical);
        check.definition.as_mut().unwrap().deregister_after_ms = deregister_after_ms;
        check
    };
    let overdue = |f: &Fixture, owner: &str| {
        let record = f.state.view().unwrap().check(&check_id(owner, "c")).unwrap().unwrap();
        let check = Some(check_id(owner, "c").to_name());
        Overdue { check, since_ms: record.since_ms, create_revision: record.create_revision }
    };
    let reap =
        |instances: Vec<Overdue>| Op::CatalogReap(CatalogReap { term: TERM, leader: LEADER, instances });
    let web = || checked(instance("web/1", ""), vec![reaped("c", 1_000)]);
    let mut f = Fixture::new();
    done(&mut f, register(vec![], vec![web()]));
    let seen = overdue(&f, "web/1");
    // It was well in between.
    done(&mut f, report("web/1", "c", Passing, ""));
    assert!(!done(&mut f, reap(vec![seen.clone()])));
    done(&mut f, report("web/1", "c", Critical, ""));
    assert!(!done(&mut f, reap(vec![seen.clone()])));
    // It was taken away and is another one, of the same moment.
    let now = overdue(&f, "web/1");
    let other = Overdue { create_revision: now.create_revision + 1, ..now.clone() };
    assert!(!done(&mut f, reap(vec![other])));
    // It is to be kept by now, however it is.
    done(&mut f, register(vec![], vec![checked(instance("web/1", ""), vec![reaped("c", 0)])]));
    assert!(!done(&mut f, reap(vec![now.clone()])));
    done(&mut f, register(vec![], vec![web()]));
    // A node's check takes nothing away.
    done(&mut f, register(vec![checked_node("a", vec![reaped("c", 1_000)])], vec![instance("web/2", "a")]));
    let of_node = overdue(&f, "a");
    assert!(!done(&mut f, reap(vec![of_node])));
    let outcome = run(&mut f, reap(vec![now.clone(), now]));
    let Some(outcome::Result::Catalog(catalog)) = outcome.result else { panic!("{outcome:?}") };
    assert_eq!(catalog.deregistered, 1);
    assert_eq!(changed(&f), ["check web/1 c", "instance web/1"]);
    sound(&f);
}
