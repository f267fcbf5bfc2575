//! Locks: claims in the order in which they were made. A claim is granted when it is the first that waits and those who hold
//! the lock leave room for it, in the same Command that made the room: whoever waits costs nothing, and nobody overtakes.

use super::lease;
use crate::command::{
    ClaimRecord, Deposed, Fence, LockAcquire, LockCancel, LockFull, LockLimitDiffers, LockModeDiffers,
    LockNotHeld, LockOutcome, LockRecord, LockRelease, LockResume, LockSetValue, LockTaken, MAX_CLAIM_BYTES,
    MAX_CLAIMS, refusal::Reason,
};
use crate::error::StateError;
use crate::ids::{Key, LeaseId, LockId, Namespace};
use crate::tables::bound;
use crate::tables::claim::{self, Claim};
use crate::tables::lock::Lock;
use crate::tx::Tx;

/// How many claims are looked at together when several may be granted: all but the first are shared, or of a semaphore.
const STEP: usize = 64;

/// The attempt of a claim that was found held: no call's own, so that none takes the claim along when it goes away.
const HELD: u64 = 0;

/// How a claim is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Its holder said so.
    GivenUp,
    /// Its lease expired: the holder may not know yet.
    Expired,
}

/// What the Commands on locks yield.
type Done = Result<Result<LockOutcome, Reason>, StateError>;

/// What becomes of a claim that is made now.
enum Judged {
    /// The lease has one already.
    Had { token: u64, claim: ClaimRecord },
    /// It is granted.
    Granted(LockRecord),
    /// It would have to wait in line.
    Waits(LockRecord),
}

/// Claims a lock, for a call that waits for it or only tries.
pub(super) fn acquire(tx: &mut Tx<'_, '_>, acquire: LockAcquire) -> Done {
    let lock = LockId::trusted(&acquire.lock.clone().unwrap_or_default());
    let judged = match judge(tx, &lock, &acquire)? {
        Ok(judged) => judged,
        Err(reason) => return Ok(Err(reason)),
    };
    let attempt = tx.random();
    match judged {
        // Nobody but its holder gives up what is held, not even a call that found it held and went away.
        Judged::Had { token, claim: ClaimRecord { granted: true, .. } } => hold(tx, &lock, token).map(Ok),
        Judged::Had { token, claim } if acquire.wait => {
            if attempt != claim.attempt {
                tx.update::<Claim>((lock, token), |_| Some(ClaimRecord { attempt, ..claim }))?;
            }
            Ok(Ok(LockOutcome { token, granted: false, attempt }))
        }
        Judged::Waits(next) if acquire.wait => claim(tx, lock, acquire, attempt, next, false).map(Ok),
        // Whoever only tries leaves the place in line to the call that waits in it.
        Judged::Had { .. } | Judged::Waits(_) => Ok(Ok(LockOutcome { token: 0, granted: false, attempt })),
        Judged::Granted(next) => claim(tx, lock, acquire, attempt, next, true).map(Ok),
    }
}

/// Why a lock can't be had at once, if so. Changes nothing.
pub(super) fn check_free(
    tx: &mut Tx<'_, '_>,
    acquire: &LockAcquire,
) -> Result<Result<(), Reason>, StateError> {
    let lock = LockId::trusted(&acquire.lock.clone().unwrap_or_default());
    Ok(match judge(tx, &lock, acquire)? {
        Err(reason) => Err(reason),
        Ok(Judged::Granted(_) | Judged::Had { claim: ClaimRecord { granted: true, .. }, .. }) => Ok(()),
        Ok(Judged::Waits(_) | Judged::Had { .. }) => {
            Err(Reason::LockTaken(LockTaken { name: lock.name.as_str().to_owned() }))
        }
    })
}

