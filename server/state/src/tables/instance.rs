//! `instance`: the instances of services, each with its health. Row key: namespace, NUL, service, NUL, id. Row: the link of the
//! last change, the record.
//!
//! Invariants: its service is in `service`, its node (if it names one) in `node`, its lease (if it has one) in `lease`; `address` and
//! `zone` are its own or its node's; `health` and `own_health` follow from its rows in `check`, its node's health and maintenance
//! (apply/health.rs). So whoever looks at an instance, or follows its changes, need look at nothing else.

use heed::RwTxn;
use prost::Message;

use super::bound::{self, Thing};
use super::found::{self, By};
use super::kv::END;
use super::{Db, ObjectTable, TableSpec, Tables, node};
use crate::batch::{Change, InstanceChange};
use crate::command::{InstanceDefinition, InstanceRecord};
use crate::error::StateError;
use crate::ids::{Ident, InstanceId, Label, LeaseId, ServiceId};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 14, name: "instance" };

/// Most bytes of a value of metadata.
const MAX_VALUE_BYTES: usize = 512;

pub(crate) struct Instance;

impl ObjectTable for Instance {
    const SPEC: TableSpec = TABLE;
    type Key = InstanceId;
    type Record = InstanceRecord;

    fn db(tables: &Tables) -> Db {
        tables.instance
    }

    fn encode_key(id: &InstanceId, into: &mut Vec<u8>) {
        prefix(&id.service_id(), into);
        into.extend_from_slice(id.id.as_str().as_bytes());
    }

    fn decode_key(row_key: &[u8]) -> Result<InstanceId, StateError> {
        parse_row_key(row_key)
    }

    fn change(id: InstanceId, before: Option<InstanceRecord>, after: Option<InstanceRecord>) -> Change {
        Change::Instance(InstanceChange { id, before, after })
    }

    /// What it is found by has to be as long as row keys may be.
    fn check(_: &InstanceId, record: &InstanceRecord) -> Result<(), StateError> {
        let Some(definition) = &record.definition else { return Ok(()) };
        let has_names = definition.tags.iter().all(|tag| Ident::parse(tag).is_ok())
            && definition.metadata.iter().all(|item| Ident::parse(&item.name).is_ok());
        let is_value = |text: &str| text.len() <= MAX_VALUE_BYTES && !text.chars().any(char::is_control);
        let has_values = definition.metadata.iter().all(|item| is_value(&item.value));
        let has_node = definition.node.is_empty() || Label::parse(&definition.node).is_ok();
        match has_names && has_values && has_node {
            true => Ok(()),
            false => Err(StateError::corrupt(TABLE.name, "it is found by what nothing can be found by")),
        }
    }

    fn reindex(
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        id: &InstanceId,
        before: Option<&InstanceRecord>,
        after: Option<&InstanceRecord>,
    ) -> Result<(), StateError> {
        let definition =
            |record: Option<&InstanceRecord>| Some(record?.definition.clone().unwrap_or_default());
        let (old, new) = (definition(before), definition(after));
        if old == new {
            return Ok(());
        }
        found::change(tables, txn, id, old.as_ref(), new.as_ref())?;
        if let (None, _) | (_, None) = (&old, &new) {
            found::count(tables, txn, &id.namespace, &By::Service(&id.service), new.is_some())?;
        }
        let weight = |definition: Option<InstanceDefinition>| {
            let definition = definition.filter(|definition| definition.lease != 0)?;
            Some((LeaseId(definition.lease), definition.encoded_len() as u64))
        };
        let weights = [weight(old), weight(new)];
        if weights == [None, None] {
            return Ok(());
        }
        bound::change(tables, txn, &id.namespace, &Thing::Instance(id), weights, &[])
    }
}

/// Appends what the row keys of a service's instances begin with.
pub(crate) fn prefix(service: &ServiceId, into: &mut Vec<u8>) {
    into.extend_from_slice(service.namespace.as_str().as_bytes());
    into.push(END);
    into.extend_from_slice(service.name.as_str().as_bytes());
    into.push(END);
}

/// The instance that a row key names.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<InstanceId, StateError> {
    let malformed = || StateError::corrupt(TABLE.name, "a row key is malformed");
    let (namespace, rest) = node::parse_namespaced(row_key).ok_or_else(malformed)?;
    let (service, id) = rest.split_once('\0').ok_or_else(malformed)?;
    let service = Label::parse(service).map_err(|_| malformed())?;
    Ok(InstanceId { namespace, service, id: Ident::parse(id).map_err(|_| malformed())? })
}
