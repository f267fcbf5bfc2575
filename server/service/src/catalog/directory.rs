//! The catalog in memory: every service with its instances, and every node, as they were at the last revision that was published. What
//! has to be answered in microseconds (Resolve, DNS) is answered from here.
//!
//! A service's [`Listed`] never changes; a change of one of its instances puts another one in its place. So whoever holds one sees one
//! consistent service, and whoever finds the same one again (by its address in memory) knows that nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use konsul_state::batch::{InstanceChange, NodeChange, ServiceChange};
use konsul_state::command::{Health, InstanceRecord, NodeRecord, ServiceRecord, ServiceSettings};
use konsul_state::view::Paging;
use konsul_state::{
    Batch, Change, Ident, InstanceId, Label, Namespace, NodeId, ReadError, Revision, ServiceId, State,
    StateError,
};
use parking_lot::RwLock;

use crate::limits;

/// Rows read at a time when all is loaded.
const PAGE: usize = 1_000;

/// An instance of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedInstance {
    /// Which instance.
    pub id: InstanceId,
    /// What is known of it.
    pub record: InstanceRecord,
}

/// A service with its instances.
#[derive(Debug)]
pub struct Listed {
    /// Which service.
    pub id: ServiceId,
    /// What the store has of it.
    pub record: ServiceRecord,
    /// All instances, in the order of their ids.
    pub instances: Vec<Arc<ListedInstance>>,
    /// The places of those that pass, in `instances`.
    pub passing: Vec<u32>,
    /// How many are passing, warning, critical and in maintenance.
    pub counts: [u64; 4],
    tags: OnceLock<Vec<String>>,
    /// Counts the picks of round robin; goes on from one [`Listed`] to the next.
    pub(super) turns: Arc<AtomicUsize>,
}

impl Listed {
    fn new(
        id: ServiceId,
        record: ServiceRecord,
        instances: Vec<Arc<ListedInstance>>,
        turns: Arc<AtomicUsize>,
    ) -> Self {
        let mut counts = [0; 4];
        let mut passing = Vec::new();
        for (place, instance) in instances.iter().enumerate() {
            let health = instance.record.health();
            counts[health as usize] += 1;
            if health == Health::Passing {
                // There are at most 10,000.
                passing.push(place as u32);
            }
        }
        Self { id, record, instances, passing, counts, tags: OnceLock::new(), turns }
    }

    /// What holds for all of its instances.
    #[must_use]
    pub fn settings(&self) -> ServiceSettings {
        self.record.settings.clone().unwrap_or_default()
    }

    /// Whether so few of its instances pass or warn that all of them are answered. Those in maintenance do not count: somebody meant it.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        let threshold = self.record.settings.as_ref().map_or(0, |s| u64::from(s.protect_threshold));
        let [passing, warning, critical, _] = self.counts;
        let all = passing + warning + critical;
        threshold > 0 && all > 0 && (passing + warning) * 100 < threshold * all
    }

    /// The tags of its instances, sorted; at most [`limits::SERVICE_TAGS`].
    pub(super) fn tags(&self) -> &[String] {
        self.tags.get_or_init(|| {
            let definitions = self.instances.iter().filter_map(|i| i.record.definition.as_ref());
            let tags: BTreeSet<&String> = definitions.flat_map(|definition| &definition.tags).collect();
            tags.into_iter().take(limits::SERVICE_TAGS).cloned().collect()
        })
    }

    /// The services that its instances depend on, in order.
    #[must_use]
    pub fn depends_on(&self) -> BTreeSet<&str> {
        let definitions = self.instances.iter().filter_map(|i| i.record.definition.as_ref());
        definitions.flat_map(|definition| definition.depends_on.iter().map(String::as_str)).collect()
    }
}

/// The catalog of this member.
#[derive(Default)]
pub struct Directory {
    services: RwLock<BTreeMap<ServiceId, Arc<Listed>>>,
    nodes: RwLock<BTreeMap<NodeId, Arc<NodeRecord>>>,
    /// What is at an address, for who asks for its name.
    addresses: RwLock<BTreeMap<IpAddr, BTreeSet<AtAddress>>>,
    /// How many services and nodes each namespace has.
    namespaces: RwLock<BTreeMap<Namespace, usize>>,
    revision: AtomicU64,
}

/// Something that is at an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AtAddress {
    /// A node.
    Node(NodeId),
    /// An instance.
    Instance(InstanceId),
}

/// A service that a run of changes touches.
#[derive(Default)]
struct Touched {
    record: Option<Option<ServiceRecord>>,
    instances: BTreeMap<Ident, Option<InstanceRecord>>,
}

