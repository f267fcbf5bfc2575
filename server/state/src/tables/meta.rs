//! `meta`: the store's format, how far it has applied the log, and the cluster's membership.
//!
//! Invariants: one row a constant below; `progress` is rewritten in the same transaction as whatever it counts.

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{Database, RoTxn, RwTxn};
use prost::Message;

use super::{TableSpec, Tables};
use crate::command::Progress;
use crate::error::StateError;
use crate::ids::LogPosition;

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 1, name: "meta" };
/// Version of all tables' rows. Data with a greater one is refused; data with a smaller one is migrated, but for 1,
/// which no release has written.
pub const FORMAT: u32 = 2;

const KEY_FORMAT: &[u8] = b"format";
const KEY_PROGRESS: &[u8] = b"progress";
const KEY_MEMBERSHIP: &[u8] = b"membership";

/// Refuses a store of another format; `None` for a new one, which has none.
pub(crate) fn check_format<'e>(
    db: &Database<'e, Raw, Raw>,
    txn: &RoTxn<'e>,
) -> Result<Option<()>, StateError> {
    let Some(row) = db.get(txn, KEY_FORMAT)? else { return Ok(None) };
    let found = row.try_into().map(u32::from_be_bytes);
    match found.map_err(|_| StateError::corrupt(TABLE.name, "the format is not a number"))? {
        FORMAT => Ok(Some(())),
        0 => Err(StateError::corrupt(TABLE.name, "the format is 0")),
        1 => Err(StateError::Unreleased { found: 1 }),
        found => Err(StateError::Newer { found, known: FORMAT }),
    }
}

/// Stamps a new store.
pub(crate) fn put_format<'e>(db: &Database<'e, Raw, Raw>, txn: &mut RwTxn<'e>) -> Result<(), StateError> {
    Ok(db.put(txn, KEY_FORMAT, &FORMAT.to_be_bytes())?)
}

pub(crate) fn progress(tables: &Tables, txn: &RoTxn<'_>) -> Result<Progress, StateError> {
    match tables.meta.get(txn, KEY_PROGRESS)? {
        None => Ok(Progress::default()),
        Some(row) => Progress::decode(row).map_err(|e| StateError::corrupt(TABLE.name, e.to_string())),
    }
}

pub(crate) fn put_progress(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    progress: &Progress,
) -> Result<(), StateError> {
    Ok(tables.meta.put(txn, KEY_PROGRESS, &progress.encode_to_vec())?)
}

pub(crate) fn membership(
    tables: &Tables,
    txn: &RoTxn<'_>,
) -> Result<Option<(LogPosition, Bytes)>, StateError> {
    let Some(row) = tables.meta.get(txn, KEY_MEMBERSHIP)? else { return Ok(None) };
    let mut numbers = row.chunks_exact(8).take(3).map(|c| c.iter().fold(0, |n, b| n << 8 | u64::from(*b)));
    match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(term), Some(leader), Some(index)) => {
            Ok(Some((LogPosition { term, leader, index }, Bytes::copy_from_slice(&row[24..]))))
        }
        _ => Err(StateError::corrupt(TABLE.name, "the membership is cut off")),
    }
}

pub(crate) fn put_membership(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    at: LogPosition,
    membership: &[u8],
) -> Result<(), StateError> {
    let mut row = Vec::with_capacity(24 + membership.len());
    for number in [at.term, at.leader, at.index] {
        row.extend_from_slice(&number.to_be_bytes());
    }
    row.extend_from_slice(membership);
    Ok(tables.meta.put(txn, KEY_MEMBERSHIP, &row)?)
}
