//! Reads of the state. A [`View`] is one LMDB read transaction: consistent, cheap to open, and to be dropped
//! after a page, because pages that it sees can't be reused.

use std::sync::Arc;

use bytes::Bytes;
use heed::{RoTxn, WithoutTls};

use crate::batch::Batch;
use crate::command::{KvRecord, Progress};
use crate::error::{ReadError, StateError};
use crate::hash::StateHash;
use crate::ids::{Key, LogPosition, Namespace, Revision};
use crate::store::Store;
use crate::tables::{self, history, idempotency, kv};
use crate::tx::hash_of;

mod changes;
mod list;
mod walk;

pub use changes::{KvVersion, Versions, VersionsQuery};
pub use list::{Count, Cursor, Item, ListQuery, Listing};

/// One consistent sight of the state.
pub struct View {
    store: Arc<Store>,
    txn: RoTxn<'static, WithoutTls>,
    progress: Progress,
}

/// Which way a listing runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest on.
    Ascending,
    /// From the greatest on.
    Descending,
}

impl View {
    pub(crate) fn new(store: Arc<Store>, txn: RoTxn<'static, WithoutTls>, progress: Progress) -> Self {
        Self { store, txn, progress }
    }

    /// The store's revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.progress.revision)
    }

    /// History up to and including this revision is compacted. The state as it was at this revision can
    /// still be read; what changed at or before it cannot.
    #[must_use]
    pub fn compact_revision(&self) -> Revision {
        Revision(self.progress.compact_revision)
    }

    /// The last log entry applied.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        let p = &self.progress;
        LogPosition { term: p.term, leader: p.leader, index: p.index }
    }

    /// State time: the greatest time a Command carried, in ms since 1970.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.progress.time_ms
    }

    /// Bytes of keys and records in history, trimmed or not yet.
    #[must_use]
    pub fn history_bytes(&self) -> u64 {
        self.progress.history_bytes
    }

    /// The hash of the whole state.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when the one that is stored is malformed.
    pub fn hash(&self) -> Result<StateHash, StateError> {
        hash_of(&self.progress)
    }

    /// Number of KV entries in all namespaces.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn entries(&self) -> Result<u64, StateError> {
        Ok(self.store.tables.kv.len(&self.txn)?)
    }

    /// Number of outcomes remembered for idempotency keys.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn outcomes(&self) -> Result<u64, StateError> {
        Ok(self.store.tables.idempotency.len(&self.txn)?)
    }

    /// Whether the outcome of a caller's Command with this idempotency key is remembered, so that a retry adds
    /// nothing to the store.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn remembers(&self, caller: &str, idempotency_key: &str) -> Result<bool, StateError> {
        let row_key = idempotency::row_key(caller, idempotency_key);
        Ok(self.store.tables.idempotency.get(&self.txn, &row_key)?.is_some())
    }

    /// Bytes of the state's file that hold data.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn used_bytes(&self) -> Result<u64, StateError> {
        let t = &self.store.tables;
        let mut bytes = 0;
        for db in [t.meta, t.kv, t.history, t.history_by_key, t.idempotency, t.idempotency_by_age] {
            let stat = db.stat(&self.txn)?;
            let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            bytes += (pages * stat.page_size as usize) as u64;
        }
        Ok(bytes)
    }

    /// Reads an entry, now or as it was at a past revision.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] and [`ReadError::Future`] for a revision that can't be read.
    pub fn kv_get(
        &self,
        namespace: &Namespace,
        key: &Key,
        at: Option<Revision>,
    ) -> Result<Option<KvRecord>, ReadError> {
        let mut row_key = Vec::with_capacity(64);
        kv::row_key(namespace, key.as_str().as_bytes(), &mut row_key);
        let at = self.readable(at)?;
        Ok(self.row_at(&row_key, at)?.map(|row| tables::decode(kv::TABLE, row)).transpose()?)
    }

    /// Checks that a revision can be read; `None` stands for the present.
    pub(crate) fn readable(&self, at: Option<Revision>) -> Result<Option<Revision>, ReadError> {
        let Some(revision) = at else { return Ok(None) };
        if revision > self.revision() {
            return Err(ReadError::Future { revision, current: self.revision() });
        }
        if revision < self.compact_revision() {
            return Err(ReadError::Compacted { revision, compact_revision: self.compact_revision() });
        }
        Ok((revision < self.revision()).then_some(revision))
    }

    /// A `kv` row as it was after a revision: as it was before the first change that came later, or as it is.
    fn row_at(&self, row_key: &[u8], at: Option<Revision>) -> Result<Option<Bytes>, StateError> {
        if let Some(at) = at
            && let Some((revision, place)) = self.first_change_after(row_key, at)?
        {
            return Ok(history::change(&self.store.tables, &self.txn, revision, &place)?.before);
        }
        Ok(self.store.tables.kv.get(&self.txn, row_key)?.map(Bytes::copy_from_slice))
    }

    fn first_change_after(
        &self,
        row_key: &[u8],
        at: Revision,
    ) -> Result<Option<(Revision, [u8; 4])>, StateError> {
        let mut from = Vec::with_capacity(row_key.len() + 16);
        history::by_key_prefix(kv::TABLE.number, row_key, &mut from);
        let prefix_len = from.len();
        from.extend_from_slice(&at.next().0.to_be_bytes());
        let found = self.store.tables.history_by_key.get_greater_than_or_equal_to(&self.txn, &from)?;
        match found {
            Some((by_key, place))
                if by_key.len() == from.len() && by_key[..prefix_len] == from[..prefix_len] =>
            {
                let place = place
                    .try_into()
                    .map_err(|_| StateError::corrupt("history_by_key", "a malformed place"))?;
                Ok(Some((history::parse_by_key(by_key)?.1, place)))
            }
            _ => Ok(None),
        }
    }

    /// The Batches from a revision on, whole ones, until about `max_bytes` are reached: at least one, if there is
    /// one. Empty when `from` is after the store's revision.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] when `from` is at or below the compacted revision.
    pub fn batches(&self, from: Revision, max_bytes: usize) -> Result<Vec<Arc<Batch>>, ReadError> {
        if from <= self.compact_revision() {
            return Err(ReadError::Compacted { revision: from, compact_revision: self.compact_revision() });
        }
        Ok(changes::batches(&self.store.tables, &self.txn, from, max_bytes)?)
    }

    /// The greatest revision whose changes were committed at or before a state time; the compacted revision
    /// if there is none.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn revision_at(&self, time_ms: u64) -> Result<Revision, StateError> {
        let (mut low, mut high) = (self.progress.compact_revision, self.progress.revision);
        // Revisions are dense and time never goes back, so the place can be halved towards.
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let row = self.store.tables.history.get(&self.txn, &history::row_key(Revision(middle), 0))?;
            let row = row.ok_or_else(|| {
                StateError::corrupt(history::TABLE.name, format!("revision {middle} has no change"))
            })?;
            match history::decode(row)?.time_ms <= time_ms {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        Ok(Revision(low))
    }
}
