//! Room on the disk for what a run is about to write. The state's file is sparse and written through a memory
//! map, where a full disk is not an error but a signal that ends the process (SIGBUS). So blocks are allocated
//! ahead of LMDB, and a run that finds no room fails before it has touched anything.

use std::fs::File;
use std::ops::Bound;

use bytes::Bytes;
use heed::{RoTxn, WithoutTls};
use prost::Message;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::command::{
    self, CatalogDeregister, CatalogMaintain, CatalogRegister, CheckName, InstanceDefinition, InstanceKey,
    InstanceRegistration, KvDeleteRange, LockName, MAX_RANGE_BYTES, Registration, command::Op, kv_operation,
};
use crate::error::StateError;
use crate::ids::{CheckId, CheckOwner, InstanceId, Key, Label, LeaseId, LockId, Namespace, NodeId};
use crate::store::{Entry, Payload, Store};
use crate::tables::chain::Link;
use crate::tables::found::By;
use crate::tables::{ObjectTable, Tables, bound, check, decode, found, instance, kv, lock, node};

/// Bytes kept allocated ahead of the last page in use, beside what a run itself may need.
const AHEAD_BYTES: u64 = 16 << 20;
/// How much of the map a byte of a run may come to: a value is in `kv`, twice in `history`, and each in whole pages;
/// the tables' own pages are within `AHEAD_BYTES`, as no run has more than some thousand Commands.
const GROWTH: u64 = 8;

/// What a small row comes to beside its value.
const ROW_BYTES: u64 = 256;

/// What becomes of an instance or a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It changes, and all that follows from it.
    Changes,
    /// It goes, or is another one afterwards: what it is found by as well.
    Goes,
}

/// The allocated part of the state's file.
pub(crate) struct Room {
    file: File,
    allocated: u64,
}

impl Room {
    pub(crate) fn of(store: &Store) -> Result<Self, StateError> {
        let mut room = Self { file: store.env.try_clone_inner_file()?, allocated: used(store) };
        room.reserve(store, 0)?;
        Ok(room)
    }

    /// Makes sure that a run can be written.
    ///
    /// # Errors
    /// [`StateError::File`] with `StorageFull` or `QuotaExceeded` when the disk has no room;
    /// [`StateError::Lmdb`] with `MapFull` when the map has none.
    pub(crate) fn reserve_for(&mut self, store: &Store, run: &[Entry]) -> Result<(), StateError> {
        let mut bytes = 0;
        for entry in run {
            bytes += growth(store, &entry.payload)?;
        }
        self.reserve(store, bytes)
    }

    fn reserve(&mut self, store: &Store, bytes: u64) -> Result<(), StateError> {
        let used = used(store);
        let needed = used + bytes * GROWTH + AHEAD_BYTES / 2;
        if needed <= self.allocated {
            return Ok(());
        }
        let target = needed + AHEAD_BYTES;
        let length = target - self.allocated;
        // KEEP_SIZE, because the map already made the file as large as it may ever be.
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.allocated, length) {
            Ok(()) => self.allocated = target,
            // A file system that can't allocate ahead: it has no such promise to give.
            Err(Errno::OPNOTSUPP) => self.allocated = target,
            Err(error) => return Err(StateError::file(store.dir.join("data.mdb"))(error.into())),
        }
        Ok(())
    }
}

/// Bytes up to the end of the last page that LMDB has ever used.
fn used(store: &Store) -> u64 {
    (store.env.info().last_page_number as u64 + 1) * store.page_bytes
}

