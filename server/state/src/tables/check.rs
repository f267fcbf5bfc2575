//! `check`: what tells how instances and nodes are. Row key: namespace, NUL, then [`INSTANCE`], a service, NUL, an id, NUL, the
//! check's id; or [`NODE`], a node's name, NUL, the check's id. Row: the link of the last change, the record.
//!
//! Invariants: its owner is in `instance` or `node`; `status` is `observed` unless it is held; an alias check's status is the
//! `own_health` of the instance it follows.

use std::ops::Bound;

use bytes::Bytes;
use heed::{RoTxn, RwTxn};

use super::chain::Link;
use super::found::{self, By};
use super::kv::END;
use super::{Db, ObjectTable, TableSpec, Tables, decode};
use crate::batch::{Change, CheckChange};
use crate::command::{CheckRecord, check_definition::Kind};
use crate::error::StateError;
use crate::ids::{CheckId, CheckOwner, Ident, InstanceId, Label, Namespace, NodeId};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 15, name: "check" };

const INSTANCE: u8 = 1;
const NODE: u8 = 2;

pub(crate) struct Check;

impl ObjectTable for Check {
    const SPEC: TableSpec = TABLE;
    type Key = CheckId;
    type Record = CheckRecord;

    fn db(tables: &Tables) -> Db {
        tables.check
    }

    fn encode_key(check: &CheckId, into: &mut Vec<u8>) {
        prefix(&check.owner, into);
        into.extend_from_slice(check.id.as_str().as_bytes());
    }

    fn decode_key(row_key: &[u8]) -> Result<CheckId, StateError> {
        parse_row_key(row_key)
    }

    fn change(id: CheckId, before: Option<CheckRecord>, after: Option<CheckRecord>) -> Change {
        Change::Check(CheckChange { id, before, after })
    }

    /// What it follows has to be what an instance can be named.
    fn check(id: &CheckId, record: &CheckRecord) -> Result<(), StateError> {
        match followed(id.owner.namespace(), record) {
            Some(InstanceId { service, id, .. })
                if Label::parse(service.as_str()).is_err() || Ident::parse(id.as_str()).is_err() =>
            {
                Err(StateError::corrupt(TABLE.name, "it follows what no instance can be named"))
            }
            _ => Ok(()),
        }
    }

    fn reindex(
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        id: &CheckId,
        before: Option<&CheckRecord>,
        after: Option<&CheckRecord>,
    ) -> Result<(), StateError> {
        let namespace = id.owner.namespace();
        let followed = |record: Option<&CheckRecord>| followed(namespace, record?);
        let (old, new) = (followed(before), followed(after));
        if old == new {
            return Ok(());
        }
        for (instance, is_there) in [(old, false), (new, true)] {
            if let Some(instance) = instance {
                found::follow(tables, txn, &instance, &row_key(id), is_there)?;
                found::count(tables, txn, namespace, &By::Followed(&instance), is_there)?;
            }
        }
        Ok(())
    }
}

/// The instance whose health an alias check has.
pub(crate) fn followed(namespace: &Namespace, record: &CheckRecord) -> Option<InstanceId> {
    match record.definition.as_ref()?.kind.as_ref()? {
        Kind::Alias(key) => Some(InstanceId::trusted(namespace, key)),
        Kind::TtlMs(_) | Kind::Http(_) | Kind::Tcp(_) | Kind::Udp(_) | Kind::Grpc(_) | Kind::Script(_) => {
            None
        }
    }
}

/// The checks of an instance or a node, in the order of their ids.
pub(crate) fn of_owner(
    tables: &Tables,
    txn: &RoTxn<'_>,
    owner: &CheckOwner,
) -> Result<Vec<(CheckId, CheckRecord)>, StateError> {
    let mut from = Vec::with_capacity(96);
    prefix(owner, &mut from);
    let mut checks = Vec::new();
    for row in tables.check.range(txn, &(Bound::Included(&from[..]), Bound::Unbounded))? {
        let (row_key, row) = row?;
        let Some(id) = row_key.strip_prefix(&from[..]) else { break };
        let id = std::str::from_utf8(id).map_err(|_| malformed())?;
        let id = CheckId { owner: owner.clone(), id: Ident::trusted(id) };
        checks.push((id, decode(TABLE, Bytes::copy_from_slice(Link::split(row)?.1))?));
    }
    Ok(checks)
}

/// Appends what the row keys of an owner's checks begin with.
pub(crate) fn prefix(owner: &CheckOwner, into: &mut Vec<u8>) {
    into.extend_from_slice(owner.namespace().as_str().as_bytes());
    into.push(END);
    match owner {
        CheckOwner::Instance(instance) => {
            into.push(INSTANCE);
            into.extend_from_slice(instance.service.as_str().as_bytes());
            into.push(END);
            into.extend_from_slice(instance.id.as_str().as_bytes());
        }
        CheckOwner::Node(node) => {
            into.push(NODE);
            into.extend_from_slice(node.name.as_str().as_bytes());
        }
    }
    into.push(END);
}

/// What the row keys of the checks of all instances of a service begin with, behind the namespace; of all nodes without one.
pub(crate) fn of_service(service: &Label) -> Vec<u8> {
    [&[INSTANCE], service.as_str().as_bytes(), &[END]].concat()
}

/// The row key of a check.
pub(crate) fn row_key(check: &CheckId) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(96);
    Check::encode_key(check, &mut row_key);
    row_key
}

/// The check that a row key names.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<CheckId, StateError> {
    parse(row_key).ok_or_else(malformed)
}

fn parse(row_key: &[u8]) -> Option<CheckId> {
    let (namespace, rest) = std::str::from_utf8(row_key).ok()?.split_once('\0')?;
    let namespace = Namespace::parse(namespace).ok().filter(|_| !namespace.is_empty())?;
    let kind = *rest.as_bytes().first()?;
    let rest = rest.get(1..)?;
    let (owner, id) = match kind {
        INSTANCE => {
            let (service, rest) = rest.split_once('\0')?;
            let (id, check) = rest.split_once('\0')?;
            let (service, id) = (Label::parse(service).ok()?, Ident::parse(id).ok()?);
            (CheckOwner::Instance(InstanceId { namespace, service, id }), check)
        }
        NODE => {
            let (name, check) = rest.split_once('\0')?;
            (CheckOwner::Node(NodeId { namespace, name: Label::parse(name).ok()? }), check)
        }
        _ => return None,
    };
    Some(CheckId { owner, id: Ident::parse(id).ok()? })
}

fn malformed() -> StateError {
    StateError::corrupt(TABLE.name, "a row key is malformed")
}
