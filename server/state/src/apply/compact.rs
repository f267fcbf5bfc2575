//! Compaction: moving the line below which history can't be read, and reclaiming the rows below it in steps.

use super::refused;
use crate::command::{
    Compact, CompactOutcome, FutureRevision, Outcome, TrimHistory, TrimOutcome, outcome, refusal,
};
use crate::error::StateError;
use crate::tables::history;
use crate::tx::Rows;

/// Moves the line up to a revision; never down. Takes no revision: no object changes.
pub(super) fn compact(rows: &mut Rows<'_>, compact: &Compact) -> Result<Outcome, StateError> {
    let current = rows.progress.revision;
    let revision = compact.revision;
    if revision > current {
        return Ok(refused(rows, refusal::Reason::FutureRevision(FutureRevision { revision, current })));
    }
    rows.progress.compact_revision = rows.progress.compact_revision.max(revision);
    let compact_revision = rows.progress.compact_revision;
    Ok(done(rows, outcome::Result::Compact(CompactOutcome { compact_revision })))
}

/// Deletes compacted rows from the oldest on, at most as much as asked.
pub(super) fn trim(rows: &mut Rows<'_>, trim: &TrimHistory) -> Result<Outcome, StateError> {
    let (mut deleted, mut bytes) = (0, 0);
    let mut more = false;
    while let Some((row_key, row)) = rows.tables.history.first(&rows.txn)? {
        if history::parse_row_key(row_key)?.revision.0 > rows.progress.compact_revision {
            break;
        }
        if deleted == u64::from(trim.max_rows) || (trim.max_bytes > 0 && bytes >= trim.max_bytes) {
            more = true;
            break;
        }
        bytes += row.len() as u64;
        let row_key = row_key.to_vec();
        rows.trim_change(&row_key)?;
        deleted += 1;
    }
    Ok(done(rows, outcome::Result::TrimHistory(TrimOutcome { rows: deleted, more })))
}

fn done(rows: &Rows<'_>, result: outcome::Result) -> Outcome {
    Outcome { revision: rows.progress.revision, result: Some(result) }
}
