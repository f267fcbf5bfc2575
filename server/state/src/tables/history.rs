//! `history`: every change that is not trimmed yet.
//!
//! Row key: revision (u64), place within it (u32), both big-endian; row: the change's [`Link`] to the changes of the
//! same row before it, without its position, then its [`ChangeRecord`]. Following a chain reads links and no records.
//!
//! Invariants: revisions are dense from the first row to the store's revision; no object row changes twice within one
//! revision, but for those of `lock` and `claim`, of which several leases may end together.

use bytes::Bytes;
use heed::RoTxn;
use prost::Message;
use prost::encoding::{self, WireType};

use super::chain::{Link, Position};
use super::{TableSpec, Tables};
use crate::command::ChangeRecord;
use crate::error::StateError;
use crate::ids::Revision;

/// The changes, by revision.
pub const TABLE: TableSpec = TableSpec { number: 3, name: "history" };

/// A change as it is written: the same bytes as a [`ChangeRecord`], made of what the writer has at hand.
pub(crate) struct NewChange<'c> {
    pub(crate) table: u16,
    pub(crate) key: &'c [u8],
    pub(crate) before: Option<&'c [u8]>,
    pub(crate) after: Option<&'c [u8]>,
    pub(crate) time_ms: u64,
}

impl NewChange<'_> {
    /// Appends the row.
    pub(crate) fn encode(&self, link: &Link, into: &mut Vec<u8>) {
        link.encode_without_position(into);
        encoding::uint32::encode(1, &self.table.into(), into);
        for (tag, bytes) in [(2, Some(self.key)), (3, self.before), (4, self.after)] {
            let Some(bytes) = bytes else { continue };
            encoding::encode_key(tag, WireType::LengthDelimited, into);
            encoding::encode_varint(bytes.len() as u64, into);
            into.extend_from_slice(bytes);
        }
        encoding::uint64::encode(5, &self.time_ms, into);
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_change_is_a_record() {
        let at = Position { revision: Revision(7), place: 1 };
        let link = Link::next(None, at, Revision(0), |_| panic!("there is nothing to read")).unwrap();
        for (before, after) in
            [(None, Some(&b"after"[..])), (Some(&b""[..]), Some(b"")), (Some(b"before"), None)]
        {
            let new = NewChange { table: 2, key: b"key", before, after, time_ms: 300 };
            let mut row = Vec::new();
            new.encode(&link, &mut row);
            let record = ChangeRecord {
                table: 2,
                key: Bytes::from_static(b"key"),
                before: before.map(Bytes::copy_from_slice),
                after: after.map(Bytes::copy_from_slice),
                time_ms: 300,
            };
            assert_eq!(decode(at, &row).unwrap(), (link, record.clone()));
            assert!(row.ends_with(&record.encode_to_vec()));
        }
    }
}