/// Takes a lock that [`check_free`] found free, or held by this lease, at the beginning of this very Command. Nothing else in it names
/// the lock, and no lease ends in it that a lock could be claimed under.
pub(super) fn take(tx: &mut Tx<'_, '_>, acquire: LockAcquire) -> Result<LockOutcome, StateError> {
    let lock = LockId::trusted(&acquire.lock.clone().unwrap_or_default());
    if let Some((token, _)) = find(tx, &lock, LeaseId(acquire.lease))? {
        return hold(tx, &lock, token);
    }
    let found = tx.get::<Lock>(&lock)?.unwrap_or_default();
    let value_bytes = found.value_bytes + acquire.value.len() as u64;
    let next = LockRecord { limit: acquire.limit, value_bytes, ..found };
    claim(tx, lock, acquire, HELD, next, true)
}

fn judge(
    tx: &mut Tx<'_, '_>,
    lock: &LockId,
    acquire: &LockAcquire,
) -> Result<Result<Judged, Reason>, StateError> {
    let lease = LeaseId(acquire.lease);
    let name = || lock.name.as_str().to_owned();
    if let Some((token, claim)) = find(tx, lock, lease)? {
        return Ok(match claim.shared == acquire.shared {
            true => Ok(Judged::Had { token, claim }),
            false => Err(Reason::LockModeDiffers(LockModeDiffers { name: name() })),
        });
    }
    if let Err(reason) = lease::check_room(tx, &lock.namespace, lease)? {
        return Ok(Err(reason));
    }
    let found = tx.get::<Lock>(lock)?.unwrap_or_default();
    let claims = found.shared + found.exclusive + found.waiting;
    if claims > 0 && found.limit != acquire.limit {
        let limit = found.limit;
        return Ok(Err(Reason::LockLimitDiffers(LockLimitDiffers { name: name(), limit })));
    }
    let mut next = LockRecord { limit: acquire.limit, ..found };
    let is_free = next.waiting == 0 && next.has_room(acquire.shared);
    if !is_free && !acquire.wait {
        return Ok(Ok(Judged::Waits(next)));
    }
    next.value_bytes += acquire.value.len() as u64;
    Ok(match claims >= MAX_CLAIMS || next.value_bytes > MAX_CLAIM_BYTES {
        true => Err(full(lock)),
        false if is_free => Ok(Judged::Granted(next)),
        false => Ok(Judged::Waits(next)),
    })
}

/// Keeps a claim that is held.
fn hold(tx: &mut Tx<'_, '_>, lock: &LockId, token: u64) -> Result<LockOutcome, StateError> {
    let place = (lock.clone(), token);
    if tx.get::<Claim>(&place)?.is_some_and(|claim| claim.attempt != HELD) {
        tx.update::<Claim>(place, |claim| Some(ClaimRecord { attempt: HELD, ..claim.cloned()? }))?;
    }
    Ok(LockOutcome { token, granted: true, attempt: HELD })
}

/// Writes a new claim, granted or in line.
fn claim(
    tx: &mut Tx<'_, '_>,
    lock: LockId,
    acquire: LockAcquire,
    attempt: u64,
    mut next: LockRecord,
    granted: bool,
) -> Result<LockOutcome, StateError> {
    let token = tx.revision().0;
    match granted {
        true => next.grant(token, acquire.shared),
        false => next.waiting += 1,
    }
    let claim = ClaimRecord {
        lease: acquire.lease,
        shared: acquire.shared,
        granted,
        delay_ms: acquire.delay_ms,
        attempt,
        value: acquire.value,
        since_revision: tx.revision().0,
        since_ms: tx.time_ms(),
    };
    tx.update::<Lock>(lock.clone(), |_| Some(next))?;
    tx.update::<Claim>((lock, token), |_| Some(claim))?;
    Ok(LockOutcome { token, granted, attempt })
}

/// Whether a claim is there that can be given up. Changes nothing.
pub(super) fn check_claimed(
    tx: &mut Tx<'_, '_>,
    release: &LockRelease,
) -> Result<Result<(), Reason>, StateError> {
    let lock = LockId::trusted(&release.lock.clone().unwrap_or_default());
    Ok(match find(tx, &lock, LeaseId(release.lease))? {
        Some((token, _)) if release.token == 0 || release.token == token => Ok(()),
        _ => Err(not_held(&lock, release.token)),
    })
}