impl Directory {
    /// The catalog of a state.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub fn new(state: &State) -> Result<Self, StateError> {
        let directory = Self::default();
        directory.load(state)?;
        Ok(directory)
    }

    /// The revision that it is of, at least.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.revision.load(Ordering::Acquire))
    }

    /// A service; `None` if there is none of that name.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<Arc<Listed>> {
        self.services.read().get(id).cloned()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<Arc<NodeRecord>> {
        self.nodes.read().get(id).cloned()
    }

    /// What is at an address.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Vec<AtAddress> {
        self.addresses.read().get(&address).map(|found| found.iter().cloned().collect()).unwrap_or_default()
    }

    /// Whether a namespace has services or nodes.
    #[must_use]
    pub fn has_namespace(&self, namespace: &Namespace) -> bool {
        self.namespaces.read().contains_key(namespace)
    }

    /// How many services, instances and nodes there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let services = self.services.read();
        let instances = services.values().map(|listed| listed.instances.len()).sum();
        (services.len(), instances, self.nodes.read().len())
    }

    /// The services of a namespace whose names begin with `prefix`, after one of them, in order, at most `most`.
    #[must_use]
    pub fn services(
        &self,
        namespace: &Namespace,
        prefix: &str,
        after: Option<&Label>,
        most: usize,
    ) -> Vec<Arc<Listed>> {
        let services = self.services.read();
        let id = |name: &Label| ServiceId { namespace: namespace.clone(), name: name.clone() };
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(id(after)));
        let within = |id: &ServiceId| id.namespace == *namespace && id.name.as_str().starts_with(prefix);
        let comes = |id: &ServiceId| (&id.namespace, id.name.as_str()) < (namespace, prefix);
        // A namespace's services stand together, and so do those that begin alike.
        let range = match (Label::parse(prefix), from) {
            (Ok(prefix), Bound::Unbounded) => {
                services.range((Bound::Included(id(&prefix)), Bound::Unbounded))
            }
            (_, from) => services.range((from, Bound::Unbounded)),
        };
        let found = range.skip_while(|(id, _)| comes(id)).take_while(|(id, _)| within(id)).take(most);
        found.map(|(_, listed)| Arc::clone(listed)).collect()
    }

    /// Follows what was committed.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        let mut touched: BTreeMap<ServiceId, Touched> = BTreeMap::new();
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            match change {
                Change::Service(ServiceChange { id, after, .. }) => {
                    touched.entry(id.clone()).or_default().record = Some(after.clone());
                }
                Change::Instance(change) => {
                    self.move_address(change);
                    let service = touched.entry(change.id.service_id()).or_default();
                    service.instances.insert(change.id.id.clone(), change.after.clone());
                }
                Change::Node(change) => self.put_node(change),
                Change::Kv(_) | Change::Lease(_) | Change::Lock(_) | Change::Claim(_) | Change::Check(_) => {}
            }
        }
        for (id, touched) in touched {
            self.put_service(id, touched);
        }
        if let Some(last) = batches.last() {
            self.revision.store(last.revision.0, Ordering::Release);
        }
    }

    /// The whole state is another one: all is read anew.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub(crate) fn reset(&self, state: &State) -> Result<(), StateError> {
        let fresh = Self::new(state)?;
        let revision = fresh.revision();
        *self.services.write() = fresh.services.into_inner();
        *self.nodes.write() = fresh.nodes.into_inner();
        *self.addresses.write() = fresh.addresses.into_inner();
        *self.namespaces.write() = fresh.namespaces.into_inner();
        self.revision.store(revision.0, Ordering::Release);
        Ok(())
    }

    /// Reads everything at one revision, in short views.
    fn load(&self, state: &State) -> Result<(), StateError> {
        let view = state.view()?;
        let revision = view.revision();
        let mut services: BTreeMap<ServiceId, (ServiceRecord, Vec<Arc<ListedInstance>>)> = BTreeMap::new();
        each(
            |paging| view.services(None, paging),
            |id, record| {
                services.insert(id, (record, Vec::new()));
            },
        )?;
        each(
            |paging| view.instances(None, paging),
            |id, record| {
                self.enter_address(&record.address, AtAddress::Instance(id.clone()));
                if let Some((_, instances)) = services.get_mut(&id.service_id()) {
                    instances.push(Arc::new(ListedInstance { id, record }));
                }
            },
        )?;
        each(
            |paging| view.nodes(None, paging),
            |id, record| {
                self.put_node(&NodeChange { id, before: None, after: Some(record) });
            },
        )?;
        for (id, (record, instances)) in services {
            self.count(&id.namespace, true);
            let listed = Listed::new(id.clone(), record, instances, Arc::default());
            self.services.write().insert(id, Arc::new(listed));
        }
        self.revision.store(revision.0, Ordering::Release);
        Ok(())
    }

    fn put_service(&self, id: ServiceId, touched: Touched) {
        let before = self.service(&id);
        let record = match touched.record {
            Some(record) => record,
            None => before.as_ref().map(|listed| listed.record.clone()),
        };
        let Some(record) = record else {
            if self.services.write().remove(&id).is_some() {
                self.count(&id.namespace, false);
            }
            return;
        };
        let old = before.as_ref().map(|listed| &listed.instances[..]).unwrap_or_default();
        let instances = merge(&id, old, touched.instances);
        let turns = before.as_ref().map(|listed| Arc::clone(&listed.turns)).unwrap_or_default();
        let listed = Arc::new(Listed::new(id.clone(), record, instances, turns));
        if before.is_none() {
            self.count(&id.namespace, true);
        }
        self.services.write().insert(id, listed);
    }

    fn put_node(&self, change: &NodeChange) {
        let NodeChange { id, before, after } = change;
        let address = |record: &Option<NodeRecord>| {
            record.as_ref().and_then(|r| r.definition.as_ref()).map(|d| d.address.clone())
        };
        let (old, new) = (address(before), address(after));
        if old != new {
            let at = AtAddress::Node(id.clone());
            old.iter().for_each(|address| self.leave_address(address, &at));
            new.iter().for_each(|address| self.enter_address(address, at.clone()));
        }
        match after {
            Some(record) => {
                if self.nodes.write().insert(id.clone(), Arc::new(record.clone())).is_none() {
                    self.count(&id.namespace, true);
                }
            }
            None => {
                if self.nodes.write().remove(id).is_some() {
                    self.count(&id.namespace, false);
                }
            }
        }
    }

    fn move_address(&self, change: &InstanceChange) {
        let (old, new) = (&change.before, &change.after);
        let (old, new) = (old.as_ref().map(|r| &r.address), new.as_ref().map(|r| &r.address));
        if old != new {
            let at = AtAddress::Instance(change.id.clone());
            old.iter().for_each(|address| self.leave_address(address, &at));
            new.iter().for_each(|address| self.enter_address(address, at.clone()));
        }
    }

    fn enter_address(&self, address: &str, at: AtAddress) {
        if let Ok(address) = address.parse() {
            self.addresses.write().entry(address).or_default().insert(at);
        }
    }

    fn leave_address(&self, address: &str, at: &AtAddress) {
        let Ok(address) = address.parse() else { return };
        let mut addresses = self.addresses.write();
        if let Some(found) = addresses.get_mut(&address) {
            found.remove(at);
            if found.is_empty() {
                addresses.remove(&address);
            }
        }
    }

    fn count(&self, namespace: &Namespace, is_there: bool) {
        let mut namespaces = self.namespaces.write();
        let count = namespaces.entry(namespace.clone()).or_default();
        *count = if is_there { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            namespaces.remove(namespace);
        }
    }
}

