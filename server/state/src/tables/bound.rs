//! `bound`: what is bound to each lease, so that its end finds it.
//!
//! Row keys: namespace, NUL, lease id (u64, big-endian), then nothing for the row of the lease itself, whose value is the
//! number and the bytes of what is below it; or [`KEY`] and a key; or [`CLAIM`] and a lock's kind and name, whose value is
//! the claim's token; or [`INSTANCE`], a service, NUL and an id.
//!
//! Invariant: derived from `kv`, `claim` and `instance`, and not part of the state hash.

use std::ops::Bound;

use heed::{RoTxn, RwTxn};

use super::{TableSpec, Tables, kv::END};
use crate::command::{LockKind, MAX_RANGE_BYTES, MAX_RANGE_KEYS};
use crate::error::StateError;
use crate::ids::{Ident, InstanceId, Label, LeaseId, Namespace};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 9, name: "bound" };

const KEY: u8 = 1;
const CLAIM: u8 = 2;
const INSTANCE: u8 = 3;

/// How much is bound to a lease: keys, claims and instances, and the bytes of keys with their values, of what claims say, and of what
/// instances are registered with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Load {
    /// Whether it is as much as can be ended at once.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= MAX_RANGE_KEYS || self.bytes >= MAX_RANGE_BYTES
    }
}

/// A row as LMDB hands it out.
type Row<'t> = heed::Result<(&'t [u8], &'t [u8])>;

