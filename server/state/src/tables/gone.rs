//! `gone`: where the chains of deleted rows begin, for whoever reads the past of a row that is not there.
//!
//! Row key: number of the row's table (u16, big-endian), the row's key; its value is the [`Link`] of the deletion.
//!
//! Invariant: a row of an object table has one here exactly if it is absent and its last change is not trimmed. So
//! this is derived from `history`, and not part of the state hash.

use heed::{RoTxn, RwTxn};

use super::chain::Link;
use super::{TableSpec, Tables};
use crate::error::StateError;

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 7, name: "gone" };

/// The row key of a row of an object table.
pub(crate) fn row_key(table: u16, row_key: &[u8]) -> Vec<u8> {
    [&table.to_be_bytes(), row_key].concat()
}

/// The key that a row key here is made of.
pub(crate) fn key_of(row_key: &[u8]) -> Result<&[u8], StateError> {
    row_key.get(2..).ok_or_else(|| StateError::corrupt(TABLE.name, "a row key is malformed"))
}

pub(crate) fn link(row: &[u8]) -> Result<Link, StateError> {
    match Link::split(row)? {
        (link, []) => Ok(link),
        _ => Err(StateError::corrupt(TABLE.name, "a row is malformed")),
    }
}

/// The last change of a row that is not there; `None` if it has none that is not trimmed.
pub(crate) fn get(
    tables: &Tables,
    txn: &RoTxn<'_>,
    table: u16,
    key: &[u8],
) -> Result<Option<Link>, StateError> {
    // Stores that never delete don't pay for those that do.
    if tables.gone.is_empty(txn)? {
        return Ok(None);
    }
    tables.gone.get(txn, &row_key(table, key))?.map(link).transpose()
}

pub(crate) fn put(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    table: u16,
    key: &[u8],
    link: &Link,
) -> Result<(), StateError> {
    let mut row = Vec::with_capacity(32);
    link.encode(&mut row);
    Ok(tables.gone.put(txn, &row_key(table, key), &row)?)
}

pub(crate) fn delete(tables: &Tables, txn: &mut RwTxn<'_>, table: u16, key: &[u8]) -> Result<(), StateError> {
    tables.gone.delete(txn, &row_key(table, key))?;
    Ok(())
}
