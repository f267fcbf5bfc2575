//! `claim`: who holds a lock, and who waits for it in which order. Row key: that of the lock, NUL, the claim's token (u64,
//! big-endian). Row: the link of the last change, the record.
//!
//! A claim's token is the revision that made it. Claims are granted in the order of their tokens, so each grant's is
//! greater than all before it, of this lock and of every earlier one of its name: a fencing token.
//!
//! Invariants: a lease has at most one claim on a lock; those with tokens up to the lock's `granted_upto` are granted, the
//! others wait.

use std::ops::Bound;

use bytes::Bytes;
use heed::{RoTxn, RwTxn};

use super::bound::{self, Thing};
use super::chain::Link;
use super::{Db, ObjectTable, TableSpec, Tables, decode, kv::END, lock};
use crate::batch::{Change, ClaimChange};
use crate::command::ClaimRecord;
use crate::error::StateError;
use crate::ids::{LeaseId, LockId};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 11, name: "claim" };

pub(crate) struct Claim;

impl ObjectTable for Claim {
    const SPEC: TableSpec = TABLE;
    type Key = (LockId, u64);
    type Record = ClaimRecord;

    fn db(tables: &Tables) -> Db {
        tables.claim
    }

    fn encode_key((lock, token): &Self::Key, into: &mut Vec<u8>) {
        lock::row_key(lock, into);
        into.push(END);
        into.extend_from_slice(&token.to_be_bytes());
    }

    fn decode_key(row_key: &[u8]) -> Result<Self::Key, StateError> {
        parse_row_key(row_key)
    }

    fn change((lock, token): Self::Key, before: Option<ClaimRecord>, after: Option<ClaimRecord>) -> Change {
        Change::Claim(ClaimChange { lock, token, before, after })
    }

    fn reindex(
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        (lock, token): &Self::Key,
        before: Option<&ClaimRecord>,
        after: Option<&ClaimRecord>,
    ) -> Result<(), StateError> {
        let weight = |record: &ClaimRecord| (LeaseId(record.lease), record.value.len() as u64);
        let thing = Thing::Claim(lock.kind, lock.name.as_str());
        let weights = [before.map(weight), after.map(weight)];
        bound::change(tables, txn, &lock.namespace, &thing, weights, &token.to_be_bytes())
    }
}

/// The claims on a lock with tokens greater than `after`, in order, at most `most`.
pub(crate) fn after(
    tables: &Tables,
    txn: &RoTxn<'_>,
    lock: &LockId,
    after: u64,
    most: usize,
) -> Result<Vec<(u64, ClaimRecord)>, StateError> {
    let (mut from, mut to) = (Vec::with_capacity(96), Vec::with_capacity(96));
    Claim::encode_key(&(lock.clone(), after), &mut from);
    Claim::encode_key(&(lock.clone(), u64::MAX), &mut to);
    let mut claims = Vec::new();
    for row in tables.claim.range(txn, &(Bound::Excluded(&from[..]), Bound::Included(&to[..])))?.take(most) {
        let (row_key, row) = row?;
        let (_, token) = parse_row_key(row_key)?;
        claims.push((token, decode(TABLE, Bytes::copy_from_slice(Link::split(row)?.1))?));
    }
    Ok(claims)
}

/// The claim that a row key names: its lock and its token.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<(LockId, u64), StateError> {
    let malformed = || StateError::corrupt(TABLE.name, "a row key is malformed");
    let at = row_key.len().checked_sub(8).ok_or_else(malformed)?;
    let (name, token) = row_key.split_at(at);
    let name = name.strip_suffix(&[END]).ok_or_else(malformed)?;
    let token = token.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    Ok((lock::parse_row_key(name).map_err(|_| malformed())?, token))
}
