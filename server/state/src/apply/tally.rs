//! What may be registered: the registrations of a Command are judged one after the other, each with what those before it make of what is
//! there, before any of them is carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::lease;
use crate::command::{
    CatalogFull, CatalogRegister, CheckDefinition, CheckSet, InstanceDefinition, InstanceRegistration,
    MAX_FOLLOWERS, MAX_INSTANCES, MAX_NODE_INSTANCES, MAX_NODES, MAX_SERVICE_INSTANCES, NodeNotFound,
    Registration, check_definition::Kind, refusal::Reason,
};
use crate::error::StateError;
use crate::ids::{CheckOwner, Ident, InstanceId, Label, LeaseId, Namespace, NodeId};
use crate::tables::check;
use crate::tables::found::{self, By};
use crate::tables::instance::Instance;
use crate::tables::node::Node;
use crate::tx::Tx;

/// Service and id of an instance.
type Name = (String, String);

/// What the registrations of a Command that were looked at so far make of what is there.
#[derive(Default)]
pub(super) struct Tally {
    /// Those that are there by now.
    nodes: BTreeSet<String>,
    new_nodes: u64,
    /// Where the instances are that the Command registers, and whom their alias checks follow.
    placed: BTreeMap<Name, String>,
    following: BTreeMap<Name, Vec<Name>>,
    instances: u64,
    /// By how much there are more of them.
    services: BTreeMap<String, u64>,
    on_nodes: BTreeMap<String, i64>,
    followers: BTreeMap<Name, i64>,
    has_aliases: bool,
}

impl Tally {
    /// Of a Command of which nothing was looked at.
    pub(super) fn of(register: &CatalogRegister) -> Self {
        Self { has_aliases: has_aliases(register), ..Self::default() }
    }

    /// Looks at the next registration, and says why it is refused, if so.
    pub(super) fn admit(
        &mut self,
        tx: &mut Tx<'_, '_>,
        namespace: &Namespace,
        registration: &Registration,
    ) -> Result<Result<(), Reason>, StateError> {
        if let Some(node) = &registration.node
            && let Err(reason) = self.admit_node(tx, namespace, &node.name)?
        {
            return Ok(Err(reason));
        }
        match &registration.instance {
            Some(instance) => self.admit_instance(tx, namespace, instance),
            None => Ok(Ok(())),
        }
    }

