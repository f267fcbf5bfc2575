//! `found`: by what instances are found beside their names, and how many there are of what is bounded.
//!
//! Row keys: namespace, NUL, what they are found by (one byte: [`By`]), its value, NUL. Behind it service, NUL and id of an instance
//! ([`By::Node`], [`By::Tag`], [`By::Metadata`]), or the row key of an alias check without its namespace ([`By::Followed`]), with no value; or nothing: then
//! the value is how many there are (u64, big-endian), of [`By::Service`], [`By::Node`] and [`By::Followed`].
//!
//! Invariant: derived from `instance` and `check`, and not part of the state hash.

use std::ops::Bound;

use heed::{RoTxn, RwTxn};

use super::{TableSpec, Tables, check, kv::END};
use crate::command::InstanceDefinition;
use crate::error::StateError;
use crate::ids::{CheckId, Ident, InstanceId, Label, Namespace};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 16, name: "found" };

/// Between the name and the value of an item of metadata, neither of which has control characters.
const EQUALS: u8 = 1;

/// By what instances are found or counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// The service that they are of.
    Service(&'a Label),
    /// The node that they run on.
    Node(&'a str),
    /// A tag.
    Tag(&'a str),
    /// An item of metadata.
    Metadata(&'a str, &'a str),
    /// Alias checks: the instance that they follow.
    Followed(&'a InstanceId),
}

/// A row as LMDB hands it out.
type Row<'t> = heed::Result<(&'t [u8], &'t [u8])>;

/// The row key of a count, with which those of what is counted begin.
pub(crate) fn row_key(namespace: &Namespace, by: &By<'_>) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(128);
    row_key.extend_from_slice(namespace.as_str().as_bytes());
    row_key.push(END);
    match by {
        By::Service(name) => {
            row_key.push(1);
            row_key.extend_from_slice(name.as_str().as_bytes());
        }
        By::Node(name) => {
            row_key.push(2);
            row_key.extend_from_slice(name.as_bytes());
        }
        By::Tag(tag) => {
            row_key.push(3);
            row_key.extend_from_slice(tag.as_bytes());
        }
        By::Metadata(name, value) => {
            row_key.push(4);
            row_key.extend_from_slice(name.as_bytes());
            row_key.push(EQUALS);
            row_key.extend_from_slice(value.as_bytes());
        }
        By::Followed(instance) => {
            row_key.push(5);
            append(instance, &mut row_key);
        }
    }
    row_key.push(END);
    row_key
}

fn append(instance: &InstanceId, into: &mut Vec<u8>) {
    into.extend_from_slice(instance.service.as_str().as_bytes());
    into.push(END);
    into.extend_from_slice(instance.id.as_str().as_bytes());
}

/// The row keys by which an instance is found.
pub(crate) fn row_keys(id: &InstanceId, definition: &InstanceDefinition) -> Vec<Vec<u8>> {
    let node = (!definition.node.is_empty()).then_some(By::Node(&definition.node));
    let tags = definition.tags.iter().map(|tag| By::Tag(tag));
    let items = definition.metadata.iter().map(|item| By::Metadata(&item.name, &item.value));
    let all = node.into_iter().chain(tags).chain(items);
    let row_key = |by| {
        let mut row_key = row_key(&id.namespace, &by);
        append(id, &mut row_key);
        row_key
    };
    all.map(row_key).collect()
}

/// The row key by which an alias check is found.
pub(crate) fn follower_row_key(instance: &InstanceId, check_row_key: &[u8]) -> Vec<u8> {
    let mut row_key = row_key(&instance.namespace, &By::Followed(instance));
    row_key.extend_from_slice(&check_row_key[instance.namespace.as_str().len() + 1..]);
    row_key
}

/// Brings the index up to date with an instance's definition.
pub(super) fn change(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    id: &InstanceId,
    old: Option<&InstanceDefinition>,
    new: Option<&InstanceDefinition>,
) -> Result<(), StateError> {
    let row_keys = |definition: Option<&InstanceDefinition>| {
        definition.map_or_else(Vec::new, |definition| row_keys(id, definition))
    };
    let (before, after) = (row_keys(old), row_keys(new));
    for row_key in before.iter().filter(|row_key| !after.contains(row_key)) {
        tables.found.delete(txn, row_key)?;
    }
    for row_key in after.iter().filter(|row_key| !before.contains(row_key)) {
        tables.found.put(txn, row_key, &[])?;
    }
    let node = |definition: Option<&InstanceDefinition>| definition.map(|d| d.node.clone());
    let (left, joined) = (node(old).unwrap_or_default(), node(new).unwrap_or_default());
    if left != joined {
        for (name, is_there) in [(left, false), (joined, true)] {
            if !name.is_empty() {
                count(tables, txn, &id.namespace, &By::Node(&name), is_there)?;
            }
        }
    }
    Ok(())
}

/// An alias check follows an instance, or does no longer.
pub(super) fn follow(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    instance: &InstanceId,
    check_row_key: &[u8],
    is_there: bool,
) -> Result<(), StateError> {
    let row_key = follower_row_key(instance, check_row_key);
    match is_there {
        true => tables.found.put(txn, &row_key, &[])?,
        false => drop(tables.found.delete(txn, &row_key)?),
    }
    Ok(())
}

/// Counts one more, or one less.
pub(super) fn count(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    namespace: &Namespace,
    by: &By<'_>,
    is_there: bool,
) -> Result<(), StateError> {
    let row_key = row_key(namespace, by);
    let before = number(tables.found.get(txn, &row_key)?)?;
    let after = if is_there { before + 1 } else { before.saturating_sub(1) };
    match after {
        0 => drop(tables.found.delete(txn, &row_key)?),
        _ => tables.found.put(txn, &row_key, &after.to_be_bytes())?,
    }
    Ok(())
}

/// How many there are.
pub(crate) fn counted(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    by: &By<'_>,
) -> Result<u64, StateError> {
    number(tables.found.get(txn, &row_key(namespace, by))?)
}

fn number(row: Option<&[u8]>) -> Result<u64, StateError> {
    let Some(row) = row else { return Ok(0) };
    row.try_into().map(u64::from_be_bytes).map_err(|_| malformed())
}

/// The instances that are found by something, after one of them, in order, at most `most`.
pub(crate) fn instances(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    by: &By<'_>,
    after: Option<&InstanceId>,
    most: usize,
) -> Result<Vec<InstanceId>, StateError> {
    let prefix = row_key(namespace, by);
    let mut from = prefix.clone();
    if let Some(after) = after {
        append(after, &mut from);
    }
    let mut instances = Vec::new();
    for row in behind(tables, txn, &from)?.take(most) {
        let (row_key, _) = row?;
        let Some(name) = row_key.strip_prefix(&prefix[..]) else { break };
        let name = std::str::from_utf8(name).map_err(|_| malformed())?;
        let (service, id) = name.split_once('\0').ok_or_else(malformed)?;
        let (service, id) = (Label::trusted(service), Ident::trusted(id));
        instances.push(InstanceId { namespace: namespace.clone(), service, id });
    }
    Ok(instances)
}

/// The alias checks that follow an instance.
pub(crate) fn followers(
    tables: &Tables,
    txn: &RoTxn<'_>,
    instance: &InstanceId,
) -> Result<Vec<CheckId>, StateError> {
    let prefix = row_key(&instance.namespace, &By::Followed(instance));
    let mut followers = Vec::new();
    for row in behind(tables, txn, &prefix)? {
        let (row_key, _) = row?;
        let Some(tail) = row_key.strip_prefix(&prefix[..]) else { break };
        let check = [instance.namespace.as_str().as_bytes(), &[END], tail].concat();
        followers.push(check::parse_row_key(&check)?);
    }
    Ok(followers)
}

/// The rows behind a row key.
fn behind<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_>,
    from: &[u8],
) -> Result<impl Iterator<Item = Row<'t>> + use<'t>, StateError> {
    Ok(tables.found.range(txn, &(Bound::Excluded(from), Bound::Unbounded))?)
}

fn malformed() -> StateError {
    StateError::corrupt(TABLE.name, "a row is malformed")
}
