//! Reads of the state. A [`View`] is one LMDB read transaction: consistent, cheap to open, and to be dropped
//! after a page, because pages that it sees can't be reused.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use heed::{RoTxn, WithoutTls};

use crate::batch::Batch;
use crate::command::{ChangeRecord, KvRecord, Progress};
use crate::error::{ReadError, StateError};
use crate::hash::StateHash;
use crate::ids::{Key, LogPosition, Namespace, Revision};
use crate::store::Store;
use crate::tables::chain::{Link, Position};
use crate::tables::{self, Db, TableSpec, Tables, gone, history, idempotency, kv, meta};

mod catalog;
mod changes;
mod coordination;
mod list;
mod walk;

pub use crate::tables::found::By;
pub use catalog::{Paging, RowCursor, Rows};
pub use changes::{KvVersion, Versions, VersionsQuery};
pub use coordination::{LeaseHeld, LockHeld};
pub use list::{Count, Cursor, Item, ListQuery, Listing};

/// A row as LMDB hands it out.
pub(crate) type RawRow<'t> = heed::Result<(&'t [u8], &'t [u8])>;

/// One consistent sight of the state.
pub struct View {
    store: Arc<Store>,
    txn: RoTxn<'static, WithoutTls>,
    progress: Progress,
    /// Those of the state that is looked at.
    tables: Tables,
}

/// Where the chain of a row's changes begins, and the row's present record, if it is there.
pub(crate) struct Head<'t> {
    pub(crate) link: Link,
    pub(crate) record: Option<&'t [u8]>,
}

impl<'t> Head<'t> {
    /// Of a row that is there.
    pub(crate) fn present(row: &'t [u8]) -> Result<Self, StateError> {
        let (link, record) = Link::split(row)?;
        Ok(Self { link, record: Some(record) })
    }
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
    pub(crate) fn begin(store: Arc<Store>) -> Result<Self, StateError> {
        let txn = store.env.clone().static_read_txn()?;
        let progress = store.progress(&txn)?;
        let tables = store.sides.present(&progress);
        Ok(Self { store, txn, progress, tables })
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

    /// The last membership applied, in consensus' own encoding, and the position it was applied at.
    pub(crate) fn membership(&self) -> Result<Option<(LogPosition, Bytes)>, StateError> {
        meta::membership(&self.tables, &self.txn)
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
    #[must_use]
    pub fn hash(&self) -> StateHash {
        StateHash::of(&self.progress)
    }

    /// Number of KV entries in all namespaces.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn entries(&self) -> Result<u64, StateError> {
        Ok(self.tables.kv.len(&self.txn)?)
    }

    /// Number of outcomes remembered for idempotency keys.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn outcomes(&self) -> Result<u64, StateError> {
        Ok(self.tables.idempotency.len(&self.txn)?)
    }

