//! `idempotency`: how Commands with an idempotency key came out, so that a retry is answered and not repeated,
//! and `idempotency_by_age`, the queue they leave in.
//!
//! Row key: caller, NUL, idempotency key. Row key of `idempotency_by_age`: sequence (u64, big-endian); its value
//! is the row key above. Rows leave from the old end of the queue when they are older than [`MAX_AGE_MS`], or
//! when there are more than [`MAX_ROWS`] or [`MAX_BYTES`] of them; each Command that adds one takes out up to
//! [`EXPIRE_PER_COMMAND`], so that expiry is part of the log like everything else and never a burst.
//!
//! Invariants: the tables have one row for each row of the other; sequences are dense.

use bytes::Bytes;
use heed::RwTxn;
use prost::Message;

use super::{TableSpec, Tables, kv::END};
use crate::command::{Command, IdempotencyRecord, Outcome, Staged, refusal};
use crate::error::StateError;
use crate::tx::Rows;
use xxhash_rust::xxh3::xxh3_64;

/// The outcomes.
pub const TABLE: TableSpec = TableSpec { number: 5, name: "idempotency" };
/// The queue of expiry. Derived from `idempotency`, so not part of the state hash.
pub const BY_AGE: TableSpec = TableSpec { number: 6, name: "idempotency_by_age" };

/// How long an outcome is remembered: ten minutes of steady time, so at least ten minutes whatever a clock does.
pub const MAX_AGE_MS: u64 = 10 * 60 * 1000;
/// Most outcomes remembered.
pub const MAX_ROWS: u64 = 1_000_000;
/// Most bytes of keys and outcomes remembered.
pub const MAX_BYTES: u64 = 256 << 20;
/// Most outcomes forgotten by one Command. Two would shrink the table while it is used; more catch up with
/// bytes sooner.
pub const EXPIRE_PER_COMMAND: usize = 4;

/// What is known of a Command with an idempotency key.
pub(crate) enum Seen {
    /// Nothing: it is to be applied, and remembered under this.
    First(Ticket),
    /// It was applied; this is how it came out.
    Again(Outcome),
    /// Another Command had the same key.
    Reused,
}

/// Where an outcome is to be remembered.
pub(crate) struct Ticket {
    row_key: Vec<u8>,
    fingerprint: u64,
}

/// Looks up a Command that has an idempotency key.
pub(crate) fn look_up(rows: &Rows<'_>, command: &Command) -> Result<Seen, StateError> {
    let row_key = row_key(&command.caller, &command.idempotency_key);
    let fingerprint = fingerprint(command);
    let Some(row) = rows.tables.idempotency.get(&rows.txn, &row_key)? else {
        return Ok(Seen::First(Ticket { row_key, fingerprint }));
    };
    let record = decode(row)?;
    if record.steady_ms + MAX_AGE_MS < rows.progress.steady_ms {
        // Over age and still here only because nothing came to push it out: as good as forgotten.
        return Ok(Seen::First(Ticket { row_key, fingerprint }));
    }
    if record.fingerprint != fingerprint {
        return Ok(Seen::Reused);
    }
    let outcome = Outcome::decode(record.outcome);
    Ok(Seen::Again(outcome.map_err(|e| StateError::corrupt(TABLE.name, e.to_string()))?))
}

/// The row key of a caller's idempotency key.
pub(crate) fn row_key(caller: &str, idempotency_key: &str) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(caller.len() + idempotency_key.len() + 1);
    row_key.extend_from_slice(caller.as_bytes());
    row_key.push(END);
    row_key.extend_from_slice(idempotency_key.as_bytes());
    row_key
}

