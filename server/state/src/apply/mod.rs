//! Applying: one file a kind of Command, and here what is common to all: format, state time, idempotency.

use crate::command::{self, Command, Outcome, Refusal, UnknownFormat, command::Op, outcome, refusal};
use crate::error::StateError;
use crate::store::{Entry, Payload, Run};
use crate::tables::idempotency::{self, Seen};
use crate::tables::meta;
use crate::tx::{Rows, Tx};

mod catalog;
mod compact;
mod health;
mod kv;
mod lease;
mod lock;
mod restore;
mod tally;

pub use health::{FLAP_WINDOW_MS, FLIPS, HOLD_MS, OUTPUT_EVERY_MS};

/// The most that one Command moves steady time: a proposer's clock that jumps an hour ahead must not make an hour pass for
/// what has to be remembered.
const MAX_STEP_MS: u64 = 1_000;

/// Applies one log entry.
pub(crate) fn entry(rows: &mut Rows<'_>, entry: Entry, run: &mut Run) -> Result<Vec<Outcome>, StateError> {
    rows.advance(entry.position)?;
    match entry.payload {
        Payload::Blank => Ok(Vec::new()),
        Payload::Membership(bytes) => {
            meta::put_membership(&rows.tables.clone(), &mut rows.txn, entry.position, &bytes)?;
            Ok(Vec::new())
        }
        Payload::Commands(group) => {
            group.commands.into_iter().map(|command| apply(rows, command, run)).collect()
        }
    }
}

impl Entry {
    /// Whether it is applied by touching a few rows, whose number is known before they are read.
    #[must_use]
    pub fn is_brief(&self) -> bool {
        let is_brief = |command: &Command| match &command.op {
            Some(Op::Kv(txn)) => kv::is_brief(txn),
            Some(Op::CheckReport(report)) => health::is_brief(report),
            Some(Op::CatalogRegister(register)) => catalog::is_brief(register),
            // Those who share a lock may be granted it together, at most `MAX_CLAIMS`; mostly it goes to one.
            Some(
                Op::Compact(_)
                | Op::LeaseGrant(_)
                | Op::LockAcquire(_)
                | Op::LockRelease(_)
                | Op::LockCancel(_)
                | Op::LockResume(_)
                | Op::LockSetValue(_)
                | Op::CatalogConfigure(_),
            )
            | None => true,
            Some(
                Op::TrimHistory(_)
                | Op::LeaseRevoke(_)
                | Op::LeaseExpire(_)
                | Op::RestoreBegin(_)
                | Op::RestoreRows(_)
                | Op::RestoreCommit(_)
                | Op::RestoreAbort(_)
                | Op::CatalogDeregister(_)
                | Op::CatalogReap(_)
                | Op::CatalogMaintain(_)
                | Op::CheckSettle(_),
            ) => false,
        };
        match &self.payload {
            Payload::Commands(group) => group.commands.iter().all(is_brief),
            Payload::Blank | Payload::Membership(_) => true,
        }
    }
}

fn apply(rows: &mut Rows<'_>, command: Command, run: &mut Run) -> Result<Outcome, StateError> {
    let passed_ms = command.time_ms.saturating_sub(rows.progress.time_ms);
    rows.progress.time_ms += passed_ms;
    rows.progress.steady_ms += passed_ms.min(MAX_STEP_MS);
    match command.format {
        command::FORMAT => {}
        // Other members carry it out, so this one must not go on without it. Leaders write what every member knows.
        found if found > command::FORMAT => {
            return Err(StateError::NewerCommand { found, known: command::FORMAT });
        }
        format => return Ok(refused(rows, refusal::Reason::UnknownFormat(UnknownFormat { format }))),
    }
    let ticket = match command.idempotency_key.is_empty() {
        true => None,
        false => match idempotency::look_up(rows, &command)? {
            Seen::First(ticket) => Some(ticket),
            Seen::Again(outcome) => return Ok(outcome),
            Seen::Reused => {
                return Ok(refused(rows, refusal::Reason::IdempotencyKeyReused(Default::default())));
            }
        },
    };
    let outcome = carry_out(rows, command.op, command.random, run)?;
    if let Some(ticket) = ticket
        && idempotency::is_memorable(&outcome)
    {
        idempotency::remember(rows, ticket, &outcome)?;
    }
    Ok(outcome)
}

/// The one switch over kinds of Commands.
fn carry_out(rows: &mut Rows<'_>, op: Option<Op>, random: u64, run: &mut Run) -> Result<Outcome, StateError> {
    use outcome::Result::{Catalog, Kv, Lease, Lock};
    let mut tx = Tx::begin(rows, random);
    let result = match op {
        Some(Op::Kv(txn)) => kv::apply(&mut tx, txn)?.map(Kv),
        Some(Op::LeaseGrant(grant)) => lease::grant(&mut tx, grant)?.map(Lease),
        Some(Op::LeaseRevoke(revoke)) => lease::revoke(&mut tx, &revoke)?.map(Lease),
        Some(Op::LeaseExpire(expire)) => lease::expire(&mut tx, expire)?.map(Lease),
        Some(Op::LockAcquire(acquire)) => lock::acquire(&mut tx, acquire)?.map(Lock),
        Some(Op::LockRelease(release)) => lock::release(&mut tx, &release)?.map(Lock),
        Some(Op::LockCancel(cancel)) => lock::cancel(&mut tx, &cancel)?.map(Lock),
        Some(Op::LockResume(resume)) => lock::resume(&mut tx, &resume)?.map(Lock),
        Some(Op::LockSetValue(set)) => lock::set_value(&mut tx, set)?.map(Lock),
        Some(Op::CatalogRegister(register)) => catalog::register(&mut tx, register)?.map(Catalog),
        Some(Op::CatalogDeregister(deregister)) => catalog::deregister(&mut tx, &deregister)?.map(Catalog),
        Some(Op::CatalogReap(reap)) => catalog::reap(&mut tx, reap)?.map(Catalog),
        Some(Op::CatalogMaintain(maintain)) => catalog::maintain(&mut tx, maintain)?.map(Catalog),
        Some(Op::CatalogConfigure(configure)) => catalog::configure(&mut tx, configure)?.map(Catalog),
        Some(Op::CheckReport(report)) => health::report(&mut tx, report)?.map(Catalog),
        Some(Op::CheckSettle(settle)) => health::settle(&mut tx, settle)?.map(Catalog),
        Some(Op::Compact(compact)) => return compact::compact(rows, &compact),
        Some(Op::TrimHistory(trim)) => return compact::trim(rows, &trim),
        Some(Op::RestoreBegin(begin)) => return restore::begin(rows, &begin),
        Some(Op::RestoreRows(part)) => return restore::add(rows, part),
        Some(Op::RestoreCommit(commit)) => return restore::commit(rows, &commit, run),
        Some(Op::RestoreAbort(abort)) => return restore::abort(rows, &abort),
        None => Err(refusal::Reason::UnknownFormat(UnknownFormat { format: command::FORMAT })),
    };
    match result {
        Ok(result) => {
            run.batches.extend(tx.finish());
            Ok(Outcome { revision: rows.revision().0, result: Some(result) })
        }
        Err(reason) => Ok(refused(rows, reason)),
    }
}

fn refused(rows: &Rows<'_>, reason: refusal::Reason) -> Outcome {
    let refusal = Refusal { reason: Some(reason) };
    Outcome { revision: rows.revision().0, result: Some(outcome::Result::Refused(refusal)) }
}