/// A service's instances with some of them changed; both are in the order of their ids.
fn merge(
    service: &ServiceId,
    old: &[Arc<ListedInstance>],
    changed: BTreeMap<Ident, Option<InstanceRecord>>,
) -> Vec<Arc<ListedInstance>> {
    let mut merged = Vec::with_capacity(old.len() + changed.len());
    let mut old = old.iter().peekable();
    for (id, record) in changed {
        while let Some(instance) = old.next_if(|instance| instance.id.id < id) {
            merged.push(Arc::clone(instance));
        }
        old.next_if(|instance| instance.id.id == id);
        if let Some(record) = record {
            let ServiceId { namespace, name } = service.clone();
            let id = InstanceId { namespace, service: name, id };
            merged.push(Arc::new(ListedInstance { id, record }));
        }
    }
    merged.extend(old.cloned());
    merged
}

/// Visits all rows of a listing, page by page.
pub(crate) fn each<K, R>(
    mut page: impl FnMut(&Paging<'_>) -> Result<konsul_state::view::Rows<K, R>, ReadError>,
    mut visit: impl FnMut(K, R),
) -> Result<(), StateError> {
    let mut after = None;
    loop {
        let paging =
            Paging { at: None, after: after.as_ref(), limit: PAGE, max_bytes: usize::MAX, max_rows: PAGE };
        let found = match page(&paging) {
            Ok(found) => found,
            Err(ReadError::State(error)) => return Err(error),
            // Only the past can be compacted, and only the future is not there.
            Err(ReadError::Compacted { .. } | ReadError::Future { .. }) => return Ok(()),
        };
        found.rows.into_iter().for_each(|(id, record)| visit(id, record));
        match found.next {
            None => return Ok(()),
            next => after = next,
        }
    }
}