/// Remembers an outcome and forgets old ones.
pub(crate) fn remember(rows: &mut Rows<'_>, ticket: Ticket, outcome: &Outcome) -> Result<(), StateError> {
    forget(rows, &ticket.row_key)?;
    rows.progress.idempotency_sequence += 1;
    let record = IdempotencyRecord {
        outcome: outcome.encode_to_vec().into(),
        steady_ms: rows.progress.steady_ms,
        fingerprint: ticket.fingerprint,
        sequence: rows.progress.idempotency_sequence,
    };
    let row = record.encode_to_vec();
    rows.progress.idempotency_bytes += (ticket.row_key.len() + row.len()) as u64;
    rows.hash.add(TABLE.number.into(), &ticket.row_key, &row);
    rows.tables.idempotency.put(&mut rows.txn, &ticket.row_key, &row)?;
    let sequence = record.sequence.to_be_bytes();
    rows.tables.idempotency_by_age.put(&mut rows.txn, &sequence, &ticket.row_key)?;
    for _ in 0..EXPIRE_PER_COMMAND {
        if !forget_oldest(rows)? {
            break;
        }
    }
    Ok(())
}

/// Forgets the oldest outcome if it is due; says whether it was.
fn forget_oldest(rows: &mut Rows<'_>) -> Result<bool, StateError> {
    let Some((sequence, row_key)) = rows.tables.idempotency_by_age.first(&rows.txn)? else {
        return Ok(false);
    };
    let oldest = sequence.iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let row_key = row_key.to_vec();
    let row = rows.tables.idempotency.get(&rows.txn, &row_key)?;
    let record = decode(row.ok_or_else(|| StateError::corrupt(BY_AGE.name, "a row has no outcome"))?)?;
    let progress = &rows.progress;
    let due = record.steady_ms + MAX_AGE_MS < progress.steady_ms
        || progress.idempotency_sequence - oldest >= MAX_ROWS
        || progress.idempotency_bytes > MAX_BYTES;
    if due {
        forget(rows, &row_key)?;
    }
    Ok(due)
}

fn forget(rows: &mut Rows<'_>, row_key: &[u8]) -> Result<(), StateError> {
    let Some(row) = rows.tables.idempotency.get(&rows.txn, row_key)? else { return Ok(()) };
    rows.hash.remove(TABLE.number.into(), row_key, row);
    rows.progress.idempotency_bytes -= (row_key.len() + row.len()) as u64;
    let sequence = decode(row)?.sequence;
    rows.tables.idempotency_by_age.delete(&mut rows.txn, &sequence.to_be_bytes())?;
    rows.tables.idempotency.delete(&mut rows.txn, row_key)?;
    Ok(())
}

/// Checks a row of a state that is to be restored.
pub(crate) fn check_row(key: &[u8], row: &[u8]) -> Result<(), StateError> {
    let record = decode(row)?;
    if !key.contains(&END) || record.sequence == 0 || Outcome::decode(record.outcome).is_err() {
        return Err(StateError::corrupt(TABLE.name, "a row is malformed"));
    }
    Ok(())
}

/// Enters a restored row into the queue of expiry.
pub(crate) fn restore(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    key: &[u8],
    row: &[u8],
    staged: &mut Staged,
) -> Result<(), StateError> {
    let sequence = decode(row)?.sequence;
    tables.idempotency_by_age.put(txn, &sequence.to_be_bytes(), key)?;
    staged.idempotency_sequence = staged.idempotency_sequence.max(sequence);
    staged.idempotency_bytes += (key.len() + row.len()) as u64;
    Ok(())
}

/// Whether an outcome is one to remember: not if the Command was refused for its key or format.
pub(crate) fn is_memorable(outcome: &Outcome) -> bool {
    use crate::command::outcome::Result::Refused;
    use refusal::Reason::{IdempotencyKeyReused, UnknownFormat};
    !matches!(&outcome.result, Some(Refused(r)) if matches!(r.reason, Some(IdempotencyKeyReused(_) | UnknownFormat(_))))
}

/// A hash of what a Command does, whenever it was sent.
fn fingerprint(command: &Command) -> u64 {
    let operation = Command { format: command.format, op: command.op.clone(), ..Command::default() };
    xxh3_64(&operation.encode_to_vec())
}

fn decode(row: &[u8]) -> Result<IdempotencyRecord, StateError> {
    IdempotencyRecord::decode(Bytes::copy_from_slice(row))
        .map_err(|e| StateError::corrupt(TABLE.name, e.to_string()))
}