/// Gives a claim up.
pub(super) fn release(tx: &mut Tx<'_, '_>, release: &LockRelease) -> Done {
    let lock = LockId::trusted(&release.lock.clone().unwrap_or_default());
    match find(tx, &lock, LeaseId(release.lease))? {
        Some((token, claim)) if release.token == 0 || release.token == token => {
            give_up(tx, &lock, token, Loss::GivenUp)?;
            Ok(Ok(LockOutcome { token, granted: claim.granted, attempt: claim.attempt }))
        }
        _ => Ok(Err(not_held(&lock, release.token))),
    }
}

/// Gives a claim up that nobody waits for, unless somebody waits for it again.
pub(super) fn cancel(tx: &mut Tx<'_, '_>, cancel: &LockCancel) -> Done {
    let lock = LockId::trusted(&cancel.lock.clone().unwrap_or_default());
    match find(tx, &lock, LeaseId(cancel.lease))? {
        Some((token, claim)) if claim.attempt == cancel.attempt && claim.attempt != HELD => {
            give_up(tx, &lock, token, Loss::GivenUp)?;
            Ok(Ok(LockOutcome { token, granted: claim.granted, attempt: claim.attempt }))
        }
        _ => Ok(Ok(LockOutcome::default())),
    }
}

/// Lets a lock be granted again that was held back, if it is still the leader who says so and it lost nobody since.
pub(super) fn resume(tx: &mut Tx<'_, '_>, resume: &LockResume) -> Done {
    if (resume.term, resume.leader) != tx.leader() {
        return Ok(Err(Reason::Deposed(Deposed {})));
    }
    let lock = LockId::trusted(&resume.lock.clone().unwrap_or_default());
    let Some(found) = tx.get::<Lock>(&lock)? else { return Ok(Ok(LockOutcome::default())) };
    if found.held_back_since == resume.held_back_since {
        settle(tx, &lock, LockRecord { held_back_since: 0, delay_ms: 0, ..found })?;
    }
    Ok(Ok(LockOutcome::default()))
}

/// Replaces what a holder says.
pub(super) fn set_value(tx: &mut Tx<'_, '_>, set: LockSetValue) -> Done {
    let lock = LockId::trusted(&set.lock.unwrap_or_default());
    match find(tx, &lock, LeaseId(set.lease))? {
        Some((token, claim)) if claim.granted && (set.token == 0 || set.token == token) => {
            let attempt = claim.attempt;
            let mut next = tx.get::<Lock>(&lock)?.unwrap_or_default();
            let value_bytes = next.value_bytes + set.value.len() as u64 - claim.value.len() as u64;
            if value_bytes > MAX_CLAIM_BYTES {
                return Ok(Err(full(&lock)));
            }
            if value_bytes != next.value_bytes {
                next.value_bytes = value_bytes;
                tx.update::<Lock>(lock.clone(), |_| Some(next))?;
            }
            tx.update::<Claim>((lock, token), |_| Some(ClaimRecord { value: set.value, ..claim }))?;
            Ok(Ok(LockOutcome { token, granted: true, attempt }))
        }
        _ => Ok(Err(not_held(&lock, set.token))),
    }
}

/// Whether the lock is held now under this token. A token that is older than the newest grant of a lock that one may hold at a
/// time never is.
pub(super) fn holds(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    fence: &Fence,
) -> Result<Result<(), Reason>, StateError> {
    let (kind, name) = (fence.kind(), Key::trusted(&fence.name));
    let lock = LockId { namespace: namespace.clone(), kind, name };
    let claim = tx.get::<Claim>(&(lock.clone(), fence.token))?;
    Ok(match claim.is_some_and(|claim| claim.granted) {
        true => Ok(()),
        false => Err(not_held(&lock, fence.token)),
    })
}

