//! Walking over the keys of a namespace as they were at a revision, in either direction, from any point.
//!
//! For the present the walk is LMDB's own iteration. For the past it merges two orders, the rows that are there
//! and the rows that changed, because a row may have been there then and be gone now.

use std::ops::Bound;

use bytes::Bytes;

use super::{Direction, View};
use crate::error::StateError;
use crate::ids::Revision;
use crate::tables::history;
use crate::tables::kv::{self, END};

/// Row keys still to be walked: from the first, inclusive, to the second, exclusive.
pub(super) struct Bounds {
    pub(super) from: Vec<u8>,
    pub(super) to: Vec<u8>,
}

impl Bounds {
    fn as_range(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (Bound::Included(&self.from[..]), Bound::Excluded(&self.to[..]))
    }

    /// Leaves out everything up to and including a row key.
    pub(super) fn skip(&mut self, row_key: &[u8], direction: Direction) {
        match direction {
            Direction::Ascending => {
                self.from = row_key.to_vec();
                // Keys have no NUL, so this is the least that can follow, here and in `history_by_key`, where
                // the row's own changes (`row_key NUL revision`) lie before it.
                self.from.push(END + 1);
            }
            Direction::Descending => self.to = row_key.to_vec(),
        }
    }
}

/// What a visitor of rows wants next.
pub(super) enum Step {
    /// The next row.
    Next,
    /// The first row that is still within the bounds, which the visitor narrowed.
    Jump,
    /// Nothing.
    Stop,
}

/// Sees what is left to walk, a row key, and the row if there is one.
pub(super) type Visit<'v> = dyn FnMut(&mut Bounds, &[u8], Option<&[u8]>) -> Result<Step, StateError> + 'v;

impl View {
    /// Visits rows in order with their row key and the row as it was at `at`. Says whether the walk came to its
    /// end; otherwise the visitor stopped it. `bounds` is what is left.
    pub(super) fn walk(
        &self,
        bounds: &mut Bounds,
        direction: Direction,
        at: Option<Revision>,
        visit: &mut Visit<'_>,
    ) -> Result<bool, StateError> {
        match at {
            None => self.walk_present(bounds, direction, visit),
            Some(at) => self.walk_past(bounds, direction, at, visit),
        }
    }

    fn walk_present(
        &self,
        bounds: &mut Bounds,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<bool, StateError> {
        loop {
            if bounds.from >= bounds.to {
                return Ok(true);
            }
            let db = self.store.tables.kv;
            let range = Bounds { from: bounds.from.clone(), to: bounds.to.clone() };
            let step = match direction {
                Direction::Ascending => drive(db.range(&self.txn, &range.as_range())?, bounds, visit)?,
                Direction::Descending => drive(db.rev_range(&self.txn, &range.as_range())?, bounds, visit)?,
            };
            match step {
                Step::Next => return Ok(true),
                Step::Jump => {}
                Step::Stop => return Ok(false),
            }
        }
    }

    fn walk_past(
        &self,
        bounds: &mut Bounds,
        direction: Direction,
        at: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<bool, StateError> {
        while bounds.from < bounds.to {
            let present = self.next_present(bounds, direction)?;
            let changed = self.next_changed(bounds, direction)?;
            let row_key = match (present, changed) {
                (None, None) => return Ok(true),
                (Some(key), None) | (None, Some(key)) => key,
                (Some(a), Some(b)) if direction == Direction::Ascending => a.min(b),
                (Some(a), Some(b)) => a.max(b),
            };
            let row: Option<Bytes> = self.row_at(row_key, Some(at))?;
            match visit(bounds, row_key, row.as_deref())? {
                Step::Next => bounds.skip(row_key, direction),
                Step::Jump => {}
                Step::Stop => return Ok(false),
            }
        }
        Ok(true)
    }

    fn next_present(&self, bounds: &Bounds, direction: Direction) -> Result<Option<&[u8]>, StateError> {
        let db = self.store.tables.kv;
        let found = match direction {
            Direction::Ascending => db.get_greater_than_or_equal_to(&self.txn, &bounds.from)?,
            Direction::Descending => db.get_lower_than(&self.txn, &bounds.to)?,
        };
        Ok(found.map(|(row_key, _)| row_key).filter(|key| *key >= &bounds.from[..] && *key < &bounds.to[..]))
    }

    fn next_changed(&self, bounds: &Bounds, direction: Direction) -> Result<Option<&[u8]>, StateError> {
        let db = self.store.tables.history_by_key;
        let mut point = kv::TABLE.number.to_be_bytes().to_vec();
        let found = match direction {
            Direction::Ascending => {
                point.extend_from_slice(&bounds.from);
                db.get_greater_than_or_equal_to(&self.txn, &point)?
            }
            Direction::Descending => {
                point.extend_from_slice(&bounds.to);
                db.get_lower_than(&self.txn, &point)?
            }
        };
        let Some((by_key, _)) = found else { return Ok(None) };
        if by_key[..2] != kv::TABLE.number.to_be_bytes() {
            return Ok(None);
        }
        let (row_key, _) = history::parse_by_key(by_key)?;
        Ok(Some(row_key).filter(|key| *key >= &bounds.from[..] && *key < &bounds.to[..]))
    }
}

fn drive<'t>(
    rows: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>,
    bounds: &mut Bounds,
    visit: &mut Visit<'_>,
) -> Result<Step, StateError> {
    for row in rows {
        let (row_key, row) = row?;
        match visit(bounds, row_key, Some(row))? {
            Step::Next => {}
            other => return Ok(other),
        }
    }
    Ok(Step::Next)
}