/// About how many bytes of records a payload writes: its own, and those of the rows that it deletes by range, which
/// go into history.
fn growth(store: &Store, payload: &Payload) -> Result<u64, StateError> {
    let commands = match payload {
        Payload::Blank => return Ok(0),
        Payload::Membership(bytes) => return Ok(bytes.len() as u64),
        Payload::Commands(group) => &group.commands,
    };
    let mut bytes = 0;
    for command in commands {
        bytes += command.encoded_len() as u64;
        match &command.op {
            Some(Op::Kv(txn)) => {
                for operation in txn.then.iter().chain(&txn.otherwise) {
                    bytes += match &operation.op {
                        Some(kv_operation::Op::DeleteRange(range)) => {
                            range_bytes(store, &txn.namespace, range)?
                        }
                        Some(kv_operation::Op::Unlock(release)) => released_bytes(store, &release.lock)?,
                        _ => 0,
                    };
                }
            }
            Some(
                Op::LockRelease(command::LockRelease { lock, .. })
                | Op::LockCancel(command::LockCancel { lock, .. })
                | Op::LockResume(command::LockResume { lock, .. }),
            ) => bytes += released_bytes(store, lock)?,
            Some(Op::LeaseRevoke(revoke)) => bytes += lease_bytes(store, &revoke.namespace, revoke.id)?,
            Some(Op::LeaseExpire(expire)) => {
                for due in &expire.leases {
                    bytes += lease_bytes(store, &due.namespace, due.id)?;
                }
            }
            Some(Op::CatalogRegister(register)) => bytes += registered_bytes(store, register)?,
            Some(Op::CheckReport(report)) => {
                let checks = report.reports.iter().filter_map(|report| report.check.as_ref());
                bytes += checked_bytes(store, checks, Fate::Changes)?;
            }
            Some(Op::CheckSettle(settle)) => {
                let checks = settle.checks.iter().filter_map(|held| held.check.as_ref());
                bytes += checked_bytes(store, checks, Fate::Changes)?;
            }
            Some(Op::CatalogReap(reap)) => {
                let checks = reap.instances.iter().filter_map(|overdue| overdue.check.as_ref());
                bytes += checked_bytes(store, checks, Fate::Goes)?;
            }
            Some(Op::CatalogDeregister(CatalogDeregister { namespace, what })) => {
                let owner = CheckOwner::trusted(&Namespace::trusted(namespace), what.as_ref());
                bytes += reach_bytes(store, owner, Fate::Goes)?;
            }
            Some(Op::CatalogMaintain(CatalogMaintain { namespace, what, .. })) => {
                let owner = CheckOwner::trusted(&Namespace::trusted(namespace), what.as_ref());
                bytes += reach_bytes(store, owner, Fate::Changes)?;
            }
            // These touch a few small rows, or those that they bring.
            Some(
                Op::CatalogConfigure(_)
                | Op::RestoreBegin(_)
                | Op::RestoreRows(_)
                | Op::RestoreCommit(_)
                | Op::RestoreAbort(_)
                | Op::Compact(_)
                | Op::TrimHistory(_)
                | Op::LeaseGrant(_)
                | Op::LockAcquire(_)
                | Op::LockSetValue(_),
            )
            | None => {}
        }
    }
    Ok(bytes)
}

/// What goes into history at the end of a lease.
fn lease_bytes(store: &Store, namespace: &str, id: u64) -> Result<u64, StateError> {
    let txn = store.env.read_txn()?;
    let tables = store.sides.present(&store.progress(&txn)?);
    let namespace = Namespace::trusted(namespace);
    let load = bound::load(&tables, &txn, &namespace, LeaseId(id))?;
    let mut bytes = load.bytes + load.count * ROW_BYTES;
    for instance in bound::instances(&tables, &txn, &namespace, LeaseId(id))? {
        bytes += reach_bytes(store, Some(CheckOwner::Instance(instance)), Fate::Goes)?;
    }
    for (kind, name, _) in bound::claims(&tables, &txn, &namespace, LeaseId(id))? {
        let lock = LockId { namespace: namespace.clone(), kind, name: Key::trusted(&name) };
        bytes += line_bytes(store, &txn, &lock)?;
    }
    Ok(bytes)
}

/// What goes into history when nodes and instances are registered over those that are there.
fn registered_bytes(store: &Store, register: &CatalogRegister) -> Result<u64, StateError> {
    let namespace = Namespace::trusted(&register.namespace);
    let mut bytes = 0;
    for Registration { node, instance } in &register.registrations {
        if let Some(node) = node {
            let name = Label::trusted(&node.name);
            let node = CheckOwner::Node(NodeId { namespace: namespace.clone(), name });
            bytes += reach_bytes(store, Some(node), Fate::Changes)?;
        }
        if let Some(InstanceRegistration { service, id, definition, .. }) = instance {
            let key = InstanceKey { service: service.clone(), id: id.clone() };
            let instance = CheckOwner::Instance(InstanceId::trusted(&namespace, &key));
            bytes += reach_bytes(store, Some(instance), Fate::Goes)?;
            bytes += definition.as_ref().map_or(0, indexed_bytes);
        }
    }
    Ok(bytes)
}

/// What goes into history with the results of checks.
fn checked_bytes<'c>(
    store: &Store,
    checks: impl Iterator<Item = &'c CheckName>,
    fate: Fate,
) -> Result<u64, StateError> {
    let mut bytes = 0;
    for check in checks {
        bytes += reach_bytes(store, CheckId::trusted(Some(check)).map(|check| check.owner), fate)?;
    }
    Ok(bytes)
}

