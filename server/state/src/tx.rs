//! The only writer. [`Rows`] is the LMDB transaction of a whole run of entries; [`Tx`] is one Command in it,
//! and records the Change of every row it puts or deletes. A write without its Change can't be expressed.

use std::sync::Arc;

use bytes::Bytes;
use heed::{PutFlags, RwTxn};
use prost::Message;

use crate::batch::{Batch, Change};
use crate::command::{ChangeRecord, Progress};
use crate::error::StateError;
use crate::hash::StateHash;
use crate::ids::{LogPosition, Revision};
use crate::store::Store;
use crate::tables::{self, ObjectTable, Tables, history, meta};

/// The transaction of a run of entries, and the counters that are written back when it commits.
pub(crate) struct Rows<'s> {
    pub(crate) txn: RwTxn<'s>,
    pub(crate) tables: Tables,
    pub(crate) progress: Progress,
    pub(crate) hash: StateHash,
    scratch: Vec<u8>,
}

impl<'s> Rows<'s> {
    pub(crate) fn begin(store: &'s Store) -> Result<Self, StateError> {
        let txn = store.env.write_txn()?;
        let progress = meta::progress(&store.tables, &txn)?;
        let hash = hash_of(&progress)?;
        Ok(Self { txn, tables: store.tables, progress, hash, scratch: Vec::new() })
    }

    /// Moves on to the next log entry.
    ///
    /// # Errors
    /// [`StateError::OutOfOrder`] if it is not the next.
    pub(crate) fn advance(&mut self, to: LogPosition) -> Result<(), StateError> {
        // The first entry of a log has index 0 or 1, so an empty state takes either.
        let due = self.progress.index + 1;
        if to.index != due && !(self.progress.term == 0 && to.index == 0) {
            return Err(StateError::OutOfOrder { expected: due, got: to.index });
        }
        (self.progress.term, self.progress.leader, self.progress.index) = (to.term, to.leader, to.index);
        Ok(())
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.progress.revision)
    }

    pub(crate) fn commit(mut self) -> Result<(), StateError> {
        self.progress.hash = self.hash.to_bytes().to_vec().into();
        meta::put_progress(&self.tables, &mut self.txn, &self.progress)?;
        Ok(self.txn.commit()?)
    }

    /// Deletes the oldest change and its place by key.
    pub(crate) fn trim_change(&mut self, row_key: &[u8]) -> Result<(), StateError> {
        let Some(row) = self.tables.history.get(&self.txn, row_key)? else { return Ok(()) };
        self.hash.remove(history::TABLE.number.into(), row_key, row);
        self.progress.history_bytes -= (row_key.len() + row.len()) as u64;
        let change = history::decode(row)?;
        let (revision, _) = history::parse_row_key(row_key)?;
        self.scratch.clear();
        history::by_key_prefix(change.table as u16, &change.key, &mut self.scratch);
        self.scratch.extend_from_slice(&revision.0.to_be_bytes());
        self.tables.history_by_key.delete(&mut self.txn, &self.scratch)?;
        self.tables.history.delete(&mut self.txn, row_key)?;
        Ok(())
    }
}

/// The hash that a Progress carries.
pub(crate) fn hash_of(progress: &Progress) -> Result<StateHash, StateError> {
    if progress.hash.is_empty() {
        return Ok(StateHash::default());
    }
    StateHash::from_bytes(&progress.hash)
        .ok_or_else(|| StateError::corrupt("meta", "the state hash is malformed"))
}

/// One Command's writes, all under the next revision.
pub(crate) struct Tx<'r, 's> {
    rows: &'r mut Rows<'s>,
    revision: Revision,
    changes: Vec<Change>,
    bytes: usize,
}

impl<'r, 's> Tx<'r, 's> {
    pub(crate) fn begin(rows: &'r mut Rows<'s>) -> Self {
        let revision = rows.revision().next();
        Self { rows, revision, changes: Vec::new(), bytes: 0 }
    }