    fn admit_node(
        &mut self,
        tx: &mut Tx<'_, '_>,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Result<(), Reason>, StateError> {
        if self.nodes.contains(name) || find_node(tx, namespace, name)? {
            self.nodes.insert(name.to_owned());
            return Ok(Ok(()));
        }
        self.nodes.insert(name.to_owned());
        self.new_nodes += 1;
        let rows = tx.rows();
        let nodes = rows.tables.node.len(&rows.txn)?;
        Ok(at_most(nodes + self.new_nodes, MAX_NODES, "nodes"))
    }

    fn admit_instance(
        &mut self,
        tx: &mut Tx<'_, '_>,
        namespace: &Namespace,
        instance: &InstanceRegistration,
    ) -> Result<Result<(), Reason>, StateError> {
        let InstanceRegistration { service, id, definition, checks } = instance;
        let none = InstanceDefinition::default();
        let definition = definition.as_ref().unwrap_or(&none);
        let node = &definition.node;
        if !node.is_empty() && !self.nodes.contains(node) && !find_node(tx, namespace, node)? {
            return Ok(Err(Reason::NodeNotFound(NodeNotFound { name: node.clone() })));
        }
        let key = InstanceId {
            namespace: namespace.clone(),
            service: Label::trusted(service),
            id: Ident::trusted(id),
        };
        let found = tx.get::<Instance>(&key)?.and_then(|record| record.definition);
        let lease = LeaseId(definition.lease);
        let has_lease = found.as_ref().is_some_and(|found| found.lease == definition.lease);
        if definition.lease != 0
            && !has_lease
            && let Err(reason) = lease::check_room(tx, namespace, lease)?
        {
            return Ok(Err(reason));
        }
        let placed = self.placed.insert((service.clone(), id.clone()), node.clone());
        let was_on = placed.or_else(|| found.map(|definition| definition.node));
        if let Err(reason) = self.count_instance(tx, &key, was_on.as_deref(), node)? {
            return Ok(Err(reason));
        }
        self.count_followers(tx, &key, checks.as_ref())
    }

    fn count_instance(
        &mut self,
        tx: &Tx<'_, '_>,
        key: &InstanceId,
        was_on: Option<&str>,
        node: &str,
    ) -> Result<Result<(), Reason>, StateError> {
        let rows = tx.rows();
        let counted = |by: &By<'_>| found::counted(&rows.tables, &rows.txn, &key.namespace, by);
        if was_on.is_none() {
            self.instances += 1;
            let all = rows.tables.instance.len(&rows.txn)? + self.instances;
            if let Err(reason) = at_most(all, MAX_INSTANCES, "instances") {
                return Ok(Err(reason));
            }
            let more = self.services.entry(key.service.as_str().to_owned()).or_default();
            *more += 1;
            let of_service = counted(&By::Service(&key.service))? + *more;
            if let Err(reason) = at_most(of_service, MAX_SERVICE_INSTANCES, "instances of the service") {
                return Ok(Err(reason));
            }
        }
        let was_on = was_on.unwrap_or_default();
        if was_on == node {
            return Ok(Ok(()));
        }
        if !was_on.is_empty() {
            *self.on_nodes.entry(was_on.to_owned()).or_default() -= 1;
        }
        if node.is_empty() {
            return Ok(Ok(()));
        }
        let more = self.on_nodes.entry(node.to_owned()).or_default();
        *more += 1;
        let on_node = counted(&By::Node(node))?.saturating_add_signed(*more);
        Ok(at_most(on_node, MAX_NODE_INSTANCES, "instances on the node"))
    }

    fn count_followers(
        &mut self,
        tx: &mut Tx<'_, '_>,
        key: &InstanceId,
        checks: Option<&CheckSet>,
    ) -> Result<Result<(), Reason>, StateError> {
        if !self.has_aliases {
            return Ok(Ok(()));
        }
        let name = (key.service.as_str().to_owned(), key.id.as_str().to_owned());
        let now = followed(checks);
        let before = match self.following.insert(name, now.clone()) {
            Some(before) => before,
            None => followed_now(tx, key)?,
        };
        for name in &before {
            *self.followers.entry(name.clone()).or_default() -= 1;
        }
        for name in &now {
            *self.followers.entry(name.clone()).or_default() += 1;
        }
        let count = |names: &[Name], name: &Name| names.iter().filter(|other| *other == name).count();
        for name in now.iter().filter(|name| count(&now, name) > count(&before, name)) {
            let (service, id) = (Label::trusted(&name.0), Ident::trusted(&name.1));
            let target = InstanceId { namespace: key.namespace.clone(), service, id };
            let rows = tx.rows();
            let there = found::counted(&rows.tables, &rows.txn, &key.namespace, &By::Followed(&target))?;
            let more = self.followers.get(name).copied().unwrap_or_default();
            let all = there.saturating_add_signed(more);
            if let Err(reason) = at_most(all, MAX_FOLLOWERS, "alias checks of the instance") {
                return Ok(Err(reason));
            }
        }
        Ok(Ok(()))
    }
}

/// The instances that the alias checks of an instance follow now.
fn followed_now(tx: &Tx<'_, '_>, id: &InstanceId) -> Result<Vec<Name>, StateError> {
    let rows = tx.rows();
    let checks = check::of_owner(&rows.tables, &rows.txn, &CheckOwner::Instance(id.clone()))?;
    let followed = checks.iter().filter_map(|(_, record)| check::followed(&id.namespace, record));
    Ok(followed.map(|id| (id.service.as_str().to_owned(), id.id.as_str().to_owned())).collect())
}

fn at_most(count: u64, limit: u64, what: &str) -> Result<(), Reason> {
    if count > limit {
        return Err(Reason::CatalogFull(CatalogFull { what: what.to_owned(), limit }));
    }
    Ok(())
}

fn find_node(tx: &mut Tx<'_, '_>, namespace: &Namespace, name: &str) -> Result<bool, StateError> {
    let id = NodeId { namespace: namespace.clone(), name: Label::trusted(name) };
    Ok(tx.get::<Node>(&id)?.is_some())
}

/// Whether the Command has alias checks.
fn has_aliases(register: &CatalogRegister) -> bool {
    let instances = register.registrations.iter().filter_map(|registration| registration.instance.as_ref());
    instances.flat_map(|instance| &instance.checks).any(|set| !followed(Some(set)).is_empty())
}

/// The instances that alias checks follow, each as often as it is followed.
fn followed(checks: Option<&CheckSet>) -> Vec<Name> {
    let definitions =
        checks.into_iter().flat_map(|set| &set.checks).filter_map(|check| check.definition.as_ref());
    let alias = |definition: &CheckDefinition| match &definition.kind {
        Some(Kind::Alias(key)) => Some((key.service.clone(), key.id.clone())),
        _ => None,
    };
    definitions.filter_map(alias).collect()
}
