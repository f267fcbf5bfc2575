//! `history`: every change that is not trimmed yet.
//!
//! Row key: revision (u64), place within it (u32), both big-endian; row: the change's [`Link`] to the changes of the
//! same row before it, without its position, then its [`ChangeRecord`]. Following a chain reads links and no records.
//!
//! Invariants: revisions are dense from the first row to the store's revision; no object row changes twice within one
//! revision.

use bytes::Bytes;
use heed::RoTxn;
use prost::Message;

use super::chain::{Link, Position};
use super::{TableSpec, Tables};
use crate::command::ChangeRecord;
use crate::error::StateError;
use crate::ids::Revision;

/// The changes, by revision.
pub const TABLE: TableSpec = TableSpec { number: 3, name: "history" };

/// Bytes of a row key.
pub(crate) const ROW_KEY_BYTES: usize = 12;

pub(crate) fn row_key(at: Position) -> [u8; ROW_KEY_BYTES] {
    let mut key = [0; ROW_KEY_BYTES];
    key[..8].copy_from_slice(&at.revision.0.to_be_bytes());
    key[8..].copy_from_slice(&at.place.to_be_bytes());
    key
}

/// The row key of a revision's first change.
pub(crate) fn first_row_key(revision: Revision) -> [u8; ROW_KEY_BYTES] {
    row_key(Position { revision, place: 0 })
}

pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<Position, StateError> {
    let malformed = || StateError::corrupt(TABLE.name, "a row key is malformed");
    let (revision, place) = row_key.split_first_chunk::<8>().ok_or_else(malformed)?;
    let place = place.try_into().map_err(|_| malformed())?;
    Ok(Position { revision: Revision(u64::from_be_bytes(*revision)), place: u32::from_be_bytes(place) })
}

/// The link of the change at a position.
pub(crate) fn link(tables: &Tables, txn: &RoTxn<'_>, at: Position) -> Result<Link, StateError> {
    Ok(Link::split_without_position(at, row(tables, txn, at)?)?.0)
}

/// The change at a position.
pub(crate) fn change(tables: &Tables, txn: &RoTxn<'_>, at: Position) -> Result<ChangeRecord, StateError> {
    Ok(decode(at, row(tables, txn, at)?)?.1)
}

fn row<'t>(tables: &Tables, txn: &'t RoTxn<'_>, at: Position) -> Result<&'t [u8], StateError> {
    tables.history.get(txn, &row_key(at))?.ok_or_else(|| {
        let Position { revision, place } = at;
        StateError::corrupt(TABLE.name, format!("there is no change {place} of revision {revision}"))
    })
}

pub(crate) fn decode(at: Position, row: &[u8]) -> Result<(Link, ChangeRecord), StateError> {
    let (link, record) = Link::split_without_position(at, row)?;
    // One copy for the whole record; its keys and rows are slices of it.
    let record = ChangeRecord::decode(Bytes::copy_from_slice(record));
    Ok((link, record.map_err(|e| StateError::corrupt(TABLE.name, e.to_string()))?))
}
