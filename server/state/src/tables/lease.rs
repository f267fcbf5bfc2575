//! `lease`: the leases. Row key: namespace, NUL, id (u64, big-endian). Row: the link of the last change, the record.
//!
//! Invariant: every lease that a row of `kv`, `claim` or `instance` names is here. How long one has left is nowhere in the state: the
//! leader knows.

use super::{Db, ObjectTable, TableSpec, Tables, kv::END};
use crate::batch::{Change, LeaseChange};
use crate::command::LeaseRecord;
use crate::error::StateError;
use crate::ids::{LeaseId, Namespace};

/// The table.
pub const TABLE: TableSpec = TableSpec { number: 8, name: "lease" };

pub(crate) struct Lease;

impl ObjectTable for Lease {
    const SPEC: TableSpec = TABLE;
    type Key = (Namespace, LeaseId);
    type Record = LeaseRecord;

    fn db(tables: &Tables) -> Db {
        tables.lease
    }

    fn encode_key((namespace, id): &Self::Key, into: &mut Vec<u8>) {
        into.extend_from_slice(namespace.as_str().as_bytes());
        into.push(END);
        into.extend_from_slice(&id.0.to_be_bytes());
    }

    fn decode_key(row_key: &[u8]) -> Result<Self::Key, StateError> {
        parse_row_key(row_key)
    }

    fn change((namespace, id): Self::Key, before: Option<LeaseRecord>, after: Option<LeaseRecord>) -> Change {
        Change::Lease(LeaseChange { namespace, id, before, after })
    }
}

/// The lease that a row key names.
pub(crate) fn parse_row_key(row_key: &[u8]) -> Result<(Namespace, LeaseId), StateError> {
    let malformed = || StateError::corrupt(TABLE.name, "a row key is malformed");
    let at = row_key.len().checked_sub(8).ok_or_else(malformed)?;
    let (namespace, id) = row_key.split_at(at);
    let namespace = namespace.strip_suffix(&[END]).and_then(|name| std::str::from_utf8(name).ok());
    let id = id.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let namespace = Namespace::parse(namespace.ok_or_else(malformed)?).map_err(|_| malformed())?;
    Ok((namespace, LeaseId(id)))
}
