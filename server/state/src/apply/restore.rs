//! Restoring: a state is put together, part by part, in the other set of tables, and then takes the place of the present one in
//! one step. Until then nobody sees any of it, and it may be given up at any point.
//!
//! The revision goes on from the greater of both states', so that none is ever used twice; history begins anew.

use crate::command::{
    RestoreAbort, RestoreBegin, RestoreCommit, RestoreGone, RestoreOutcome, RestoreRefused, RestoreRows, Row,
    Staged, outcome, refusal,
};
use crate::error::StateError;
use crate::hash::StateHash;
use crate::ids::Revision;
use crate::store::Run;
use crate::tables::{self, Tables};
use crate::tx::Rows;

use super::{Outcome, refused};

/// Begins, with empty tables.
pub(super) fn begin(rows: &mut Rows<'_>, begin: &RestoreBegin) -> Result<Outcome, StateError> {
    if begin.id == 0 {
        return Ok(unfit(rows, "it has no id"));
    }
    clear(rows)?;
    let steady_ms = rows.progress.steady_ms;
    rows.progress.staged = Some(Staged { id: begin.id, steady_ms, ..Staged::default() });
    Ok(done(rows, 0))
}

/// Adds rows: all that were handed in, or none.
pub(super) fn add(rows: &mut Rows<'_>, part: RestoreRows) -> Result<Outcome, StateError> {
    let Some(mut staged) = staged(rows, part.id) else { return Ok(gone(rows)) };
    if part.part < staged.parts {
        return Ok(done(rows, staged.rows));
    }
    if part.part > staged.parts {
        return Ok(unfit(rows, format!("part {} came where {} was due", part.part, staged.parts)));
    }
    let tables = rows.sides.staged(&rows.progress);
    if let Err(what) = judge(rows, &tables, &part.rows)? {
        return Ok(unfit(rows, what));
    }
    let mut hash = hash_of(&staged);
    for Row { table, key, row } in &part.rows {
        tables::restore(&tables, &mut rows.txn, *table, key, row, &mut staged)?;
        hash.add(*table, key, row);
    }
    (staged.hash_high, staged.hash_low) = hash.halves();
    staged.parts += 1;
    staged.rows += part.rows.len() as u64;
    staged.steady_ms = rows.progress.steady_ms;
    rows.progress.staged = Some(staged);
    Ok(done(rows, staged.rows))
}

/// Why rows can't be added, if so: each must be new, in order, and what its table can read.
fn judge(rows: &Rows<'_>, tables: &Tables, part: &[Row]) -> Result<Result<(), String>, StateError> {
    let mut last = None;
    for Row { table, key, row } in part {
        let refuse = |what: &str| Ok(Err(format!("row {} of table {table}: {what}", key.escape_ascii())));
        let at = Some((*table, key));
        if at <= last {
            return refuse("it is not after the one before it");
        }
        last = at;
        let db = match tables::check_row(tables, *table, key, row) {
            Ok(db) => db,
            Err(error) => return refuse(&error.to_string()),
        };
        if db.get(&rows.txn, key)?.is_some() {
            return refuse("it was there already");
        }
    }
    Ok(Ok(()))
}

/// Lets the state that was put together be the state.
pub(super) fn commit(
    rows: &mut Rows<'_>,
    commit: &RestoreCommit,
    run: &mut Run,
) -> Result<Outcome, StateError> {
    if commit.id != 0 && rows.progress.restored_id == commit.id {
        return Ok(Outcome { revision: rows.progress.restored_revision, ..done(rows, commit.rows) });
    }
    let Some(staged) = staged(rows, commit.id) else { return Ok(gone(rows)) };
    let (found, meant) = ((staged.rows, hash_of(&staged).halves()), (commit.hash_high, commit.hash_low));
    if found != (commit.rows, meant) {
        let what = format!("{} of {} rows came in, or other ones", staged.rows, commit.rows);
        return Ok(unfit(rows, what));
    }
    let revision = Revision(rows.progress.revision.max(commit.revision)).next();
    rows.tables.history.clear(&mut rows.txn)?;
    rows.tables.gone.clear(&mut rows.txn)?;
    let progress = &mut rows.progress;
    progress.side = u32::from(progress.side == 0);
    (progress.revision, progress.compact_revision) = (revision.0, revision.0);
    (progress.restored_revision, progress.restored_id) = (revision.0, commit.id);
    progress.time_ms = progress.time_ms.max(commit.time_ms);
    progress.steady_ms = progress.steady_ms.max(commit.steady_ms);
    progress.history_bytes = 0;
    progress.idempotency_sequence = staged.idempotency_sequence;
    progress.idempotency_bytes = staged.idempotency_bytes;
    rows.hash = hash_of(&staged);
    rows.tables = rows.sides.present(&rows.progress);
    // Now these are the tables of the state before.
    clear(rows)?;
    // Whoever follows the changes is told of the new state, not how it came about.
    run.batches.clear();
    run.restored = Some(revision);
    Ok(done(rows, staged.rows))
}

/// Gives up what was put together.
pub(super) fn abort(rows: &mut Rows<'_>, abort: &RestoreAbort) -> Result<Outcome, StateError> {
    if staged(rows, abort.id).is_none() {
        return Ok(gone(rows));
    }
    clear(rows)?;
    Ok(done(rows, 0))
}

/// Empties the other set of tables. LMDB gives whole subtrees back, so this takes milliseconds a gigabyte.
fn clear(rows: &mut Rows<'_>) -> Result<(), StateError> {
    for db in rows.sides.staged(&rows.progress).of_a_side() {
        db.clear(&mut rows.txn)?;
    }
    rows.progress.staged = None;
    Ok(())
}

/// What is being put together, if it is by this restore.
fn staged(rows: &Rows<'_>, id: u64) -> Option<Staged> {
    rows.progress.staged.filter(|staged| staged.id == id)
}

fn hash_of(staged: &Staged) -> StateHash {
    StateHash::from_halves((staged.hash_high, staged.hash_low))
}

fn done(rows: &Rows<'_>, count: u64) -> Outcome {
    let result = outcome::Result::Restore(RestoreOutcome { rows: count });
    Outcome { revision: rows.progress.revision, result: Some(result) }
}

fn gone(rows: &Rows<'_>) -> Outcome {
    refused(rows, refusal::Reason::RestoreGone(RestoreGone {}))
}

fn unfit(rows: &Rows<'_>, what: impl Into<String>) -> Outcome {
    refused(rows, refusal::Reason::RestoreRefused(RestoreRefused { what: what.into() }))
}
