//! The only writer. [`Rows`] is the LMDB transaction of a whole run of entries; [`Tx`] is one Command in it,
//! and records the Change of every row it puts or deletes. A write without its Change can't be expressed.

use std::sync::Arc;

use bytes::Bytes;
use heed::{PutFlags, RwTxn};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::batch::{Batch, Change};
use crate::command::Progress;
use crate::error::StateError;
use crate::hash::StateHash;
use crate::ids::{LogPosition, Revision};
use crate::store::Store;
use crate::tables::chain::{Link, Position};
use crate::tables::history::NewChange;
use crate::tables::{self, ObjectTable, Sides, TableSpec, Tables, gone, history, meta};

/// The transaction of a run of entries, and the counters that are written back when it commits.
pub(crate) struct Rows<'s> {
    pub(crate) txn: RwTxn<'s>,
    pub(crate) sides: Sides,
    /// Those of the present state.
    pub(crate) tables: Tables,
    pub(crate) progress: Progress,
    pub(crate) hash: StateHash,
    buffers: Buffers,
}

/// What one write puts together, kept so that the next one need not allocate it.
#[derive(Default)]
struct Buffers {
    row_key: Vec<u8>,
    row: Vec<u8>,
    change: Vec<u8>,
}

impl<'s> Rows<'s> {
    pub(crate) fn begin(store: &'s Store) -> Result<Self, StateError> {
        let txn = store.env.write_txn()?;
        let progress = meta::progress(store.sides.common(), &txn)?;
        let (sides, tables) = (store.sides, store.sides.present(&progress));
        let hash = StateHash::of(&progress);
        Ok(Self { txn, sides, tables, progress, hash, buffers: Buffers::default() })
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
        self.hash.write_to(&mut self.progress);
        meta::put_progress(&self.tables, &mut self.txn, &self.progress)?;
        Ok(self.txn.commit()?)
    }

    /// Deletes the oldest change, and what is known of the row that it deleted and nobody made again.
    pub(crate) fn trim_change(&mut self, row_key: &[u8]) -> Result<(), StateError> {
        let Some(row) = self.tables.history.get(&self.txn, row_key)? else { return Ok(()) };
        self.hash.remove(history::TABLE.number.into(), row_key, row);
        self.progress.history_bytes -= (row_key.len() + row.len()) as u64;
        let (link, change) = history::decode(history::parse_row_key(row_key)?, row)?;
        self.tables.history.delete(&mut self.txn, row_key)?;
        let table = change.table as u16;
        if change.after.is_none()
            && gone::get(&self.tables, &self.txn, table, &change.key)?.is_some_and(|last| last.at == link.at)
        {
            gone::delete(&self.tables, &mut self.txn, table, &change.key)?;
        }
        Ok(())
    }
}

/// One Command's writes, all under the next revision.
pub(crate) struct Tx<'r, 's> {
    rows: &'r mut Rows<'s>,
    revision: Revision,
    changes: Vec<Change>,
    bytes: usize,
    random: u64,
    drawn: u64,
}

impl<'r, 's> Tx<'r, 's> {
    /// Begins a Command that came with a random value.
    pub(crate) fn begin(rows: &'r mut Rows<'s>, random: u64) -> Self {
        let revision = rows.revision().next();
        Self { rows, revision, changes: Vec::new(), bytes: 0, random, drawn: 0 }
    }

    /// The Command's random value.
    pub(crate) fn random(&self) -> u64 {
        self.random
    }

