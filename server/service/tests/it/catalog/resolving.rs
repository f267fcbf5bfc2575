//! How instances are picked, and what services depend on.

use std::collections::{BTreeMap, BTreeSet};

use konsul_proto::v1::{self, HealthStatus, Strategy};
use tonic::Code;

use super::{Catalog, catalog, ids, instance, resolve};
use crate::harness::{refusal, refused as refused_with};

/// Of service `web`: a, b and c pass, d warns, e is critical.
async fn five() -> Catalog {
    let mut c = catalog().await;
    for (id, zone, weight) in [("a", "x", 1), ("b", "y", 3), ("c", "y", 0)] {
        let weights = Some(v1::Weights { passing: weight, warning: 1 });
        let metadata = [("zone".to_owned(), zone.to_owned())].into();
        c.register(v1::Instance { weights, metadata, ..instance("web", id) }).await;
    }
    c.register_in(instance("web", "d"), HealthStatus::Warning).await;
    c.register_in(instance("web", "e"), HealthStatus::Critical).await;
    c
}

#[tokio::test]
async fn round_robin_takes_those_that_pass_one_after_the_other() {
    let mut c = five().await;
    let mut picked = Vec::new();
    for _ in 0..6 {
        picked.extend(c.resolve(resolve("web", Strategy::RoundRobin, 1)).await);
    }
    assert_eq!(picked, ["a", "b", "c", "a", "b", "c"]);
    // A change of the service does not begin anew.
    c.register(instance("web", "f")).await;
    assert_eq!(c.resolve(resolve("web", Strategy::RoundRobin, 2)).await, ["c", "f"]);
    assert_eq!(c.resolve(resolve("web", Strategy::RoundRobin, 100)).await.len(), 4);
}

#[tokio::test]
async fn random_and_weighted_take_all_in_their_proportion() {
    let mut c = five().await;
    let mut counts: BTreeMap<(bool, String), u32> = BTreeMap::new();
    for _ in 0..400 {
        for (weighted, strategy) in [(false, Strategy::Random), (true, Strategy::Weighted)] {
            let picked = c.resolve(resolve("web", strategy, 1)).await;
            assert_eq!(picked.len(), 1);
            *counts.entry((weighted, picked[0].clone())).or_default() += 1;
        }
    }
    let count = |weighted: bool, id: &str| counts.get(&(weighted, id.to_owned())).copied().unwrap_or(0);
    // Chances of a failure are below one in a million: five standard deviations off.
    for id in ["a", "b", "c"] {
        assert!((86..=180).contains(&count(false, id)), "{counts:?}");
    }
    // 1 : 3 : 1, as a weight of 0 is 1.
    assert!((190..=290).contains(&count(true, "b")), "{counts:?}");
    let three = c.resolve(resolve("web", Strategy::Random, 9)).await;
    assert_eq!(three.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_key_stays_with_its_instance_while_others_come_and_go() {
    let mut c = five().await;
    let keyed = |key: &str| v1::ResolveRequest {
        hash_key: key.into(),
        ..resolve("web", Strategy::ConsistentHash, 1)
    };
    let mut before = Vec::new();
    for key in 0..60 {
        before.push(c.resolve(keyed(&format!("key {key}"))).await);
    }
    assert_eq!(before.iter().flatten().collect::<BTreeSet<_>>().len(), 3, "all are used");
    c.register(instance("web", "g")).await;
    for (key, before) in before.into_iter().enumerate() {
        let now = c.resolve(keyed(&format!("key {key}"))).await;
        assert!(now == before || now == ["g"], "key {key}: {before:?} became {now:?}");
    }
}

#[tokio::test]
async fn the_nearest_are_those_in_the_zone() {
    let mut c = five().await;
    let near = |zone: &str, limit| v1::ResolveRequest {
        zone: zone.into(),
        ..resolve("web", Strategy::Nearest, limit)
    };
    assert_eq!(c.resolve(near("x", 1)).await, ["a"]);
    let two: BTreeSet<_> = c.resolve(near("y", 2)).await.into_iter().collect();
    assert_eq!(two, BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    assert_eq!(c.resolve(near("nowhere", 3)).await.len(), 3);
}

#[tokio::test]
async fn others_than_those_that_pass_are_picked_on_request_or_when_few_are_left() {
    let mut c = five().await;
    let select = |health: HealthStatus| v1::ResolveRequest {
        select: Some(v1::InstanceSelector { health: vec![health.into()], ..Default::default() }),
        ..resolve("web", Strategy::RoundRobin, 9)
    };
    assert_eq!(c.resolve(select(HealthStatus::Critical)).await, ["e"]);
    assert_eq!(c.resolve(select(HealthStatus::Warning)).await, ["d"]);
    let what = v1::InstanceName { service: "web".into(), id: "a".into() };
    let what = Some(v1::set_maintenance_request::What::Instance(what));
    let request = v1::SetMaintenanceRequest { what, enabled: true, ..Default::default() };
    c.client.set_maintenance(request).await.unwrap();
    // b, c and d of the four that are not in maintenance are well enough: 75 %.
    for (threshold, all) in [(75, false), (76, true)] {
        let settings = Some(v1::ServiceSettings { protect_threshold: threshold, ..Default::default() });
        let request = v1::ConfigureServiceRequest { service: "web".into(), settings, ..Default::default() };
        c.client.configure_service(request).await.unwrap();
        let got = c.client.resolve(resolve("web", Strategy::Random, 9)).await.unwrap().into_inner();
        let want: &[&str] = if all { &["b", "c", "d", "e"] } else { &["b", "c"] };
        let mut found = ids(&got.instances);
        found.sort();
        assert_eq!(
            (got.protected, &found[..]),
            (all, &want.iter().map(ToString::to_string).collect::<Vec<_>>()[..])
        );
    }
}

#[tokio::test]
async fn a_service_that_nobody_registered_is_not_found() {
    let mut c = catalog().await;
    let refused = c.client.resolve(resolve("web", Strategy::Random, 1)).await.unwrap_err();
    assert_eq!(refusal(&refused), refused_with(Code::NotFound, "SERVICE_NOT_FOUND"));
}

#[tokio::test]
async fn dependencies_are_followed_rolled_up_and_circles_told() {
    let mut c = catalog().await;
    let on = |service: &str, depends_on: &[&str]| v1::Instance {
        depends_on: depends_on.iter().map(ToString::to_string).collect(),
        ..instance(service, "1")
    };
    c.register(on("web", &["api", "cache"])).await;
    c.register(on("api", &["db", "auth"])).await;
    c.register(on("auth", &["api"])).await;
    c.register_in(on("db", &[]), HealthStatus::Critical).await;
    let request = v1::DependenciesRequest { service: "web".into(), ..Default::default() };
    let got = c.client.dependencies(request).await.unwrap().into_inner();
    let told: Vec<_> = got.services.iter().map(|d| (d.service.as_str(), d.health(), d.rolled_up())).collect();
    let (passing, critical) = (HealthStatus::Passing, HealthStatus::Critical);
    let want = [
        ("web", passing, critical),
        ("api", passing, critical),
        // Nobody registered it.
        ("cache", critical, critical),
        ("auth", passing, critical),
        ("db", critical, critical),
    ];
    assert_eq!(told, want);
    let cycles: Vec<_> = got.cycles.into_iter().map(|cycle| cycle.services).collect();
    assert_eq!(cycles, [["api", "auth"]]);
}
