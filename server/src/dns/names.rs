//! The catalog in memory as DNS sees it. What DNS is told of a service or a node is made once for each that there is, and made anew
//! when the catalog has another one.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use konsul_fronts::dns::{self, Address, PtrTarget};
use konsul_service::{AtAddress, Listed, ListedInstance, Readers};
use konsul_state::command::{Health, Item, NodeRecord};
use konsul_state::propose::Propose;
use konsul_state::{Label, Namespace, NodeId, ServiceId};
use parking_lot::RwLock;

/// What is made of fewer than this is not worth sweeping.
const SWEEP_FROM: usize = 1_024;
/// A member that heard of its leader, or as one of a quorum, within this time has what the cluster has.
const FRESH: Duration = Duration::from_secs(1);

/// The catalog of this member, for DNS.
pub(crate) struct Names {
    readers: Arc<Readers>,
    propose: Arc<dyn Propose>,
    services: Made<ServiceId, Listed, dns::Service>,
    nodes: Made<NodeId, NodeRecord, dns::Node>,
}

impl Names {
    pub(crate) fn new(readers: Arc<Readers>, propose: Arc<dyn Propose>) -> Self {
        Self { readers, propose, services: Made::default(), nodes: Made::default() }
    }
}

/// What was made of what, by name.
struct Made<K, F, T>(RwLock<Kept<K, F, T>>);

struct Kept<K, F, T> {
    pairs: HashMap<K, Pair<F, T>>,
    /// How many there may be until those are let go that nobody else has: replaced, or gone.
    sweep_at: usize,
}

type Pair<F, T> = (Arc<F>, Arc<T>);

impl<K, F, T> Default for Made<K, F, T> {
    fn default() -> Self {
        Self(RwLock::new(Kept { pairs: HashMap::new(), sweep_at: SWEEP_FROM }))
    }
}

impl<K: Hash + Eq, F, T> Made<K, F, T> {
    /// What is made of this: the same again as long as it is the same.
    fn of(&self, key: K, from: Arc<F>, make: impl FnOnce(&F) -> T) -> Arc<T> {
        if let Some((known, made)) = self.0.read().pairs.get(&key)
            && Arc::ptr_eq(known, &from)
        {
            return Arc::clone(made);
        }
        let made = Arc::new(make(&from));
        let mut kept = self.0.write();
        if kept.pairs.len() >= kept.sweep_at {
            kept.pairs.retain(|_, (known, _)| Arc::strong_count(known) > 1);
            kept.sweep_at = SWEEP_FROM.max(2 * kept.pairs.len());
        }
        kept.pairs.insert(key, (from, Arc::clone(&made)));
        made
    }
}

impl dns::Directory for Names {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<dns::Service>> {
        let id = ServiceId { namespace: parse(namespace)?, name: Label::parse(name).ok()? };
        let listed = self.readers.directory.service(&id)?;
        Some(self.services.of(id, listed, service))
    }

    fn node(&self, namespace: &str, name: &str) -> Option<Arc<dns::Node>> {
        let id = NodeId { namespace: parse(namespace)?, name: Label::parse(name).ok()? };
        let record = self.readers.directory.node(&id)?;
        Some(self.nodes.of(id, record, node))
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        parse(namespace).is_some_and(|namespace| self.readers.directory.has_namespace(&namespace))
    }

    fn by_address(&self, address: IpAddr) -> Vec<PtrTarget> {
        let target = |at| match at {
            AtAddress::Node(NodeId { namespace, name }) => {
                PtrTarget::Node { namespace: namespace.as_str().into(), name: name.as_str().into() }
            }
            AtAddress::Instance(id) => PtrTarget::Instance {
                namespace: id.namespace.as_str().into(),
                service: id.service.as_str().into(),
                id: id.id.as_str().into(),
            },
        };
        self.readers.directory.at(address).into_iter().map(target).collect()
    }

    fn age(&self) -> Option<Duration> {
        let contact = self.propose.standing().last_contact_ms.map(Duration::from_millis);
        match contact {
            Some(age) => (age > FRESH).then_some(age),
            // Since before this member started.
            None => Some(Duration::MAX),
        }
    }

    fn revision(&self) -> u64 {
        self.readers.directory.revision().0
    }
}

fn parse(namespace: &str) -> Option<Namespace> {
    Namespace::parse(namespace).ok().filter(|_| !namespace.is_empty())
}

/// A service with all its instances but those in maintenance: somebody took these out, so they do not count and are never answered.
fn service(listed: &Listed) -> dns::Service {
    let ttl = listed.settings().dns_ttl_ms.map(Duration::from_millis);
    let instances = listed.instances.iter().filter_map(|i| instance(i)).collect();
    dns::Service::new(instances, ttl, listed.is_protected())
}

fn instance(listed: &ListedInstance) -> Option<dns::Instance> {
    let definition = listed.record.definition.as_ref()?;
    let (health, weight) = match listed.record.health() {
        Health::Passing => (dns::Health::Passing, definition.weight_passing),
        Health::Warning => (dns::Health::Warning, definition.weight_warning),
        Health::Critical => (dns::Health::Critical, definition.weight_warning),
        Health::Maintenance => return None,
    };
    // Bounded where they are registered.
    let port = |port: u32| u16::try_from(port).unwrap_or(0);
    Some(dns::Instance {
        id: listed.id.id.as_str().into(),
        address: Address::from(listed.record.address.as_str()),
        port: port(definition.port),
        ports: definition.ports.iter().map(|p| (p.name.as_str().into(), port(p.port))).collect(),
        tags: definition.tags.iter().map(|tag| tag.as_str().into()).collect(),
        metadata: items(&definition.metadata),
        health,
        weight: u16::try_from(weight).unwrap_or(u16::MAX),
    })
}

fn node(record: &NodeRecord) -> dns::Node {
    let definition = record.definition.clone().unwrap_or_default();
    dns::Node {
        addresses: vec![Address::from(definition.address.as_str())],
        metadata: items(&definition.metadata),
    }
}

fn items(items: &[Item]) -> Vec<(Box<str>, Box<str>)> {
    items.iter().map(|item| (item.name.as_str().into(), item.value.as_str().into())).collect()
}
