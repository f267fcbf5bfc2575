//! `history`: every change that is not trimmed yet, and `history_by_key`, which finds the changes of one row.
//!
//! Row key of `history`: revision (u64), place within it (u32), both big-endian; record: [`ChangeRecord`].
//! Row key of `history_by_key`: number of the changed table (u16), the changed row's key, NUL, revision
//! (u64), all big-endian; its value is the place (u32).
//!
//! Invariants: revisions are dense from the first row to the store's revision; each row of one table has
//! exactly one in the other; no object row changes twice within one revision.

use bytes::Bytes;
use heed::RoTxn;
use prost::Message;

use super::kv::END;
use super::{TableSpec, Tables};
use crate::command::ChangeRecord;
use crate::error::StateError;
use crate::ids::Revision;

/// The changes, by revision.
pub const TABLE: TableSpec = TableSpec { number: 3, name: "history" };
/// Where the changes of a row are. Derived from `history`, so not part of the state hash.
pub const BY_KEY: TableSpec = TableSpec { number: 4, name: "history_by_key" };

/// Bytes of a row key of `history`.
pub(crate) const ROW_KEY_BYTES: usize = 12;

pub(crate) fn row_key(revision: Revision, place: u32) -> [u8; ROW_KEY_BYTES] {
    let mut key = [0; ROW_KEY_BYTES];
    key[..8].copy_from_slice(&revision.0.to_be_bytes());
    key[8..].copy_from_slice(&place.to_be_bytes());
    key
}

pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<(Revision, u32), StateError> {
    let malformed = || StateError::corrupt(TABLE.name, "a row key is malformed");
    let (revision, place) = row_key.split_first_chunk::<8>().ok_or_else(malformed)?;
    let place = place.try_into().map_err(|_| malformed())?;
    Ok((Revision(u64::from_be_bytes(*revision)), u32::from_be_bytes(place)))
}

/// Appends the part of a `history_by_key` row key that all changes of one row share.
pub(crate) fn by_key_prefix(table: u16, row_key: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&table.to_be_bytes());
    into.extend_from_slice(row_key);
    into.push(END);
}

/// The changed row's key and the revision of a `history_by_key` row key.
pub(crate) fn parse_by_key(by_key: &[u8]) -> Result<(&[u8], Revision), StateError> {
    let malformed = || StateError::corrupt(BY_KEY.name, "a row key is malformed");
    let (rest, revision) = by_key.split_last_chunk::<8>().ok_or_else(malformed)?;
    let row_key = rest.get(2..rest.len().saturating_sub(1)).ok_or_else(malformed)?;
    Ok((row_key, Revision(u64::from_be_bytes(*revision))))
}

/// The change at a place.
pub(crate) fn change(
    tables: &Tables,
    txn: &RoTxn<'_>,
    revision: Revision,
    place: &[u8],
) -> Result<ChangeRecord, StateError> {
    let malformed = || StateError::corrupt(BY_KEY.name, "a row's value is malformed");
    let place = u32::from_be_bytes(place.try_into().map_err(|_| malformed())?);
    let row = tables.history.get(txn, &row_key(revision, place))?;
    let row = row.ok_or_else(|| {
        StateError::corrupt(BY_KEY.name, format!("change {place} of revision {revision} is not in history"))
    })?;
    decode(row)
}

pub(crate) fn decode(row: &[u8]) -> Result<ChangeRecord, StateError> {
    // One copy for the whole record; its keys and rows are slices of it.
    ChangeRecord::decode(Bytes::copy_from_slice(row))
        .map_err(|e| StateError::corrupt(TABLE.name, e.to_string()))
}
