//! Reads of leases and locks, as they are now.

use std::ops::Bound;

use bytes::Bytes;
use prost::Message;

use super::View;
use crate::command::{ClaimRecord, LeaseRecord, LockKind, LockRecord};
use crate::error::StateError;
use crate::ids::{LeaseId, LockId, Namespace};
use crate::tables::bound::{self, Load};
use crate::tables::chain::Link;
use crate::tables::{Db, ObjectTable, TableSpec, claim, decode, lease, lock};

/// A lease, as the state has it.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseHeld {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its id.
    pub id: LeaseId,
    /// What is known of it.
    pub record: LeaseRecord,
}

/// A lock that somebody claims, or that is held back.
#[derive(Debug, Clone, PartialEq)]
pub struct LockHeld {
    /// Which lock.
    pub lock: LockId,
    /// What its claims have in common.
    pub record: LockRecord,
}

impl View {
    /// A lease.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn lease(&self, namespace: &Namespace, id: LeaseId) -> Result<Option<LeaseRecord>, StateError> {
        self.record::<lease::Lease>(&(namespace.clone(), id))
    }

    /// How much is bound to a lease.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn lease_load(&self, namespace: &Namespace, id: LeaseId) -> Result<Load, StateError> {
        bound::load(&self.tables, &self.txn, namespace, id)
    }

    /// How many claims on locks are made under a lease.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn lease_claims(&self, namespace: &Namespace, id: LeaseId) -> Result<u64, StateError> {
        Ok(bound::claims(&self.tables, &self.txn, namespace, id)?.len() as u64)
    }

    /// The first keys that are bound to a lease, in order, at most `most`.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn lease_keys(
        &self,
        namespace: &Namespace,
        id: LeaseId,
        most: usize,
    ) -> Result<Vec<String>, StateError> {
        bound::keys(&self.tables, &self.txn, namespace, id, most)
    }

    /// The leases of a namespace, or of all, after one of them, in order, at most `most`.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn leases(
        &self,
        within: Option<&Namespace>,
        after: Option<(&Namespace, LeaseId)>,
        most: usize,
    ) -> Result<Vec<LeaseHeld>, StateError> {
        let after = after.map(|(namespace, id)| encoded::<lease::Lease>(&(namespace.clone(), id)));
        let rows = self.rows(self.tables.lease, lease::TABLE, within, &[], after, most)?;
        let parse = |(row_key, record): (Vec<u8>, LeaseRecord)| {
            let (namespace, id) = lease::parse_row_key(&row_key)?;
            Ok(LeaseHeld { namespace, id, record })
        };
        rows.into_iter().map(parse).collect()
    }

    /// A lock; `None` if it is free.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn lock(&self, lock: &LockId) -> Result<Option<LockRecord>, StateError> {
        self.record::<lock::Lock>(lock)
    }

    /// The locks that somebody claims or that are held back, of a namespace and kind or of all, after one of them, in order,
    /// at most `most`.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn locks(
        &self,
        within: Option<(&Namespace, LockKind)>,
        after: Option<&LockId>,
        most: usize,
    ) -> Result<Vec<LockHeld>, StateError> {
        let after = after.map(encoded::<lock::Lock>);
        let kind = within.map(|(_, kind)| kind as u8);
        let namespace = within.map(|(namespace, _)| namespace);
        let rows = self.rows(self.tables.lock, lock::TABLE, namespace, kind.as_slice(), after, most)?;
        let parse = |(row_key, record): (Vec<u8>, LockRecord)| {
            Ok(LockHeld { lock: lock::parse_row_key(&row_key)?, record })
        };
        rows.into_iter().map(parse).collect()
    }

    /// The claims on a lock with tokens greater than `after`, in order, at most `most`: those that hold it come before those
    /// that wait.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn claims(
        &self,
        lock: &LockId,
        after: u64,
        most: usize,
    ) -> Result<Vec<(u64, ClaimRecord)>, StateError> {
        claim::after(&self.tables, &self.txn, lock, after, most)
    }

    /// The claim that a lease has on a lock, with its token.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn claim_of(&self, lock: &LockId, lease: LeaseId) -> Result<Option<(u64, ClaimRecord)>, StateError> {
        let name = (lock.kind, lock.name.as_str());
        let Some(token) = bound::token(&self.tables, &self.txn, &lock.namespace, lease, name)? else {
            return Ok(None);
        };
        Ok(self.record::<claim::Claim>(&(lock.clone(), token))?.map(|claim| (token, claim)))
    }

    pub(super) fn record<T: ObjectTable>(&self, key: &T::Key) -> Result<Option<T::Record>, StateError> {
        let Some(row) = T::db(&self.tables).get(&self.txn, &encoded::<T>(key))? else {
            return Ok(None);
        };
        decode(T::SPEC, Bytes::copy_from_slice(Link::split(row)?.1)).map(Some)
    }

    /// Rows of a table whose keys begin with a namespace, NUL and `prefix`, after one of them.
    fn rows<R: Message + Default>(
        &self,
        db: Db,
        table: TableSpec,
        namespace: Option<&Namespace>,
        prefix: &[u8],
        after: Option<Vec<u8>>,
        most: usize,
    ) -> Result<Vec<(Vec<u8>, R)>, StateError> {
        let begin = namespace.map(|namespace| [namespace.as_str().as_bytes(), &[0], prefix].concat());
        let begin = begin.unwrap_or_default();
        let from = match &after {
            Some(after) => Bound::Excluded(&after[..]),
            // LMDB has no empty keys.
            None if begin.is_empty() => Bound::Unbounded,
            None => Bound::Included(&begin[..]),
        };
        let mut found = Vec::new();
        for row in db.range(&self.txn, &(from, Bound::Unbounded))?.take(most) {
            let (row_key, row) = row?;
            if !row_key.starts_with(&begin) {
                break;
            }
            let record = decode(table, Bytes::copy_from_slice(Link::split(row)?.1))?;
            found.push((row_key.to_vec(), record));
        }
        Ok(found)
    }
}

pub(super) fn encoded<T: ObjectTable>(key: &T::Key) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(64);
    T::encode_key(key, &mut row_key);
    row_key
}
