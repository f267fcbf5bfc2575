//! What services depend on: the graph from `depends_on`, how all of it is, and its circles.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use konsul_proto::v1;
use konsul_state::command::Health;
use konsul_state::{Label, ServiceId};

use super::directory::{Directory, Listed};
use crate::convert;
use crate::limits;

/// A graph of dependencies.
pub(super) struct Graph {
    pub(super) services: Vec<v1::Dependency>,
    pub(super) cycles: Vec<v1::DependencyCycle>,
    pub(super) truncated: bool,
}

/// What a service depends on, the nearest first.
pub(super) fn of(directory: &Directory, root: &Arc<Listed>) -> Graph {
    let mut order: Vec<String> = Vec::new();
    let mut edges: HashMap<String, (Vec<String>, Health)> = HashMap::new();
    let mut queue = VecDeque::from([root.id.name.as_str().to_owned()]);
    let mut truncated = false;
    while let Some(name) = queue.pop_front() {
        if edges.contains_key(&name) {
            continue;
        }
        if order.len() == limits::DEPENDENCIES {
            truncated = true;
            break;
        }
        let listed = match Label::parse(&name) {
            Ok(label) => directory.service(&ServiceId { namespace: root.id.namespace.clone(), name: label }),
            Err(_) => None,
        };
        let depends_on: Vec<String> = listed
            .as_ref()
            .map(|listed| listed.depends_on().into_iter().map(str::to_owned).collect())
            .unwrap_or_default();
        queue.extend(depends_on.iter().cloned());
        edges.insert(name.clone(), (depends_on, own_health(listed.as_deref())));
        order.push(name);
    }
    let rolled_up = roll_up(&order, &edges);
    let cycles = circles(&order, &edges);
    let services = order.into_iter().map(|service| {
        let (depends_on, health) = edges.remove(&service).unwrap_or_default();
        let rolled_up = rolled_up.get(&service).copied().unwrap_or(health);
        let (health, rolled_up) = (convert::health(health).into(), convert::health(rolled_up).into());
        v1::Dependency { service, depends_on, health, rolled_up }
    });
    Graph { services: services.collect(), cycles, truncated }
}

/// How a service is by itself.
fn own_health(listed: Option<&Listed>) -> Health {
    match listed.map(|listed| listed.counts) {
        Some([passing, ..]) if passing > 0 => Health::Passing,
        Some([_, warning, ..]) if warning > 0 => Health::Warning,
        _ => Health::Critical,
    }
}

/// The worst of each service and all it depends on: health goes up the graph until nothing changes.
fn roll_up(order: &[String], edges: &HashMap<String, (Vec<String>, Health)>) -> BTreeMap<String, Health> {
    let mut rolled: BTreeMap<String, Health> =
        edges.iter().map(|(service, (_, health))| (service.clone(), *health)).collect();
    loop {
        let mut changed = false;
        // Those far down come last, and their health has the longest way to go.
        for service in order.iter().rev() {
            let Some((depends_on, own)) = edges.get(service) else { continue };
            let below = depends_on.iter().filter_map(|service| rolled.get(service)).max();
            let worst = below.copied().unwrap_or(*own).max(rolled.get(service).copied().unwrap_or(*own));
            changed |= rolled.insert(service.clone(), worst) != Some(worst);
        }
        if !changed {
            return rolled;
        }
    }
}

/// Circles, one for each edge that leads back to a service on the way to it (a depth-first walk, each service once).
fn circles(order: &[String], edges: &HashMap<String, (Vec<String>, Health)>) -> Vec<v1::DependencyCycle> {
    let mut cycles = Vec::new();
    let mut done: HashSet<&str> = HashSet::new();
    let Some(root) = order.first() else { return cycles };
    // The way from the root, each with what is left of what it depends on.
    let mut way: Vec<(&str, std::slice::Iter<'_, String>)> = Vec::new();
    let next = |service: &str| edges.get(service).map(|(depends_on, _)| depends_on.iter());
    if let Some(rest) = next(root) {
        way.push((root, rest));
    }
    while let Some((service, rest)) = way.last_mut() {
        let Some(below) = rest.next() else {
            done.insert(service);
            way.pop();
            continue;
        };
        if let Some(begin) = way.iter().position(|(service, _)| service == below) {
            if cycles.len() < limits::DEPENDENCY_CYCLES {
                let services = way[begin..].iter().map(|(service, _)| (*service).to_owned()).collect();
                cycles.push(v1::DependencyCycle { services });
            }
        } else if !done.contains(below.as_str())
            && let Some(rest) = next(below)
        {
            way.push((below, rest));
        }
    }
    cycles
}
