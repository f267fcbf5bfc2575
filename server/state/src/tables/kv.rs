//! `kv`: the present entries. Row key: namespace, NUL, key. Neither may contain a NUL, so rows are ordered by
//! namespace, then by key, byte by byte. Row: the link of the last change, the record.
//!
//! Invariants: `create_revision <= mod_revision <=` the store's revision; `version >= 1`, and it is 1 exactly
//! when the two revisions are equal.

use heed::RwTxn;

use super::bound::{self, Thing};
use super::{Db, ObjectTable, TableSpec, Tables};
use crate::batch::{Change, KvChange};
use crate::command::{KeySpan, KvRecord};
use crate::error::StateError;
use crate::ids::{Key, LeaseId, Namespace};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 2, name: "kv" };

/// Ends the namespace, and other names that something follows in a row key.
pub(crate) const END: u8 = 0;

pub(crate) struct Kv;

impl ObjectTable for Kv {
    const SPEC: TableSpec = TABLE;
    type Key = (Namespace, Key);
    type Record = KvRecord;

    fn db(tables: &Tables) -> Db {
        tables.kv
    }

    fn encode_key((namespace, key): &Self::Key, into: &mut Vec<u8>) {
        row_key(namespace, key.as_str().as_bytes(), into);
    }

    fn decode_key(row_key: &[u8]) -> Result<Self::Key, StateError> {
        let malformed = |_| StateError::corrupt(TABLE.name, "a row key is malformed");
        let namespace = row_key.split(|b| *b == END).next().unwrap_or_default();
        let namespace = Namespace::parse(&String::from_utf8_lossy(namespace)).map_err(malformed)?;
        Ok((namespace, Key::parse(key_of(row_key)?).map_err(malformed)?))
    }

    fn change((namespace, key): Self::Key, before: Option<KvRecord>, after: Option<KvRecord>) -> Change {
        Change::Kv(KvChange { namespace, key, before, after })
    }

    fn reindex(
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        (namespace, key): &Self::Key,
        before: Option<&KvRecord>,
        after: Option<&KvRecord>,
    ) -> Result<(), StateError> {
        let weight = |record: &KvRecord| {
            let bytes = (key.as_str().len() + record.value.len()) as u64;
            (record.lease != 0).then_some((LeaseId(record.lease), bytes))
        };
        let weights = [before.and_then(weight), after.and_then(weight)];
        if weights == [None, None] {
            return Ok(());
        }
        bound::change(tables, txn, namespace, &Thing::Key(key.as_str()), weights, &[])
    }
}

/// Appends the row key of a key, or of any other point in the order of a namespace's keys.
pub(crate) fn row_key(namespace: &Namespace, key: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(namespace.as_str().as_bytes());
    into.push(END);
    into.extend_from_slice(key);
}

/// The row keys of a span: from the first, inclusive, to the second, exclusive.
pub(crate) fn row_bounds(namespace: &Namespace, span: &KeySpan) -> (Vec<u8>, Vec<u8>) {
    let mut from = Vec::with_capacity(96);
    row_key(namespace, span.start.as_bytes(), &mut from);
    let mut to = Vec::with_capacity(96);
    row_key(namespace, &span.end, &mut to);
    if span.end.is_empty() {
        // After the last key of the namespace: `namespace NUL` raised by one.
        let last = to.len() - 1;
        to[last] = END + 1;
    }
    (from, to)
}

/// The key within a row key.
pub(crate) fn key_of(row_key: &[u8]) -> Result<&str, StateError> {
    let end = row_key.iter().position(|b| *b == END);
    end.and_then(|end| std::str::from_utf8(&row_key[end + 1..]).ok())
        .ok_or_else(|| StateError::corrupt(TABLE.name, "a row key is malformed"))
}
