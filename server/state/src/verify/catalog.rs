//! Checks the catalog: what is said of instances and nodes against what it follows from, and all that belongs together is there.

use super::Check;
use crate::command::{
    CheckRecord, Health, InstanceDefinition, InstanceRecord, Item, NodeRecord, ServiceRecord, ServiceSettings,
};
use crate::error::StateError;
use crate::ids::{CheckId, CheckOwner, InstanceId, Label, NodeId};
use crate::tables::bound::Thing;
use crate::tables::found::{self, By};
use crate::tables::{check, instance, node, service};
use prost::Message;

/// The zone that metadata tells.
fn zone(metadata: &[Item]) -> Option<&str> {
    metadata.iter().find(|item| item.name == "zone").map(|item| item.value.as_str())
}

impl Check<'_> {
    pub(super) fn catalog(&mut self) -> Result<(), StateError> {
        self.nodes()?;
        self.services()?;
        self.instances()?;
        self.checks()
    }

    fn nodes(&mut self) -> Result<(), StateError> {
        self.objects::<node::Node>(|check, row_key, record: NodeRecord| {
            check.revisions(node::TABLE, row_key, record.create_revision, record.mod_revision);
            let Ok(id) = node::parse_row_key(row_key) else {
                return check.found(node::TABLE, row_key, "its key is malformed");
            };
            let worst = check.worst(&CheckOwner::Node(id), |_| true).unwrap_or(Health::Passing);
            let health = if record.maintenance.is_empty() { worst } else { Health::Maintenance };
            if record.health() != health {
                let what = format!("it is {:?}, and its checks say {health:?}", record.health());
                check.found(node::TABLE, row_key, what);
            }
        })
    }

    fn services(&mut self) -> Result<(), StateError> {
        self.objects::<service::Service>(|check, row_key, record: ServiceRecord| {
            check.revisions(service::TABLE, row_key, record.create_revision, record.mod_revision);
            let Ok(id) = service::parse_row_key(row_key) else {
                return check.found(service::TABLE, row_key, "its key is malformed");
            };
            let is_set = record.settings.is_some_and(|settings| settings != ServiceSettings::default());
            let count = check.view.count_instances(&id.namespace, &By::Service(&id.name));
            if !is_set && !count.is_ok_and(|count| count > 0) {
                check.found(service::TABLE, row_key, "it has neither instances nor settings");
            }
        })
    }

    fn instances(&mut self) -> Result<(), StateError> {
        self.objects::<instance::Instance>(|check, row_key, record: InstanceRecord| {
            check.revisions(instance::TABLE, row_key, record.create_revision, record.mod_revision);
            let Ok(id) = instance::parse_row_key(row_key) else {
                return check.found(instance::TABLE, row_key, "its key is malformed");
            };
            if !matches!(check.view.service(&id.service_id()), Ok(Some(_))) {
                check.found(instance::TABLE, row_key, "its service is not there");
            }
            let definition = record.definition.clone().unwrap_or_default();
            check.expect_found(&id, &definition);
            if definition.lease != 0 {
                let bytes = definition.encoded_len() as u64;
                let thing = Thing::Instance(&id);
                check.expect_bound(&id.namespace, definition.lease, &thing, &[], bytes);
                check.expect_lease(instance::TABLE, row_key, &id.namespace, definition.lease);
            }
            check.placed(row_key, &id, &definition, &record);
        })
    }

    /// What an instance is found and counted by.
    fn expect_found(&mut self, id: &InstanceId, definition: &InstanceDefinition) {
        for row_key in found::row_keys(id, definition) {
            self.found.insert(row_key, Vec::new());
        }
        self.count(found::row_key(&id.namespace, &By::Service(&id.service)));
        if !definition.node.is_empty() {
            self.count(found::row_key(&id.namespace, &By::Node(&definition.node)));
        }
    }

    fn count(&mut self, row_key: Vec<u8>) {
        let row = self.found.entry(row_key).or_insert_with(|| vec![0; 8]);
        let count = row.iter().fold(0, |n, b| n << 8 | u64::from(*b)) + 1;
        row.copy_from_slice(&count.to_be_bytes());
    }

    /// What an instance says of its place and health is what its node and its checks say.
    fn placed(
        &mut self,
        row_key: &[u8],
        id: &InstanceId,
        definition: &InstanceDefinition,
        record: &InstanceRecord,
    ) {
        let on = match definition.node.as_str() {
            "" => None,
            name => {
                let node = NodeId { namespace: id.namespace.clone(), name: Label::trusted(name) };
                let found = self.view.node(&node).ok().flatten();
                if found.is_none() {
                    self.found(instance::TABLE, row_key, "its node is not there");
                }
                found
            }
        };
        let node_address = on.as_ref().and_then(|node| Some(node.definition.as_ref()?.address.as_str()));
        let address = match definition.address.as_str() {
            "" => node_address.unwrap_or_default(),
            address => address,
        };
        if record.address != address {
            self.found(instance::TABLE, row_key, "its address is neither its own nor its node's");
        }
        let node_zone = on.as_ref().and_then(|node| zone(&node.definition.as_ref()?.metadata));
        if record.zone != zone(&definition.metadata).or(node_zone).unwrap_or_default() {
            self.found(instance::TABLE, row_key, "its zone is neither its own nor its node's");
        }
        let owner = CheckOwner::Instance(id.clone());
        let is_alias = |check: &CheckRecord| check::followed(&id.namespace, check).is_some();
        let own = self.worst(&owner, |check| !is_alias(check)).max(on.map(|node| node.health()));
        let own = if record.maintenance.is_empty() { own } else { Some(Health::Maintenance) };
        let own = own.unwrap_or(Health::Passing);
        let health = self.worst(&owner, is_alias).max(Some(own)).unwrap_or(own);
        if (record.own_health(), record.health()) != (own, health) {
            let what = format!("it is {:?}, and its checks say {health:?}", record.health());
            self.found(instance::TABLE, row_key, what);
        }
    }

    fn checks(&mut self) -> Result<(), StateError> {
        self.objects::<check::Check>(|check, row_key, record: CheckRecord| {
            check.revisions(check::TABLE, row_key, record.create_revision, record.mod_revision);
            let Ok(id) = check::parse_row_key(row_key) else {
                return check.found(check::TABLE, row_key, "its key is malformed");
            };
            let is_owned = match &id.owner {
                CheckOwner::Instance(id) => matches!(check.view.instance(id), Ok(Some(_))),
                CheckOwner::Node(id) => matches!(check.view.node(id), Ok(Some(_))),
            };
            if !is_owned {
                check.found(check::TABLE, row_key, "whose check it is is not there");
            }
            if record.status != record.observed && record.held_until_steady_ms == 0 {
                check.found(check::TABLE, row_key, "it is not held, and yet other than its last result");
            }
            check.follows(row_key, &id, &record);
        })
    }

    /// An alias check has the health of the instance that it follows.
    fn follows(&mut self, row_key: &[u8], id: &CheckId, record: &CheckRecord) {
        let namespace = id.owner.namespace();
        let Some(followed) = check::followed(namespace, record) else { return };
        self.found.insert(found::follower_row_key(&followed, row_key), Vec::new());
        self.count(found::row_key(namespace, &By::Followed(&followed)));
        let health = self.view.instance(&followed).ok().flatten().map(|record| record.own_health());
        let status = health.unwrap_or(Health::Critical).min(Health::Critical);
        if record.status() != status {
            let what = format!("it is {:?}, and the instance that it follows is {status:?}", record.status());
            self.found(check::TABLE, row_key, what);
        }
    }

    fn worst(&self, owner: &CheckOwner, counts: impl Fn(&CheckRecord) -> bool) -> Option<Health> {
        let checks = self.view.checks_of(owner).unwrap_or_default();
        checks.iter().filter(|(_, check)| counts(check)).map(|(_, check)| check.status()).max()
    }

    fn revisions(&mut self, table: crate::tables::TableSpec, row_key: &[u8], create: u64, modified: u64) {
        let now = self.view.revision().0;
        if create == 0 || create > modified || modified > now {
            let what = format!("created at {create}, changed at {modified}, in a store at {now}");
            self.found(table, row_key, what);
        }
    }
}