/// Something that is bound to a lease.
pub(crate) enum Thing<'a> {
    Key(&'a str),
    Claim(LockKind, &'a str),
    Instance(&'a InstanceId),
}

/// The row key of a lease.
fn lease_row_key(namespace: &Namespace, lease: LeaseId) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(96);
    row_key.extend_from_slice(namespace.as_str().as_bytes());
    row_key.push(END);
    row_key.extend_from_slice(&lease.0.to_be_bytes());
    row_key
}

fn row_key(namespace: &Namespace, lease: LeaseId, thing: &Thing<'_>) -> Vec<u8> {
    let mut row_key = lease_row_key(namespace, lease);
    match thing {
        Thing::Key(key) => {
            row_key.push(KEY);
            row_key.extend_from_slice(key.as_bytes());
        }
        Thing::Claim(kind, name) => {
            row_key.push(CLAIM);
            row_key.push(*kind as u8);
            row_key.extend_from_slice(name.as_bytes());
        }
        Thing::Instance(instance) => {
            row_key.push(INSTANCE);
            row_key.extend_from_slice(instance.service.as_str().as_bytes());
            row_key.push(END);
            row_key.extend_from_slice(instance.id.as_str().as_bytes());
        }
    }
    row_key
}

/// The row key of something that is bound to a lease, and that of the lease.
pub(crate) fn row_keys(namespace: &Namespace, lease: LeaseId, thing: &Thing<'_>) -> (Vec<u8>, Vec<u8>) {
    (row_key(namespace, lease, thing), lease_row_key(namespace, lease))
}

/// Adds one more thing to the row of a lease.
pub(crate) fn add(row: &mut [u8], bytes: u64) {
    let (count, sum) = row.split_at_mut(8);
    for (number, more) in [(count, 1), (sum, bytes)] {
        let value = number.iter().fold(0, |n, b| n << 8 | u64::from(*b)) + more;
        number.copy_from_slice(&value.to_be_bytes());
    }
}

/// How much is bound to a lease.
pub(crate) fn load(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    lease: LeaseId,
) -> Result<Load, StateError> {
    let Some(row) = tables.bound.get(txn, &lease_row_key(namespace, lease))? else {
        return Ok(Load::default());
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    match row.split_at_checked(8) {
        Some((count, bytes)) if bytes.len() == 8 => Ok(Load { count: number(count), bytes: number(bytes) }),
        _ => Err(malformed()),
    }
}

/// Enters what is bound, or takes it out, when the lease or the size of its record changes. `old` and `new` are the lease
/// and the size before and after; `value` is kept with it.
pub(crate) fn change(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    namespace: &Namespace,
    thing: &Thing<'_>,
    [old, new]: [Option<(LeaseId, u64)>; 2],
    value: &[u8],
) -> Result<(), StateError> {
    if old.map(|(lease, _)| lease) != new.map(|(lease, _)| lease) {
        if let Some((lease, _)) = old {
            tables.bound.delete(txn, &row_key(namespace, lease, thing))?;
        }
        if let Some((lease, _)) = new {
            tables.bound.put(txn, &row_key(namespace, lease, thing), value)?;
        }
    }
    if let Some((lease, bytes)) = old {
        weigh(tables, txn, namespace, lease, |load| Load {
            count: load.count - 1,
            bytes: load.bytes - bytes,
        })?;
    }
    if let Some((lease, bytes)) = new {
        weigh(tables, txn, namespace, lease, |load| Load {
            count: load.count + 1,
            bytes: load.bytes + bytes,
        })?;
    }
    Ok(())
}

fn weigh(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    namespace: &Namespace,
    lease: LeaseId,
    next: impl FnOnce(Load) -> Load,
) -> Result<(), StateError> {
    let load = next(load(tables, txn, namespace, lease)?);
    let row_key = lease_row_key(namespace, lease);
    match load.count {
        0 => {
            tables.bound.delete(txn, &row_key)?;
        }
        _ => {
            let row = [load.count.to_be_bytes(), load.bytes.to_be_bytes()].concat();
            tables.bound.put(txn, &row_key, &row)?;
        }
    }
    Ok(())
}

/// The first keys that are bound to a lease, in order, at most `most`.
pub(crate) fn keys(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    lease: LeaseId,
    most: usize,
) -> Result<Vec<String>, StateError> {
    let mut from = lease_row_key(namespace, lease);
    from.push(KEY);
    let mut keys = Vec::new();
    for row in below(tables, txn, &from, KEY)?.take(most) {
        let (row_key, _) = row?;
        keys.push(std::str::from_utf8(&row_key[from.len()..]).map_err(|_| malformed())?.to_owned());
    }
    Ok(keys)
}

/// The claims that are made under a lease: kind and name of the lock, and the claim's token.
pub(crate) fn claims(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    lease: LeaseId,
) -> Result<Vec<(LockKind, String, u64)>, StateError> {
    let mut from = lease_row_key(namespace, lease);
    from.push(CLAIM);
    let mut claims = Vec::new();
    for row in below(tables, txn, &from, CLAIM)? {
        let (row_key, token) = row?;
        let (kind, name) = row_key[from.len()..].split_first().ok_or_else(malformed)?;
        let kind = LockKind::try_from(i32::from(*kind)).map_err(|_| malformed())?;
        let name = std::str::from_utf8(name).map_err(|_| malformed())?.to_owned();
        claims.push((kind, name, parse_token(token)?));
    }
    Ok(claims)
}

/// The instances that end with a lease.
pub(crate) fn instances(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    lease: LeaseId,
) -> Result<Vec<InstanceId>, StateError> {
    let mut from = lease_row_key(namespace, lease);
    from.push(INSTANCE);
    let mut instances = Vec::new();
    for row in below(tables, txn, &from, INSTANCE)? {
        let (row_key, _) = row?;
        let name = std::str::from_utf8(&row_key[from.len()..]).map_err(|_| malformed())?;
        let (service, id) = name.split_once('\0').ok_or_else(malformed)?;
        let (service, id) = (Label::trusted(service), Ident::trusted(id));
        instances.push(InstanceId { namespace: namespace.clone(), service, id });
    }
    Ok(instances)
}

/// The token of the claim that a lease has on a lock.
pub(crate) fn token(
    tables: &Tables,
    txn: &RoTxn<'_>,
    namespace: &Namespace,
    lease: LeaseId,
    (kind, name): (LockKind, &str),
) -> Result<Option<u64>, StateError> {
    let row_key = row_key(namespace, lease, &Thing::Claim(kind, name));
    tables.bound.get(txn, &row_key)?.map(parse_token).transpose()
}

/// The rows that begin with `from`, whose last byte is `mark`.
fn below<'t>(
    tables: &Tables,
    txn: &'t RoTxn<'_>,
    from: &[u8],
    mark: u8,
) -> Result<impl Iterator<Item = Row<'t>> + use<'t>, StateError> {
    let mut to = from.to_vec();
    let last = to.len() - 1;
    to[last] = mark + 1;
    Ok(tables.bound.range(txn, &(Bound::Included(from), Bound::Excluded(&to[..])))?)
}

fn parse_token(value: &[u8]) -> Result<u64, StateError> {
    value.try_into().map(u64::from_be_bytes).map_err(|_| malformed())
}

fn malformed() -> StateError {
    StateError::corrupt(TABLE.name, "a row is malformed")
}
