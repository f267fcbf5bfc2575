//! Leases: making them, binding keys to them, and ending them with everything that is bound to them.

use super::{catalog, lock};
use crate::command::{
    Deposed, LeaseExists, LeaseExpire, LeaseFull, LeaseGrant, LeaseNotFound, LeaseOutcome, LeaseRecord,
    LeaseRevoke, MAX_LEASES, MAX_RANGE_BYTES, MAX_RANGE_KEYS, TooManyLeases, refusal::Reason,
};
use crate::error::StateError;
use crate::ids::{Key, LeaseId, LockId, Namespace};
use crate::tables::bound;
use crate::tables::kv::Kv;
use crate::tables::lease::Lease;
use crate::tx::Tx;

/// Makes a lease of the id asked for, or of one that nobody has.
pub(super) fn grant(
    tx: &mut Tx<'_, '_>,
    grant: LeaseGrant,
) -> Result<Result<LeaseOutcome, Reason>, StateError> {
    let namespace = Namespace::trusted(&grant.namespace);
    let id = match grant.id {
        0 => free_id(tx, &namespace)?,
        id if tx.get::<Lease>(&(namespace.clone(), LeaseId(id)))?.is_some() => {
            return Ok(Err(Reason::LeaseExists(LeaseExists { id })));
        }
        id => LeaseId(id),
    };
    if let Err(reason) = check_count(tx)? {
        return Ok(Err(reason));
    }
    let ttl_ms = grant.ttl_ms;
    make(tx, namespace, id, LeaseRecord { ttl_ms, holder: grant.holder, ..LeaseRecord::default() })?;
    Ok(Ok(LeaseOutcome { id: id.0, ttl_ms, ..LeaseOutcome::default() }))
}

/// Ends a lease whose holder says so.
pub(super) fn revoke(
    tx: &mut Tx<'_, '_>,
    revoke: &LeaseRevoke,
) -> Result<Result<LeaseOutcome, Reason>, StateError> {
    let (namespace, id) = (Namespace::trusted(&revoke.namespace), LeaseId(revoke.id));
    if tx.get::<Lease>(&(namespace.clone(), id))?.is_none() {
        return Ok(Err(Reason::LeaseNotFound(LeaseNotFound { id: id.0 })));
    }
    let deleted = end(tx, &namespace, id, lock::Loss::GivenUp)?;
    Ok(Ok(LeaseOutcome { deleted, ended: 1, ..LeaseOutcome::default() }))
}

/// Ends leases that nobody refreshed, if it is still the leader who says so. Those that are not there any more, or are others
/// by now, are left out.
pub(super) fn expire(
    tx: &mut Tx<'_, '_>,
    expire: LeaseExpire,
) -> Result<Result<LeaseOutcome, Reason>, StateError> {
    if (expire.term, expire.leader) != tx.leader() {
        return Ok(Err(Reason::Deposed(Deposed {})));
    }
    let mut outcome = LeaseOutcome::default();
    for due in expire.leases {
        let (namespace, id) = (Namespace::trusted(&due.namespace), LeaseId(due.id));
        let found = tx.get::<Lease>(&(namespace.clone(), id))?;
        if found.is_some_and(|record| record.create_revision == due.create_revision) {
            outcome.deleted += end(tx, &namespace, id, lock::Loss::Expired)?;
            outcome.ended += 1;
        }
    }
    Ok(Ok(outcome))
}

/// Makes the lease of a key that has one of its own.
pub(super) fn make_for_key(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    ttl_ms: u64,
) -> Result<LeaseId, StateError> {
    let id = free_id(tx, namespace)?;
    make(tx, namespace.clone(), id, LeaseRecord { ttl_ms, implicit: true, ..LeaseRecord::default() })?;
    Ok(id)
}

/// Ends the lease that a key has left, if it was the key's own.
pub(super) fn leave(tx: &mut Tx<'_, '_>, namespace: &Namespace, lease: LeaseId) -> Result<(), StateError> {
    let found = tx.get::<Lease>(&(namespace.clone(), lease))?;
    if found.is_some_and(|record| record.implicit) {
        tx.update::<Lease>((namespace.clone(), lease), |_| None)?;
    }
    Ok(())
}

/// Whether one more lease can be made. The puts of a Txn are looked at before any is carried out, so there may be as many more
/// as one has operations.
pub(super) fn check_count(tx: &Tx<'_, '_>) -> Result<Result<(), Reason>, StateError> {
    let rows = tx.rows();
    let is_full = rows.tables.lease.len(&rows.txn)? >= MAX_LEASES;
    Ok(if is_full { Err(Reason::TooManyLeases(TooManyLeases { max_leases: MAX_LEASES })) } else { Ok(()) })
}

/// Whether something more can be bound to a lease: it is there, was not made for a single key, and has room.
pub(super) fn check_room(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    lease: LeaseId,
) -> Result<Result<(), Reason>, StateError> {
    let found = tx.get::<Lease>(&(namespace.clone(), lease))?;
    if found.is_none_or(|record| record.implicit) {
        return Ok(Err(Reason::LeaseNotFound(LeaseNotFound { id: lease.0 })));
    }
    let rows = tx.rows();
    let load = bound::load(&rows.tables, &rows.txn, namespace, lease)?;
    let (max_keys, max_bytes) = (MAX_RANGE_KEYS, MAX_RANGE_BYTES);
    Ok(if load.is_full() {
        Err(Reason::LeaseFull(LeaseFull { id: lease.0, max_keys, max_bytes }))
    } else {
        Ok(())
    })
}

fn make(
    tx: &mut Tx<'_, '_>,
    namespace: Namespace,
    id: LeaseId,
    record: LeaseRecord,
) -> Result<(), StateError> {
    let (create_revision, create_time_ms) = (tx.revision().0, tx.time_ms());
    tx.update::<Lease>((namespace, id), |_| Some(LeaseRecord { create_revision, create_time_ms, ..record }))?;
    Ok(())
}

/// An id that no lease has.
fn free_id(tx: &mut Tx<'_, '_>, namespace: &Namespace) -> Result<LeaseId, StateError> {
    loop {
        let id = LeaseId(tx.draw() & LeaseId::MAX);
        if id.0 != 0 && tx.get::<Lease>(&(namespace.clone(), id))?.is_none() {
            return Ok(id);
        }
    }
}

/// Ends a lease: deletes its keys, gives its claims up, takes its instances away. Returns how many keys it had.
fn end(tx: &mut Tx<'_, '_>, namespace: &Namespace, id: LeaseId, loss: lock::Loss) -> Result<u64, StateError> {
    let rows = tx.rows();
    let keys = bound::keys(&rows.tables, &rows.txn, namespace, id, usize::MAX)?;
    let claims = bound::claims(&rows.tables, &rows.txn, namespace, id)?;
    let instances = bound::instances(&rows.tables, &rows.txn, namespace, id)?;
    let deleted = keys.len() as u64;
    for key in keys {
        tx.update::<Kv>((namespace.clone(), Key::trusted(&key)), |_| None)?;
    }
    for (kind, name, token) in claims {
        let lock = LockId { namespace: namespace.clone(), kind, name: Key::trusted(&name) };
        lock::give_up(tx, &lock, token, loss)?;
    }
    for instance in instances {
        catalog::remove_instance(tx, instance)?;
    }
    tx.update::<Lease>((namespace.clone(), id), |_| None)?;
    Ok(deleted)
}
