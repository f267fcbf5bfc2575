//! Walking over the rows of an object table as they were at a revision, in either direction, from any point.
//!
//! For the present the walk is LMDB's own iteration. For the past it merges two orders, the rows that are there
//! and the rows that are gone, because a row may have been there then, and follows the chain of each.

use std::cmp::Ordering;
use std::ops::Bound;

use super::{Direction, Head, View};
use crate::error::StateError;
use crate::ids::Revision;
use crate::tables::chain::Link;
use crate::tables::{Db, TableSpec, gone};

/// Row keys still to be walked: from the first, inclusive, to the second, exclusive.
#[derive(Clone)]
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
                // The least row key that is greater.
                self.from.push(0);
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

/// Sees what is left to walk, a row key, and the record if there is one.
pub(super) type Visit<'v> = dyn FnMut(&mut Bounds, &[u8], Option<&[u8]>) -> Result<Step, StateError> + 'v;

/// A row of a table as LMDB hands it out.
type Row<'t> = heed::Result<(&'t [u8], &'t [u8])>;

impl View {
    /// Visits rows in order with their row key and the record as it was at `at`. Says whether the walk came to its
    /// end; otherwise the visitor stopped it. `bounds` is what is left.
    pub(super) fn walk(
        &self,
        table: (TableSpec, Db),
        bounds: &mut Bounds,
        direction: Direction,
        at: Option<Revision>,
        visit: &mut Visit<'_>,
    ) -> Result<bool, StateError> {
        while bounds.from < bounds.to {
            let step = match at {
                None => self.walk_present(table.1, bounds, direction, visit)?,
                Some(at) => self.walk_past(table, bounds, direction, at, visit)?,
            };
            match step {
                Step::Next => return Ok(true),
                Step::Jump => {}
                Step::Stop => return Ok(false),
            }
        }
        Ok(true)
    }

    fn walk_present(
        &self,
        db: Db,
        bounds: &mut Bounds,
        direction: Direction,
        visit: &mut Visit<'_>,
    ) -> Result<Step, StateError> {
        let range = bounds.clone();
        match direction {
            Direction::Ascending => drive(db.range(&self.txn, &range.as_range())?, bounds, visit),
            Direction::Descending => drive(db.rev_range(&self.txn, &range.as_range())?, bounds, visit),
        }
    }

    fn walk_past(
        &self,
        (table, present): (TableSpec, Db),
        bounds: &mut Bounds,
        direction: Direction,
        at: Revision,
        visit: &mut Visit<'_>,
    ) -> Result<Step, StateError> {
        let gone = self.tables.gone;
        let range = bounds.clone();
        let gone_range = Bounds {
            from: gone::row_key(table.number, &bounds.from),
            to: gone::row_key(table.number, &bounds.to),
        };
        let (range, gone_range) = (range.as_range(), gone_range.as_range());
        match direction {
            Direction::Ascending => {
                let rows = (present.range(&self.txn, &range)?, gone.range(&self.txn, &gone_range)?);
                self.drive_past(heads(rows.0, rows.1, Ordering::Less), at, bounds, visit)
            }
            Direction::Descending => {
                let rows = (present.rev_range(&self.txn, &range)?, gone.rev_range(&self.txn, &gone_range)?);
                self.drive_past(heads(rows.0, rows.1, Ordering::Greater), at, bounds, visit)
            }
        }
    }

    fn drive_past<'t>(
        &self,
        heads: impl Iterator<Item = Result<(&'t [u8], Head<'t>), StateError>>,
        at: Revision,
        bounds: &mut Bounds,
        visit: &mut Visit<'_>,
    ) -> Result<Step, StateError> {
        for head in heads {
            let (row_key, head) = head?;
            let step = match self.change_after(&head, at)? {
                None => visit(bounds, row_key, head.record)?,
                Some(change) => visit(bounds, row_key, change.before.as_deref())?,
            };
            match step {
                Step::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Step::Next)
    }
}

/// Visits rows that are there.
fn drive<'t>(
    rows: impl Iterator<Item = Row<'t>>,
    bounds: &mut Bounds,
    visit: &mut Visit<'_>,
) -> Result<Step, StateError> {
    for row in rows {
        let (row_key, row) = row?;
        match visit(bounds, row_key, Some(Link::split(row)?.1))? {
            Step::Next => {}
            other => return Ok(other),
        }
    }
    Ok(Step::Next)
}

/// Merges the rows that are there and the rows that are gone, none of which is in both, by their row keys; `order`
/// is how a row that comes first compares to the other.
fn heads<'t>(
    present: impl Iterator<Item = Row<'t>>,
    gone: impl Iterator<Item = Row<'t>>,
    order: Ordering,
) -> impl Iterator<Item = Result<(&'t [u8], Head<'t>), StateError>> {
    let mut present = present.map(present_head).peekable();
    let mut gone = gone.map(gone_head).peekable();
    std::iter::from_fn(move || match (present.peek(), gone.peek()) {
        (Some(Ok((a, _))), Some(Ok((b, _)))) if a.cmp(b) != order => gone.next(),
        (None, _) | (_, Some(Err(_))) => gone.next(),
        _ => present.next(),
    })
}

fn present_head(row: Row<'_>) -> Result<(&[u8], Head<'_>), StateError> {
    let (row_key, row) = row?;
    Ok((row_key, Head::present(row)?))
}

fn gone_head(row: Row<'_>) -> Result<(&[u8], Head<'_>), StateError> {
    let (row_key, row) = row?;
    Ok((gone::key_of(row_key)?, Head { link: gone::link(row)?, record: None }))
}