    /// The revision that this Command's changes take.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// State time in ms.
    pub(crate) fn time_ms(&self) -> u64 {
        self.rows.progress.time_ms
    }

    /// The rows as they are in this transaction.
    pub(crate) fn rows(&self) -> &Rows<'s> {
        self.rows
    }

    /// Reads a row, seeing this Command's writes.
    pub(crate) fn get<T: ObjectTable>(&mut self, key: &T::Key) -> Result<Option<T::Record>, StateError> {
        let rows = &mut *self.rows;
        rows.scratch.clear();
        T::encode_key(key, &mut rows.scratch);
        let row = T::db(&rows.tables).get(&rows.txn, &rows.scratch)?;
        row.map(|row| tables::decode(T::SPEC, Bytes::copy_from_slice(row))).transpose()
    }

    /// Replaces a row by what `next` makes of it (`None` deletes it) and records the Change. Returns what
    /// was there before. A row that is not there and is not made is no Change.
    pub(crate) fn update<T: ObjectTable>(
        &mut self,
        key: T::Key,
        next: impl FnOnce(Option<&T::Record>) -> Option<T::Record>,
    ) -> Result<Option<T::Record>, StateError>
    where
        T::Record: Clone,
    {
        let mut row_key = Vec::with_capacity(64);
        T::encode_key(&key, &mut row_key);
        let db = T::db(&self.rows.tables);
        let before_row = db.get(&self.rows.txn, &row_key)?.map(Bytes::copy_from_slice);
        let before = before_row.clone().map(|row| tables::decode::<T::Record>(T::SPEC, row)).transpose()?;
        let after = next(before.as_ref());
        let after_row = after.as_ref().map(|record| Bytes::from(record.encode_to_vec()));
        match &after_row {
            Some(row) => db.put(&mut self.rows.txn, &row_key, row)?,
            None if before_row.is_none() => return Ok(None),
            None => drop(db.delete(&mut self.rows.txn, &row_key)?),
        }
        let number = u32::from(T::SPEC.number);
        if let Some(row) = &before_row {
            self.rows.hash.remove(number, &row_key, row);
        }
        if let Some(row) = &after_row {
            self.rows.hash.add(number, &row_key, row);
        }
        self.record(T::SPEC.number, row_key, before_row, after_row)?;
        self.changes.push(T::change(key, before.clone(), after));
        Ok(before)
    }

    /// Appends a change to history.
    fn record(
        &mut self,
        table: u16,
        key: Vec<u8>,
        before: Option<Bytes>,
        after: Option<Bytes>,
    ) -> Result<(), StateError> {
        let place = self.changes.len() as u32;
        let rows = &mut *self.rows;
        rows.scratch.clear();
        history::by_key_prefix(table, &key, &mut rows.scratch);
        rows.scratch.extend_from_slice(&self.revision.0.to_be_bytes());
        rows.tables.history_by_key.put(&mut rows.txn, &rows.scratch, &place.to_be_bytes())?;

        let time_ms = rows.progress.time_ms;
        let record = ChangeRecord { table: table.into(), key: key.into(), before, after, time_ms };
        rows.scratch.clear();
        // Encoding into a Vec can't run out of room.
        record.encode_raw(&mut rows.scratch);
        let row_key = history::row_key(self.revision, place);
        rows.tables.history.put_with_flags(&mut rows.txn, PutFlags::APPEND, &row_key, &rows.scratch)?;
        rows.hash.add(history::TABLE.number.into(), &row_key, &rows.scratch);
        rows.progress.history_bytes += (row_key.len() + rows.scratch.len()) as u64;
        self.bytes += rows.scratch.len();
        Ok(())
    }

    /// Ends the Command: if it changed something it takes its revision, and this is its Batch.
    pub(crate) fn finish(self) -> Option<Arc<Batch>> {
        if self.changes.is_empty() {
            return None;
        }
        self.rows.progress.revision = self.revision.0;
        Some(Arc::new(Batch {
            revision: self.revision,
            time_ms: self.rows.progress.time_ms,
            changes: self.changes,
            bytes: self.bytes,
        }))
    }
}
