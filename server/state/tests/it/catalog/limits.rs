//! The limits of the catalog, each hit.

use konsul_state::command::{
    MAX_FOLLOWERS, MAX_NODE_INSTANCES, MAX_NODES, MAX_SERVICE_INSTANCES, refusal::Reason,
};
use konsul_state::view::By;

use super::{
    alias, checked, counted, deregister, done, instance, instance_id, maintain, node, refusal, register,
    service_id, sound,
};
use crate::fixture::Fixture;

fn is_full(reason: &Reason, what: &str, limit: u64) -> bool {
    matches!(reason, Reason::CatalogFull(full) if full.what == what && full.limit == limit)
}

#[test]
fn a_node_has_a_limit_of_instances_that_moves_keep() {
    let mut f = Fixture::new();
    let nodes = vec![node("a"), node("b"), node("c")];
    let all = (0..MAX_NODE_INSTANCES).flat_map(|n| {
        let on = |node: &str| instance(&format!("{node}/{n}"), node);
        [on("a"), on("b")]
    });
    done(&mut f, register(nodes, all.collect()));
    let one_more = || instance("web/1", "a");
    assert!(is_full(
        &refusal(&mut f, register(vec![], vec![one_more()])),
        "instances on the node",
        MAX_NODE_INSTANCES
    ));
    // In their order: one makes room for another, two change places, one comes back.
    assert!(is_full(
        &refusal(&mut f, register(vec![], vec![one_more(), instance("a/1", "c")])),
        "instances on the node",
        MAX_NODE_INSTANCES
    ));
    let moves = vec![instance("a/0", "b")];
    assert!(is_full(&refusal(&mut f, register(vec![], moves)), "instances on the node", MAX_NODE_INSTANCES));
    done(&mut f, register(vec![], vec![instance("a/0", "c"), instance("b/0", "a"), instance("a/0", "b")]));
    assert_eq!((counted(&f, &By::Node("a")), counted(&f, &By::Node("b"))), (1_000, 1_000));
    done(&mut f, register(vec![], vec![instance("a/1", "c"), one_more()]));
    done(&mut f, register(vec![], vec![instance("a/1", ""), instance("a/1", "")]));
    assert!(is_full(
        &refusal(&mut f, register(vec![], vec![instance("a/1", "a")])),
        "instances on the node",
        MAX_NODE_INSTANCES
    ));
    assert_eq!((counted(&f, &By::Node("a")), counted(&f, &By::Node("c"))), (1_000, 0));
    // What is there is registered again as ever; and all of it changes at once.
    assert!(!done(&mut f, register(vec![], vec![one_more(), one_more()])));
    done(&mut f, maintain("a", "why"));
    assert_eq!(f.batches.last().unwrap().changes.len() as u64, MAX_NODE_INSTANCES + 1);
    done(&mut f, deregister("a"));
    assert_eq!(counted(&f, &By::Node("a")), 0);
    sound(&f);
}

#[test]
fn an_instance_has_a_limit_of_followers_that_are_counted_once() {
    let mut f = Fixture::new();
    let follower = |n: u64, of: &[&str]| {
        let checks = of.iter().enumerate().map(|(n, of)| alias(&format!("x{n}"), of));
        checked(instance(&format!("web/{n}"), ""), checks.collect())
    };
    let all = (1..MAX_FOLLOWERS).map(|n| follower(n, &["db/1"]));
    done(&mut f, register(vec![], all.collect()));
    // The last place, named twice by the same instance: it is one.
    let last = || follower(MAX_FOLLOWERS, &["db/1"]);
    done(&mut f, register(vec![], vec![last(), last()]));
    assert!(!done(&mut f, register(vec![], vec![last(), last()])));
    let full = |reason: Reason| is_full(&reason, "alias checks of the instance", MAX_FOLLOWERS);
    assert!(full(refusal(&mut f, register(vec![], vec![follower(99, &["db/1"])]))));
    assert!(full(refusal(&mut f, register(vec![], vec![follower(1, &["db/1", "db/1"])]))));
    // One makes room for another, in their order.
    let (leaves, comes) = (follower(1, &["db/2"]), follower(99, &["db/1"]));
    assert!(full(refusal(&mut f, register(vec![], vec![comes.clone(), leaves.clone()]))));
    done(&mut f, register(vec![], vec![leaves, comes]));
    assert_eq!(counted(&f, &By::Followed(&instance_id("db/1"))), MAX_FOLLOWERS);
    assert_eq!(counted(&f, &By::Followed(&instance_id("db/2"))), 1);
    sound(&f);
    // All of them follow at once.
    done(&mut f, register(vec![], vec![instance("db/1", "")]));
    assert_eq!(f.batches.last().unwrap().changes.len() as u64, 2 + 2 * MAX_FOLLOWERS);
    done(&mut f, deregister("web/99"));
    assert_eq!(counted(&f, &By::Followed(&instance_id("db/1"))), MAX_FOLLOWERS - 1);
    sound(&f);
}

#[test]
fn a_service_has_a_limit_of_instances() {
    let mut f = Fixture::new();
    let all = (0..MAX_SERVICE_INSTANCES).map(|n| instance(&format!("web/{n}"), "")).collect();
    done(&mut f, register(vec![], all));
    let reason = refusal(&mut f, register(vec![], vec![instance("db/1", ""), instance("web/x", "")]));
    assert!(is_full(&reason, "instances of the service", MAX_SERVICE_INSTANCES));
    assert!(!done(&mut f, register(vec![], vec![instance("web/7", "")])));
    done(&mut f, deregister("web/7"));
    done(&mut f, register(vec![], vec![instance("web/x", ""), instance("web/x", "")]));
    assert_eq!(counted(&f, &By::Service(&service_id("web").name)), MAX_SERVICE_INSTANCES);
}

#[test]
fn there_is_a_limit_of_nodes() {
    let mut f = Fixture::new();
    let names = |from: u64, to: u64| (from..to).map(|n| node(&format!("n{n}"))).collect();
    for from in (0..MAX_NODES - 1).step_by(1_000) {
        done(&mut f, register(names(from, (from + 1_000).min(MAX_NODES - 1)), vec![]));
    }
    let reason = refusal(&mut f, register(vec![node("x"), node("x"), node("y")], vec![]));
    assert!(is_full(&reason, "nodes", MAX_NODES));
    done(&mut f, register(vec![node("x"), node("x"), node("n0")], vec![]));
    assert!(is_full(&refusal(&mut f, register(vec![node("y")], vec![])), "nodes", MAX_NODES));
    done(&mut f, deregister("n1"));
    done(&mut f, register(vec![node("y")], vec![]));
}