    /// Another random value each time, made of the Command's.
    pub(crate) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        xxh3_64_with_seed(&self.random.to_be_bytes(), self.drawn)
    }

    /// The revision that this Command's changes take.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The term of the log entry, and the leader who proposed it: two may lead in one term, one after the other.
    pub(crate) fn leader(&self) -> (u64, u64) {
        (self.rows.progress.term, self.rows.progress.leader)
    }

    /// State time in ms.
    pub(crate) fn time_ms(&self) -> u64 {
        self.rows.progress.time_ms
    }

    /// State time without its jumps, in ms: what durations are measured by.
    pub(crate) fn steady_ms(&self) -> u64 {
        self.rows.progress.steady_ms
    }

    /// The rows as they are in this transaction.
    pub(crate) fn rows(&self) -> &Rows<'s> {
        self.rows
    }

    /// Reads a row, seeing this Command's writes.
    pub(crate) fn get<T: ObjectTable>(&mut self, key: &T::Key) -> Result<Option<T::Record>, StateError> {
        let rows = &mut *self.rows;
        let row_key = &mut rows.buffers.row_key;
        row_key.clear();
        T::encode_key(key, row_key);
        let Some(row) = T::db(&rows.tables).get(&rows.txn, row_key)? else { return Ok(None) };
        tables::decode(T::SPEC, Bytes::copy_from_slice(Link::split(row)?.1)).map(Some)
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
        let Rows { tables, txn, hash, buffers: Buffers { row_key, .. }, .. } = &mut *self.rows;
        row_key.clear();
        T::encode_key(&key, row_key);
        let (last, before_row) = match T::db(tables).get(txn, row_key)? {
            None => (None, None),
            Some(row) => {
                hash.remove(T::SPEC.number.into(), row_key, row);
                let (last, record) = Link::split(row)?;
                (Some(last), Some(Bytes::copy_from_slice(record)))
            }
        };
        let before = before_row.clone().map(|row| tables::decode::<T::Record>(T::SPEC, row)).transpose()?;
        let after = next(before.as_ref());
        if before.is_none() && after.is_none() {
            return Ok(None);
        }
        let link = self.write::<T>(last, after.as_ref())?;
        self.record(T::SPEC, &link, before_row.as_deref(), after.is_some())?;
        let Rows { tables, txn, .. } = &mut *self.rows;
        T::reindex(tables, txn, &key, before.as_ref(), after.as_ref())?;
        self.changes.push(T::change(key, before.clone(), after));
        Ok(before)
    }

    /// Writes or deletes the row of the key in the buffers, given its link if it is there. Leaves the record in the
    /// buffers, and returns the link of this change.
    fn write<T: ObjectTable>(
        &mut self,
        last: Option<Link>,
        record: Option<&T::Record>,
    ) -> Result<Link, StateError> {
        let at = Position { revision: self.revision, place: self.changes.len() as u32 };
        let Rows { tables, txn, progress, hash, buffers: Buffers { row_key, row, .. }, .. } = &mut *self.rows;
        let (db, number) = (T::db(tables), T::SPEC.number);
        let gone = match last {
            None => gone::get(tables, txn, number, row_key)?,
            Some(_) => None,
        };
        let compacted = Revision(progress.compact_revision);
        let link = Link::next(last.or(gone), at, compacted, |at| history::link(tables, txn, at))?;
        let Some(record) = record else {
            db.delete(txn, row_key)?;
            gone::put(tables, txn, number, row_key, &link)?;
            return Ok(link);
        };
        row.clear();
        link.encode(row);
        // Encoding into a Vec can't run out of room.
        record.encode_raw(row);
        db.put(txn, row_key, row)?;
        hash.add(number.into(), row_key, row);
        if gone.is_some() {
            gone::delete(tables, txn, number, row_key)?;
        }
        Ok(link)
    }

    /// Appends the change of the row in the buffers to history.
    fn record(
        &mut self,
        table: TableSpec,
        link: &Link,
        before: Option<&[u8]>,
        is_there: bool,
    ) -> Result<(), StateError> {
        let Rows { tables, txn, progress, hash, buffers: Buffers { row_key, row, change }, .. } =
            &mut *self.rows;
        let after = if is_there { Some(Link::split(row)?.1) } else { None };
        let new = NewChange { table: table.number, key: row_key, before, after, time_ms: progress.time_ms };
        change.clear();
        new.encode(link, change);
        let change_key = history::row_key(link.at);
        tables.history.put_with_flags(txn, PutFlags::APPEND, &change_key, change)?;
        hash.add(history::TABLE.number.into(), &change_key, change);
        progress.history_bytes += (change_key.len() + change.len()) as u64;
        self.bytes += change.len();
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