    /// Whether the outcome of a caller's Command with this idempotency key is remembered, so that a retry adds
    /// nothing to the store.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn remembers(&self, caller: &str, idempotency_key: &str) -> Result<bool, StateError> {
        let row_key = idempotency::row_key(caller, idempotency_key);
        Ok(self.tables.idempotency.get(&self.txn, &row_key)?.is_some())
    }

    /// Bytes of the state's file that hold data, without what a restore has put together so far.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn used_bytes(&self) -> Result<u64, StateError> {
        self.bytes_of(self.tables.of_the_store().into_iter().chain(self.tables.of_a_side()))
    }

    /// Bytes of the state's file that hold what a restore has put together so far.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn staged_bytes(&self) -> Result<u64, StateError> {
        self.bytes_of(self.staged_tables().of_a_side())
    }

    fn bytes_of(&self, tables: impl IntoIterator<Item = Db>) -> Result<u64, StateError> {
        let mut bytes = 0;
        for db in tables {
            let stat = db.stat(&self.txn)?;
            let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            bytes += (pages * stat.page_size as usize) as u64;
        }
        Ok(bytes)
    }

    /// Bytes of keys and outcomes remembered for idempotency keys.
    pub(crate) fn outcome_bytes(&self) -> u64 {
        self.progress.idempotency_bytes
    }

    /// The same store's other state, as it will be when it is restored at a revision, if it is put together by this restore.
    pub(crate) fn into_staged(mut self, id: u64, revision: Revision) -> Option<Self> {
        let staged = self.progress.staged.filter(|staged| staged.id == id)?;
        self.tables = self.staged_tables();
        let progress = &mut self.progress;
        (progress.revision, progress.compact_revision) = (revision.0, revision.0);
        (progress.hash_high, progress.hash_low) = (staged.hash_high, staged.hash_low);
        (progress.history_bytes, progress.idempotency_bytes) = (0, staged.idempotency_bytes);
        Some(self)
    }

    /// How many rows of another state are put together, and their hash.
    pub(crate) fn staged_sum(&self) -> (u64, StateHash) {
        let staged = self.progress.staged.unwrap_or_default();
        (staged.rows, StateHash::from_halves((staged.hash_high, staged.hash_low)))
    }

    pub(crate) fn staged_tables(&self) -> Tables {
        self.store.sides.staged(&self.progress)
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The revision at which the whole state last became another one; 0 if it never did.
    #[must_use]
    pub fn restored_revision(&self) -> Revision {
        Revision(self.progress.restored_revision)
    }

    /// The restore that is under way, and for how much steady time nothing came in.
    #[must_use]
    pub fn restoring(&self) -> Option<(u64, Duration)> {
        let staged = self.progress.staged?;
        Some((staged.id, Duration::from_millis(self.progress.steady_ms.saturating_sub(staged.steady_ms))))
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// All rows of a table, as they are.
    pub(crate) fn raw(&self, db: Db) -> Result<impl Iterator<Item = RawRow<'_>>, StateError> {
        Ok(db.iter(&self.txn)?)
    }

    /// The rows of a table from a key on, as they are.
    pub(crate) fn raw_from(
        &self,
        db: Db,
        from: Bound<&[u8]>,
    ) -> Result<impl Iterator<Item = RawRow<'_>>, StateError> {
        Ok(db.range(&self.txn, &(from, Bound::Unbounded))?)
    }

    /// How many KV entries, leases, locks and remembered outcomes there are.
    pub(crate) fn counts(&self) -> Result<(u64, u64, u64, u64), StateError> {
        let Tables { kv, lease, lock, idempotency, .. } = self.tables;
        let len = |db: Db| db.len(&self.txn);
        Ok((len(kv)?, len(lease)?, len(lock)?, len(idempotency)?))
    }

    /// A row of a table, as it is.
    pub(crate) fn row(&self, db: Db, row_key: &[u8]) -> Result<Option<&[u8]>, StateError> {
        Ok(db.get(&self.txn, row_key)?)
    }

    /// The change at a position.
    pub(crate) fn change(&self, at: Position) -> Result<ChangeRecord, StateError> {
        history::change(&self.tables, &self.txn, at)
    }

    /// The last change of a row that is not there.
    pub(crate) fn gone(&self, table: TableSpec, row_key: &[u8]) -> Result<Option<Link>, StateError> {
        gone::get(&self.tables, &self.txn, table.number, row_key)
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
        let Some(head) = self.head(&row_key)? else { return Ok(None) };
        let changed = at.map_or(Ok(None), |at| self.change_after(&head, at))?;
        let record = match changed {
            Some(change) => change.before,
            None => head.record.map(Bytes::copy_from_slice),
        };
        Ok(record.map(|record| tables::decode(kv::TABLE, record)).transpose()?)
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

    /// The last change of a `kv` row, and its record; `None` if it is not there and its changes are trimmed.
    pub(crate) fn head(&self, row_key: &[u8]) -> Result<Option<Head<'_>>, StateError> {
        let tables = &self.tables;
        if let Some(row) = tables.kv.get(&self.txn, row_key)? {
            return Ok(Some(Head::present(row)?));
        }
        let link = gone::get(tables, &self.txn, kv::TABLE.number, row_key)?;
        Ok(link.map(|link| Head { link, record: None }))
    }

    /// The first change after a revision of a row.
    pub(crate) fn change_after(
        &self,
        head: &Head<'_>,
        at: Revision,
    ) -> Result<Option<ChangeRecord>, StateError> {
        let found = head.link.first_after(at, |at| self.link(at))?;
        found.map(|link| history::change(&self.tables, &self.txn, link.at)).transpose()
    }

    pub(crate) fn link(&self, at: Position) -> Result<Link, StateError> {
        history::link(&self.tables, &self.txn, at)
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
        Ok(changes::batches(&self.tables, &self.txn, from, max_bytes)?)
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
            let at = Position { revision: Revision(middle), place: 0 };
            let change = history::change(&self.tables, &self.txn, at)?;
            match change.time_ms <= time_ms {
                true => low = middle,
                false => high = middle - 1,
            }
        }
        Ok(Revision(low))
    }
}
