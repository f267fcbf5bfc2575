//! Claiming a lock or an election and waiting for it: what both services are made of.

use std::sync::Arc;

use bytes::Bytes;
use konsul_state::command::{self, LockKind, LockOutcome, command::Op, outcome};
use konsul_state::propose::ProposeError;
use konsul_state::{LeaseId, LockId};

use super::turns::Turn;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits;
use crate::parse;

/// A claim to be made.
pub(super) struct Wanted {
    pub(super) lock: LockId,
    pub(super) lease: LeaseId,
    pub(super) shared: bool,
    pub(super) limit: u32,
    pub(super) delay_ms: u64,
    pub(super) value: Bytes,
}

/// A claim that was granted.
pub(super) struct Granted {
    pub(super) revision: u64,
    pub(super) token: u64,
}

/// The lock or election that a request names.
pub(super) fn name(kind: LockKind, namespace: &str, name: &str) -> Result<LockId, ServiceError> {
    Ok(LockId { namespace: parse::namespace(namespace)?, kind, name: parse::key("name", name)? })
}

/// What a holder says of itself.
pub(super) fn check_value(value: &Bytes) -> Result<(), ServiceError> {
    match value.len() <= limits::CLAIM_VALUE_BYTES {
        true => Ok(()),
        false => {
            let problem = format!("must be at most {} bytes", limits::CLAIM_VALUE_BYTES);
            Err(ServiceError::field("value", problem))
        }
    }
}

/// Claims, and says at once whether the claim was granted.
pub(super) async fn try_claim(
    core: &Core,
    writer: Writer,
    wanted: Wanted,
) -> Result<(u64, LockOutcome), ServiceError> {
    write(core, writer.without_key(), Op::LockAcquire(acquire(wanted, false)), draw()).await
}

/// Claims, and waits until the claim is granted. Whoever drops the future gives the claim up.
///
/// An idempotency key is not heeded: a repeated call keeps the claim that the lease has. With one, a call that came late would be
/// told how it was long ago.
pub(super) async fn claim(core: &Arc<Core>, writer: Writer, wanted: Wanted) -> Result<Granted, ServiceError> {
    let (lock, lease) = (wanted.lock.clone(), wanted.lease);
    let attempt = draw();
    let too_many = || too_many(core);
    // Entered before the claim is made, so that no change of it is missed.
    let mut waiting = core.readers.turns.enter(attempt).ok_or_else(too_many)?;
    let mut given_up = GiveUp { core, lock: &lock, lease, attempt, is_made: false, is_needed: true };
    let claimed = write(core, writer.without_key(), Op::LockAcquire(acquire(wanted, true)), attempt).await;
    let (revision, outcome) = match claimed {
        Ok(claimed) => claimed,
        // Nobody knows whether it was made.
        Err(error @ ServiceError::Propose(ProposeError::Unknown | ProposeError::ShuttingDown)) => {
            return Err(error);
        }
        Err(error) => {
            given_up.keep();
            return Err(error);
        }
    };
    if outcome.granted {
        return Ok(given_up.granted(revision, outcome.token));
    }
    given_up.is_made = true;
    loop {
        match waiting.told().await {
            Turn::Granted => {}
            Turn::Look => {
                waiting = core.readers.turns.enter(attempt).ok_or_else(too_many)?;
                if let Some(error) = core.propose.unfit() {
                    return Err(error.into());
                }
            }
            Turn::Stopping => return Err(ProposeError::ShuttingDown.into()),
            Turn::TakenOver => {
                given_up.keep();
                return Err(ServiceError::ClaimTakenOver);
            }
            Turn::Lost => {
                given_up.keep();
                return Err(ServiceError::ClaimLost);
            }
        }
        let view = core.state.view()?;
        match view.claim_of(&lock, lease)? {
            Some((token, claim)) if claim.attempt == attempt && claim.granted => {
                return Ok(given_up.granted(view.revision().0, token));
            }
            Some((_, claim)) if claim.attempt == attempt => {}
            Some(_) => {
                given_up.keep();
                return Err(ServiceError::ClaimTakenOver);
            }
            None => {
                given_up.keep();
                return Err(ServiceError::ClaimLost);
            }
        }
    }
}

/// Gives a claim up for its holder.
pub(super) async fn release(
    core: &Core,
    writer: Writer,
    lock: &LockId,
    lease: LeaseId,
    token: u64,
) -> Result<u64, ServiceError> {
    let release = command::LockRelease { lock: Some(lock.to_name()), lease: lease.0, token };
    let (revision, _) = write(core, writer, Op::LockRelease(release), 0).await?;
    Ok(revision)
}

/// Has a Command on locks carried out.
pub(super) async fn write(
    core: &Core,
    writer: Writer,
    op: Op,
    random: u64,
) -> Result<(u64, LockOutcome), ServiceError> {
    let outcome = core.write_with(writer, op, random).await?;
    match outcome.result {
        Some(outcome::Result::Lock(done)) => Ok((outcome.revision, done)),
        _ => Err(ServiceError::UnexpectedOutcome),
    }
}

/// The Command that makes a claim, and waits in line for it or not.
pub(super) fn acquire(wanted: Wanted, wait: bool) -> command::LockAcquire {
    command::LockAcquire {
        lock: Some(wanted.lock.to_name()),
        lease: wanted.lease.0,
        shared: wanted.shared,
        limit: wanted.limit,
        delay_ms: wanted.delay_ms,
        value: wanted.value,
        wait,
    }
}

/// What tells this attempt from others; 0 is nobody's.
fn draw() -> u64 {
    rand::random::<u64>().max(1)
}

/// Too many calls wait.
pub(super) fn too_many(core: &Core) -> ServiceError {
    ServiceError::TooMany {
        what: "calls waiting for locks",
        reason: "TOO_MANY_WAITING_LOCKS",
        limit: core.limits.max_waiting_locks,
    }
}

/// Gives a claim up that nobody waits for any more, when it is dropped.
struct GiveUp<'c> {
    core: &'c Arc<Core>,
    lock: &'c LockId,
    lease: LeaseId,
    attempt: u64,
    /// Whether the claim is known to be made.
    is_made: bool,
    is_needed: bool,
}

impl GiveUp<'_> {
    fn granted(self, revision: u64, token: u64) -> Granted {
        self.keep();
        Granted { revision, token }
    }

    /// The claim is its caller's now, or another's.
    fn keep(mut self) {
        self.is_needed = false;
    }
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if !self.is_needed {
            return;
        }
        let Self { core, lock, lease, attempt, is_made, .. } = *self;
        let cancel = command::LockCancel { lock: Some(lock.to_name()), lease: lease.0, attempt };
        core.readers.abandoned.add(cancel, is_made);
    }
}