/// Takes a claim away, and grants the lock to whoever is next.
pub(super) fn give_up(tx: &mut Tx<'_, '_>, lock: &LockId, token: u64, loss: Loss) -> Result<(), StateError> {
    let Some(claim) = tx.update::<Claim>((lock.clone(), token), |_| None)? else { return Ok(()) };
    let mut next = tx.get::<Lock>(lock)?.unwrap_or_default();
    next.value_bytes -= claim.value.len() as u64;
    match (claim.granted, claim.shared) {
        (false, _) => next.waiting -= 1,
        (true, true) => next.shared -= 1,
        (true, false) => next.exclusive -= 1,
    }
    // Of a claim that was granted by this very Command nobody was told.
    let was_held = claim.granted && claim.since_revision != tx.revision().0;
    if was_held && loss == Loss::Expired && claim.delay_ms > 0 {
        next.held_back_since = tx.revision().0;
        next.delay_ms = next.delay_ms.max(claim.delay_ms);
    }
    settle(tx, lock, next)
}

/// Grants a lock to those next in line, as far as there is room, and writes it.
fn settle(tx: &mut Tx<'_, '_>, lock: &LockId, mut next: LockRecord) -> Result<(), StateError> {
    let (since_revision, since_ms) = (tx.revision().0, tx.time_ms());
    let mut step = 1;
    'lines: while next.waiting > 0 && !next.is_taken() {
        let rows = tx.rows();
        let claims = claim::after(&rows.tables, &rows.txn, lock, next.granted_upto, step)?;
        step = STEP;
        for (token, claim) in claims {
            if !next.has_room(claim.shared) {
                break 'lines;
            }
            next.waiting -= 1;
            next.grant(token, claim.shared);
            let granted = ClaimRecord { granted: true, since_revision, since_ms, ..claim };
            tx.update::<Claim>((lock.clone(), token), |_| Some(granted))?;
        }
    }
    let is_needed = next.shared + next.exclusive + next.waiting > 0 || next.held_back_since != 0;
    tx.update::<Lock>(lock.clone(), |_| is_needed.then_some(next))?;
    Ok(())
}

/// The claim that a lease has on a lock.
fn find(
    tx: &mut Tx<'_, '_>,
    lock: &LockId,
    lease: LeaseId,
) -> Result<Option<(u64, ClaimRecord)>, StateError> {
    let rows = tx.rows();
    let name = (lock.kind, lock.name.as_str());
    let Some(token) = bound::token(&rows.tables, &rows.txn, &lock.namespace, lease, name)? else {
        return Ok(None);
    };
    let claim = tx.get::<Claim>(&(lock.clone(), token))?;
    let missing = || StateError::corrupt(bound::TABLE.name, "a row names a claim that is not there");
    Ok(Some((token, claim.ok_or_else(missing)?)))
}

fn full(lock: &LockId) -> Reason {
    let (name, max_claims, max_bytes) = (lock.name.as_str().to_owned(), MAX_CLAIMS, MAX_CLAIM_BYTES);
    Reason::LockFull(LockFull { name, max_claims, max_bytes })
}

fn not_held(lock: &LockId, token: u64) -> Reason {
    let (kind, name) = (lock.kind.into(), lock.name.as_str().to_owned());
    Reason::LockNotHeld(LockNotHeld { kind, name, token })
}

impl LockRecord {
    /// Whether nobody more could hold it, shared or not.
    fn is_taken(&self) -> bool {
        self.held_back_since != 0 || self.exclusive >= u64::from(self.limit.max(1))
    }

    /// Whether one more could hold it.
    fn has_room(&self, shared: bool) -> bool {
        let is_free = match shared {
            true => self.exclusive == 0,
            false => self.shared == 0 && self.exclusive < u64::from(self.limit),
        };
        is_free && self.held_back_since == 0
    }

    fn grant(&mut self, token: u64, shared: bool) {
        match shared {
            true => self.shared += 1,
            false => self.exclusive += 1,
        }
        self.granted_upto = token;
    }
}