/// The bytes of all rows that may change with an instance or a node: their own, those of their checks, of a node's instances, of who
/// follows those, and of what those are found by that go.
fn reach_bytes(store: &Store, owner: Option<CheckOwner>, fate: Fate) -> Result<u64, StateError> {
    let Some(owner) = owner else { return Ok(0) };
    let txn = store.env.read_txn()?;
    let tables = store.sides.present(&store.progress(&txn)?);
    let mut bytes = ROW_BYTES + checks_bytes(&tables, &txn, &owner)?;
    let instances = match &owner {
        CheckOwner::Instance(id) => vec![id.clone()],
        CheckOwner::Node(id) => {
            bytes += row_bytes::<node::Node>(&tables, &txn, id)?;
            let by = By::Node(id.name.as_str());
            found::instances(&tables, &txn, &id.namespace, &by, None, usize::MAX)?
        }
    };
    for id in instances {
        bytes += row_bytes::<instance::Instance>(&tables, &txn, &id)?;
        if fate == Fate::Goes {
            let record = record::<instance::Instance>(&tables, &txn, &id)?;
            let definition = record.and_then(|record| record.definition);
            bytes += definition.as_ref().map_or(0, indexed_bytes);
            if matches!(owner, CheckOwner::Node(_)) {
                bytes += checks_bytes(&tables, &txn, &CheckOwner::Instance(id.clone()))?;
            }
        }
        for follower in found::followers(&tables, &txn, &id)? {
            bytes += row_bytes::<check::Check>(&tables, &txn, &follower)?;
            if let CheckOwner::Instance(id) = &follower.owner {
                bytes += row_bytes::<instance::Instance>(&tables, &txn, id)?;
            }
        }
    }
    Ok(bytes)
}

/// What the rows come to that an instance is found by.
fn indexed_bytes(definition: &InstanceDefinition) -> u64 {
    ROW_BYTES * (1 + definition.tags.len() + definition.metadata.len()) as u64
}

fn row_bytes<T: ObjectTable>(tables: &Tables, txn: &RoTxn<'_>, key: &T::Key) -> Result<u64, StateError> {
    let mut row_key = Vec::with_capacity(96);
    T::encode_key(key, &mut row_key);
    let row = T::db(tables).get(txn, &row_key)?;
    Ok(row.map_or(0, |row| ROW_BYTES + (row_key.len() + row.len()) as u64))
}

fn record<T: ObjectTable>(
    tables: &Tables,
    txn: &RoTxn<'_>,
    key: &T::Key,
) -> Result<Option<T::Record>, StateError> {
    let mut row_key = Vec::with_capacity(96);
    T::encode_key(key, &mut row_key);
    let Some(row) = T::db(tables).get(txn, &row_key)? else { return Ok(None) };
    decode(T::SPEC, Bytes::copy_from_slice(Link::split(row)?.1)).map(Some)
}

fn checks_bytes(tables: &Tables, txn: &RoTxn<'_>, owner: &CheckOwner) -> Result<u64, StateError> {
    let checks = check::of_owner(tables, txn, owner)?;
    Ok(checks.iter().map(|(_, record)| ROW_BYTES + record.encoded_len() as u64).sum())
}

/// What goes into history when a lock is given up.
fn released_bytes(store: &Store, lock: &Option<LockName>) -> Result<u64, StateError> {
    let txn = store.env.read_txn()?;
    line_bytes(store, &txn, &LockId::trusted(&lock.clone().unwrap_or_default()))
}

/// What goes into history when all are granted a lock who wait for it.
fn line_bytes(store: &Store, txn: &RoTxn<'_, WithoutTls>, lock: &LockId) -> Result<u64, StateError> {
    let found = lock::get(&store.sides.present(&store.progress(txn)?), txn, lock)?.unwrap_or_default();
    Ok(if found.waiting > 0 { found.value_bytes + found.waiting * ROW_BYTES } else { 0 })
}

fn range_bytes(store: &Store, namespace: &str, range: &KvDeleteRange) -> Result<u64, StateError> {
    let span = range.span.clone().unwrap_or_default();
    let (from, to) = kv::row_bounds(&Namespace::trusted(namespace), &span);
    let txn = store.env.read_txn()?;
    let tables = store.sides.present(&store.progress(&txn)?);
    let mut bytes = 0;
    for row in tables.kv.range(&txn, &(Bound::Included(&from[..]), Bound::Excluded(&to[..])))? {
        let (row_key, row) = row?;
        bytes += (row_key.len() + row.len()) as u64;
        if bytes > MAX_RANGE_BYTES {
            break;
        }
    }
    Ok(bytes)
}
