//! `lock`: what the claims on a lock have in common. Row key: namespace, NUL, kind (one byte), name. Row: the link of the last
//! change, the record. A lock that nobody claims, and that is not held back, has no row.
//!
//! Invariants: `shared`, `exclusive` and `waiting` count its rows in `claim`; either nobody shares it, or nobody holds it
//! alone; `exclusive <= limit`; `value_bytes` is the sum of its claims' values.

use bytes::Bytes;
use heed::RoTxn;

use super::chain::Link;
use super::{Db, ObjectTable, TableSpec, Tables, decode, kv::END};
use crate::batch::{Change, LockChange};
use crate::command::{LockKind, LockRecord};
use crate::error::StateError;
use crate::ids::{Key, LockId, Namespace};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 10, name: "lock" };

pub(crate) struct Lock;

impl ObjectTable for Lock {
    const SPEC: TableSpec = TABLE;
    type Key = LockId;
    type Record = LockRecord;

    fn db(tables: &Tables) -> Db {
        tables.lock
    }

    fn encode_key(lock: &Self::Key, into: &mut Vec<u8>) {
        row_key(lock, into);
    }

    fn decode_key(row_key: &[u8]) -> Result<LockId, StateError> {
        parse_row_key(row_key)
    }

    fn change(lock: LockId, before: Option<LockRecord>, after: Option<LockRecord>) -> Change {
        Change::Lock(LockChange { lock, before, after })
    }
}

/// A lock that somebody claims.
pub(crate) fn get(tables: &Tables, txn: &RoTxn<'_>, lock: &LockId) -> Result<Option<LockRecord>, StateError> {
    let mut key = Vec::with_capacity(96);
    row_key(lock, &mut key);
    let Some(row) = tables.lock.get(txn, &key)? else { return Ok(None) };
    decode(TABLE, Bytes::copy_from_slice(Link::split(row)?.1)).map(Some)
}

/// Appends the row key of a lock.
pub(crate) fn row_key(lock: &LockId, into: &mut Vec<u8>) {
    into.extend_from_slice(lock.namespace.as_str().as_bytes());
    into.push(END);
    into.push(lock.kind as u8);
    into.extend_from_slice(lock.name.as_str().as_bytes());
}

/// The lock that a row key names.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<LockId, StateError> {
    parse(row_key).ok_or_else(|| StateError::corrupt(TABLE.name, "a row key is malformed"))
}

fn parse(row_key: &[u8]) -> Option<LockId> {
    let end = row_key.iter().position(|b| *b == END)?;
    let (kind, name) = row_key[end + 1..].split_first()?;
    Some(LockId {
        namespace: Namespace::parse(std::str::from_utf8(&row_key[..end]).ok()?).ok()?,
        kind: LockKind::try_from(i32::from(*kind)).ok()?,
        name: Key::parse(std::str::from_utf8(name).ok()?).ok()?,
    })
}
