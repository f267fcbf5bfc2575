//! What the services share: how a read gets its view of the state, and how a write becomes a Command and its
//! Outcome. What a method means is in its own file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use konsul_proto::v1;
use konsul_state::command::{self, Outcome, command::Op, outcome};
use konsul_state::propose::Propose;
use konsul_state::{Command, Revision, State, View};
use prost::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tonic::Request;

use crate::caller::Caller;
use crate::error::ServiceError;
use crate::limits::{self, Limits};
use crate::parse;
use crate::readers::Readers;

/// What a write of small rows comes to, history included.
const SMALL_BYTES: u64 = 512;

/// What the services share.
pub(crate) struct Core {
    pub(crate) state: State,
    pub(crate) propose: Arc<dyn Propose>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) limits: Limits,
    /// Told after each compaction, so that its rows are reclaimed soon.
    pub(crate) compacted: Arc<Notify>,
    /// Bytes accepted since the store's size was last looked at.
    unmeasured_bytes: AtomicU64,
    /// Backups that are being streamed.
    pub(crate) snapshots: Places,
    /// Streams of refreshes that are open.
    pub(crate) keep_alives: Places,
    /// Streams of heartbeats that are open.
    pub(crate) heartbeats: Places,
}

/// So many at a time of something that goes on for long.
pub(crate) struct Places {
    places: Arc<Semaphore>,
    what: &'static str,
    reason: &'static str,
    limit: usize,
}

impl Places {
    fn new(what: &'static str, reason: &'static str, limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(limit)), what, reason, limit }
    }

    /// Takes a place, which is free again when what is returned is dropped.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, ServiceError> {
        let Self { what, reason, limit, .. } = *self;
        self.places.clone().try_acquire_owned().map_err(|_| ServiceError::TooMany { what, reason, limit })
    }
}

/// Who writes, and under which idempotency key.
pub(crate) struct Writer {
    caller: Caller,
    idempotency_key: String,
}

impl Writer {
    /// The writer of a request.
    pub(crate) fn of<T>(request: &Request<T>) -> Result<Self, ServiceError> {
        let idempotency_key = parse::idempotency_key(request.metadata())?;
        Ok(Self { caller: Caller::of(request.extensions()), idempotency_key })
    }

    /// Nobody: the server itself.
    pub(crate) fn nobody() -> Self {
        Self { caller: Caller::nobody(), idempotency_key: String::new() }
    }

    /// The same without an idempotency key.
    pub(crate) fn without_key(self) -> Self {
        Self { idempotency_key: String::new(), ..self }
    }
}

impl Core {
    pub(crate) fn new(
        state: State,
        propose: Arc<dyn Propose>,
        readers: Arc<Readers>,
        limits: Limits,
        compacted: Arc<Notify>,
    ) -> Self {
        // The first write measures the store.
        let keep_alives = limits.max_keep_alive_streams;
        let heartbeats = limits.max_heartbeat_streams;
        Self {
            state,
            propose,
            readers,
            limits,
            compacted,
            snapshots: Places::new("snapshots", "TOO_MANY_SNAPSHOTS", limits::SNAPSHOTS),
            keep_alives: Places::new("streams of refreshes", "TOO_MANY_KEEP_ALIVES", keep_alives),
            heartbeats: Places::new("streams of heartbeats", "TOO_MANY_HEARTBEATS", heartbeats),
            unmeasured_bytes: AtomicU64::new(u64::MAX / 2),
        }
    }

    /// A view that is as fresh as asked for, and has `pinned` if the read goes on from an earlier page.
    pub(crate) async fn view(
        &self,
        read: Option<&v1::ReadOptions>,
        pinned: Option<Revision>,
    ) -> Result<View, ServiceError> {
        let default = v1::ReadOptions::default();
        let read = read.unwrap_or(&default);
        if let Some(error) = self.propose.unfit() {
            return Err(error.into());
        }
        match v1::Consistency::try_from(read.consistency) {
            Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => {
                if read.max_staleness.is_some() {
                    return Err(ServiceError::field(
                        "read.max_staleness",
                        "must be unset unless consistency is STALE",
                    ));
                }
                self.propose.read_barrier().await?;
            }
            Ok(v1::Consistency::Stale) => self.check_staleness(read)?,
            Err(_) => return Err(ServiceError::field("read.consistency", "must be a value of Consistency")),
        }
        let least = Revision(read.min_revision).max(pinned.unwrap_or_default());
        if least > self.readers.hub.revision() && least > self.state.view()?.revision() {
            self.await_revision(least).await?;
        }
        Ok(self.state.view()?)
    }

    fn check_staleness(&self, read: &v1::ReadOptions) -> Result<(), ServiceError> {
        let Some(bound) = &read.max_staleness else { return Ok(()) };
        let bound = parse::duration("read.max_staleness", bound, limits::STALENESS)?;
        let last_contact = self.propose.standing().last_contact_ms.map(Duration::from_millis);
        match last_contact {
            Some(age) if age <= bound => Ok(()),
            last_contact => Err(ServiceError::StaleReadTooOld { last_contact }),
        }
    }

    async fn await_revision(&self, revision: Revision) -> Result<(), ServiceError> {
        let current = self.readers.hub.revision();
        if revision.0.saturating_sub(current.0) > limits::REVISIONS_AHEAD {
            return Err(ServiceError::Future { revision, current });
        }
        self.readers.hub.applied(revision).await
    }

    /// Has a write carried out. A refusal comes back as an error.
    pub(crate) async fn write(&self, writer: Writer, op: Op) -> Result<Outcome, ServiceError> {
        let random = if needs_random(&op) { rand::random() } else { 0 };
        self.write_with(writer, op, random).await
    }

