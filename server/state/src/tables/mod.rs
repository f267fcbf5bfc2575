//! All tables of the store, in one list, and the two kinds they come in.
//!
//! An *object table* holds what users see; `Tx` records a Change for every row of it that changes, and
//! readers can follow it; each row of one begins with the [`chain::Link`] of its last change. The others are
//! bookkeeping of the store itself. Numbers are never reused.

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{Database, DatabaseOpener, RwTxn, WithoutTls};

use crate::batch::Change;
use crate::error::StateError;

pub mod bound;
pub(crate) mod chain;
pub mod claim;
pub mod gone;
pub mod history;
pub mod idempotency;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod meta;

/// A table's name in LMDB and its number in records and hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Never reused, not even for a table that is gone.
    pub number: u16,
    /// The name of its LMDB database.
    pub name: &'static str,
}

/// Every table there is, in the order of [`Tables`].
pub const ALL: [TableSpec; 10] = [
    meta::TABLE,
    kv::TABLE,
    history::TABLE,
    gone::TABLE,
    idempotency::TABLE,
    idempotency::BY_AGE,
    lease::TABLE,
    bound::TABLE,
    lock::TABLE,
    claim::TABLE,
];

/// Room for tables to come, fixed because LMDB wants to know when it is opened.
pub(crate) const MAX_TABLES: u32 = 64;

/// An LMDB database of raw rows.
pub(crate) type Db = Database<'static, Raw, Raw>;

/// The open tables.
#[derive(Clone, Copy)]
pub(crate) struct Tables {
    pub(crate) meta: Db,
    pub(crate) kv: Db,
    pub(crate) history: Db,
    pub(crate) gone: Db,
    pub(crate) idempotency: Db,
    pub(crate) idempotency_by_age: Db,
    pub(crate) lease: Db,
    pub(crate) bound: Db,
    pub(crate) lock: Db,
    pub(crate) claim: Db,
}

impl From<[Db; ALL.len()]> for Tables {
    fn from(all: [Db; ALL.len()]) -> Self {
        let [meta, kv, history, gone, idempotency, idempotency_by_age, lease, bound, lock, claim] = all;
        Self { meta, kv, history, gone, idempotency, idempotency_by_age, lease, bound, lock, claim }
    }
}

impl Tables {
    /// All of them, in the order of [`ALL`].
    pub(crate) fn all(&self) -> [Db; ALL.len()] {
        let Self { meta, kv, history, gone, idempotency, idempotency_by_age, lease, bound, lock, claim } =
            *self;
        [meta, kv, history, gone, idempotency, idempotency_by_age, lease, bound, lock, claim]
    }
}

/// A table of what users see.
pub(crate) trait ObjectTable {
    /// The table.
    const SPEC: TableSpec;
    /// What names a row.
    type Key;
    /// What a row holds, behind its link.
    type Record: prost::Message + Default;

    /// The table among the open ones.
    fn db(tables: &Tables) -> Db;
    /// Appends the row's key, in an order that is the order of keys.
    fn encode_key(key: &Self::Key, into: &mut Vec<u8>);
    /// The Change of a row as readers see it.
    fn change(key: Self::Key, before: Option<Self::Record>, after: Option<Self::Record>) -> Change;

    /// Brings what is derived from the table up to date with a change of a row.
    fn reindex(
        _tables: &Tables,
        _txn: &mut RwTxn<'_>,
        _key: &Self::Key,
        _before: Option<&Self::Record>,
        _after: Option<&Self::Record>,
    ) -> Result<(), StateError> {
        Ok(())
    }
}

/// Makes the tables that are not there yet.
pub(crate) fn create<'e>(
    opener: &DatabaseOpener<'e, WithoutTls>,
    txn: &mut RwTxn<'e>,
) -> Result<[Database<'e, Raw, Raw>; ALL.len()], StateError> {
    let mut made = Vec::with_capacity(ALL.len());
    for table in ALL {
        made.push(opener.create_database::<Raw, Raw>(txn, Some(table.name))?);
    }
    made.try_into().map_err(|_| StateError::corrupt("meta", "the list of tables is not whole"))
}

/// Refuses a store of another format, and stamps a new one.
pub(crate) fn check_format<'e>(
    [meta, ..]: &[Database<'e, Raw, Raw>; ALL.len()],
    txn: &mut RwTxn<'e>,
) -> Result<(), StateError> {
    meta::check_format(meta, txn)
}

/// Decodes the record of a row.
pub(crate) fn decode<M: prost::Message + Default>(table: TableSpec, row: Bytes) -> Result<M, StateError> {
    M::decode(row).map_err(|e| StateError::corrupt(table.name, format!("a row does not decode: {e}")))
}

/// Decodes a change of any object table. One arm a table.
pub(crate) fn decode_change(
    number: u32,
    key: &[u8],
    before: Option<Bytes>,
    after: Option<Bytes>,
) -> Result<Change, StateError> {
    match number {
        n if n == u32::from(kv::TABLE.number) => kv::decode_change(key, before, after),
        n if n == u32::from(lease::TABLE.number) => lease::decode_change(key, before, after),
        n if n == u32::from(lock::TABLE.number) => lock::decode_change(key, before, after),
        n if n == u32::from(claim::TABLE.number) => claim::decode_change(key, before, after),
        unknown => {
            Err(StateError::corrupt(history::TABLE.name, format!("a change is of unknown table {unknown}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (i, a) in ALL.iter().enumerate() {
            for b in &ALL[i + 1..] {
                assert_ne!(a.number, b.number);
                assert_ne!(a.name, b.name);
            }
        }
    }
}
