//! The catalog in memory is what the state says, whatever happens. KONSUL_TEST_SEED replays a run.

use std::collections::BTreeMap;

use konsul_proto::v1::{self, HealthStatus};
use konsul_service::Directory;
use konsul_state::view::Paging;
use konsul_state::{Namespace, State};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::harness::seed;

use super::{Catalog, catalog, instance, node, ttl_check};

/// Everything in a directory, by name.
fn remembered(directory: &Directory, namespace: &Namespace) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for listed in directory.services(namespace, "", None, usize::MAX) {
        all.insert(format!("service {}", listed.id.name), format!("{:?}", listed.record));
        let mut counts = [0; 4];
        for instance in &listed.instances {
            counts[instance.record.health() as usize] += 1;
            all.insert(format!("instance {:?}", instance.id), format!("{:?}", instance.record));
        }
        assert_eq!(counts, listed.counts);
    }
    all
}

/// Everything in the state, by name.
fn written(state: &State, namespace: &Namespace) -> BTreeMap<String, String> {
    let view = state.view().unwrap();
    let paging =
        Paging { at: None, after: None, limit: usize::MAX, max_bytes: usize::MAX, max_rows: usize::MAX };
    let mut all = BTreeMap::new();
    for (id, record) in view.services(Some((namespace, "")), &paging).unwrap().rows {
        all.insert(format!("service {}", id.name), format!("{record:?}"));
    }
    for (id, record) in view.instances(Some((namespace, None)), &paging).unwrap().rows {
        all.insert(format!("instance {id:?}"), format!("{record:?}"));
    }
    all
}

pub(super) async fn step(c: &mut Catalog, rng: &mut StdRng) {
    let service = *["web", "db", "cache"].choose(rng).unwrap();
    let id = format!("i{}", rng.random_range(0..4));
    let on = format!("n{}", rng.random_range(0..2));
    let name = v1::InstanceName { service: service.into(), id: id.clone() };
    match rng.random_range(0..7) {
        0..3 => {
            let status = *[HealthStatus::Passing, HealthStatus::Critical].choose(rng).unwrap();
            let instance = v1::Instance {
                address: format!("192.0.2.{}", rng.random_range(1..4)),
                ..instance(service, &id)
            };
            let request = v1::RegisterRequest {
                node: rng.random::<bool>().then(|| node(&on)),
                instance: Some(instance),
                checks: if rng.random() { vec![ttl_check(status)] } else { vec![] },
                ..Default::default()
            };
            c.client.register(request).await.unwrap();
        }
        3 => {
            let what = Some(v1::deregister_request::What::Instance(name));
            c.client.deregister(v1::DeregisterRequest { what, ..Default::default() }).await.unwrap();
        }
        4 => {
            let what = Some(v1::deregister_request::What::Node(on));
            c.client.deregister(v1::DeregisterRequest { what, ..Default::default() }).await.unwrap();
        }
        5 => {
            let what = Some(v1::set_maintenance_request::What::Instance(name));
            let enabled = rng.random();
            let request = v1::SetMaintenanceRequest { what, enabled, ..Default::default() };
            // It may not be there.
            let _ = c.client.set_maintenance(request).await;
        }
        _ => {
            let protect_threshold = *[0, 50].choose(rng).unwrap();
            let settings = Some(v1::ServiceSettings { protect_threshold, ..Default::default() });
            let request =
                v1::ConfigureServiceRequest { service: service.into(), settings, ..Default::default() };
            c.client.configure_service(request).await.unwrap();
        }
    }
}

#[tokio::test]
async fn it_is_what_the_state_says() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut c = catalog().await;
    let namespace = Namespace::parse("").unwrap();
    for _ in 0..400 {
        step(&mut c, &mut rng).await;
        let want = written(&c.server.state, &namespace);
        assert_eq!(remembered(&c.server.readers.directory, &namespace), want);
    }
    let fresh = Directory::new(&c.server.state).unwrap();
    assert_eq!(remembered(&fresh, &namespace), written(&c.server.state, &namespace));
    for last in 1..4 {
        let address = format!("192.0.2.{last}").parse().unwrap();
        assert_eq!(fresh.at(address), c.server.readers.directory.at(address));
    }
    assert_eq!(fresh.counts(), c.server.readers.directory.counts());
    assert_eq!(fresh.has_namespace(&namespace), c.server.readers.directory.has_namespace(&namespace));
}