    /// The same, with a random value that the caller has drawn.
    pub(crate) async fn write_with(
        &self,
        writer: Writer,
        op: Op,
        random: u64,
    ) -> Result<Outcome, ServiceError> {
        self.check_room(&op, &writer)?;
        let command = Command {
            format: self.propose.format(),
            time_ms: now_ms(),
            caller: writer.caller.into_name(),
            idempotency_key: writer.idempotency_key,
            random,
            op: Some(op),
        };
        let mut outcome = self.propose.propose(command).await?;
        if let Some(outcome::Result::Refused(_)) = &outcome.result
            && let Some(outcome::Result::Refused(refusal)) = outcome.result.take()
        {
            return Err(refusal.into());
        }
        Ok(outcome)
    }

    /// What somebody should look at, given the bytes in use.
    pub(crate) fn warnings(&self, used: u64) -> Vec<String> {
        let (limit, soft) = (self.limits.max_store_bytes, self.limits.soft_store_bytes());
        let what = match used {
            used if used >= limit => "writes that grow it are refused",
            used if used >= soft => "beyond that, writes that grow it are refused",
            _ => return Vec::new(),
        };
        vec![format!(
            "the store has {used} of at most {limit} bytes, and {what}: delete keys and compact, or raise limits.max_store_bytes"
        )]
    }

    /// Refuses a write that grows a full store. The store is measured again after every so many bytes were
    /// accepted, and before every write while it is full, so that it opens by itself. A retry of what was carried out
    /// adds nothing and gets its outcome.
    fn check_room(&self, op: &Op, writer: &Writer) -> Result<(), ServiceError> {
        let Some(bytes) = growth(op) else { return Ok(()) };
        let limit = self.limits.max_store_bytes;
        if matches!(op, Op::RestoreRows(_)) {
            // Two states of the greatest size have room beside each other in the store's map.
            let used = self.state.view()?.staged_bytes()? + bytes;
            return if used > limit { Err(ServiceError::StoreFull { used, limit }) } else { Ok(()) };
        }
        let measure_after = (limit / 1024).clamp(4 << 10, 1 << 20);
        if self.unmeasured_bytes.fetch_add(bytes, Ordering::Relaxed) < measure_after {
            return Ok(());
        }
        let view = self.state.view()?;
        let used = view.used_bytes()?;
        if used >= limit {
            let key = &writer.idempotency_key;
            if !key.is_empty() && view.remembers(writer.caller.name(), key)? {
                return Ok(());
            }
            return Err(ServiceError::StoreFull { used, limit });
        }
        self.unmeasured_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether applying it takes an id out of the Command's random value.
fn needs_random(op: &Op) -> bool {
    let has_ttl = |operation: &command::KvOperation| matches!(&operation.op, Some(command::kv_operation::Op::Put(put)) if put.ttl_ms > 0);
    match op {
        Op::Kv(txn) => txn.then.iter().chain(&txn.otherwise).any(has_ttl),
        Op::LeaseGrant(grant) => grant.id == 0,
        _ => false,
    }
}

/// Bytes that a write may add to the store: each value is kept with its entry and in history. `None` if it
/// puts nothing.
fn growth(op: &Op) -> Option<u64> {
    match op {
        Op::Kv(txn) => txn_growth(txn),
        Op::LeaseGrant(_) => Some(SMALL_BYTES),
        Op::LockAcquire(acquire) => Some(lock_growth(acquire)),
        Op::LockSetValue(set) => Some(SMALL_BYTES + 2 * set.value.len() as u64),
        Op::RestoreRows(part) => {
            Some(part.rows.iter().map(|row| (row.key.len() + row.row.len()) as u64).sum())
        }
        Op::CatalogRegister(register) => {
            Some(register.registrations.len() as u64 * SMALL_BYTES + 2 * register.encoded_len() as u64)
        }
        Op::CatalogConfigure(configure) => Some(SMALL_BYTES + 2 * configure.encoded_len() as u64),
        // What is known of health must not grow old because the store is full, and it is bounded by what is registered.
        Op::CheckReport(_)
        | Op::CheckSettle(_)
        | Op::CatalogMaintain(_)
        | Op::CatalogDeregister(_)
        | Op::CatalogReap(_)
        | Op::Compact(_)
        | Op::RestoreBegin(_)
        | Op::RestoreCommit(_)
        | Op::RestoreAbort(_)
        | Op::TrimHistory(_)
        | Op::LeaseRevoke(_)
        | Op::LeaseExpire(_)
        | Op::LockRelease(_)
        | Op::LockCancel(_)
        | Op::LockResume(_) => None,
    }
}

fn lock_growth(acquire: &command::LockAcquire) -> u64 {
    SMALL_BYTES + 2 * acquire.value.len() as u64
}

fn txn_growth(txn: &command::KvTxn) -> Option<u64> {
    let put_bytes = |operation: &command::KvOperation| match &operation.op {
        Some(command::kv_operation::Op::Put(put)) => {
            let lease = if put.ttl_ms > 0 { SMALL_BYTES } else { 0 };
            Some(2 * (put.key.len() + put.value.len()) as u64 + 256 + lease)
        }
        Some(command::kv_operation::Op::Lock(acquire)) => Some(lock_growth(acquire)),
        _ => None,
    };
    txn.then.iter().chain(&txn.otherwise).filter_map(put_bytes).reduce(|a, b| a + b)
}

/// The clock that stamps Commands.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
