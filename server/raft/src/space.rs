//! How much space is left, and what may still be written with it. Writes are refused while there still is
//! some, so that what was accepted can be finished, and deletes and compaction, which free space, still fit.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use konsul_state::State;
use konsul_state::command::{Command, command::Op, kv_operation};
use konsul_state::propose::ProposeError;
use parking_lot::RwLock;

use crate::disk::Disk;
use crate::stats::Stats;

/// How often the space is measured at most, in ms.
const CHECK_EVERY_MS: u64 = 100;

const PLENTY: u8 = 0;
const LOW: u8 = 1;
const CRITICAL: u8 = 2;

/// Watches the space on the disk and in the state's map.
///
/// Both have the same reserve. Below it only what frees space is accepted, below half of it nothing is: a
/// delete takes space at first, for its log entry and for the history it adds. Entries that are already in
/// the log are finished from what is left; if even that is used up, the log and the state keep what they
/// have and try again until space returns.
pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reserve_bytes: u64,
    map_bytes: u64,
    state: RwLock<Option<State>>,
    level: AtomicU8,
    began: Instant,
    checked_ms: AtomicU64,
    /// Bytes of entries applied since the last measurement on their account.
    written: AtomicU64,
    log_waits: AtomicBool,
    state_waits: AtomicBool,
    stats: Arc<Stats>,
}

/// Who waits for space.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Waits {
    /// Entries that can't be written to the log.
    Log,
    /// Entries that can't be applied to the state.
    State,
}

impl Space {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        reserve_bytes: u64,
        map_bytes: u64,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            disk,
            dir,
            reserve_bytes,
            map_bytes,
            state: RwLock::new(None),
            level: AtomicU8::new(PLENTY),
            began: Instant::now(),
            checked_ms: AtomicU64::new(0),
            written: AtomicU64::new(0),
            log_waits: AtomicBool::new(false),
            state_waits: AtomicBool::new(false),
            stats,
        }
    }

    /// Watches this state's map too from now on, or, with none, no longer.
    pub(crate) fn watch(&self, state: Option<State>) {
        *self.state.write() = state;
        self.measure();
    }

    /// Whether a Command may be proposed.
    pub(crate) fn admit(&self, command: &Command) -> Result<(), ProposeError> {
        let now_ms = self.began.elapsed().as_millis() as u64;
        let due_ms = self.checked_ms.load(Relaxed) + CHECK_EVERY_MS;
        if now_ms >= due_ms {
            self.checked_ms.store(now_ms, Relaxed);
            self.measure();
        }
        let waits = self.log_waits.load(Relaxed) || self.state_waits.load(Relaxed);
        match self.level.load(Relaxed) {
            _ if waits => Err(ProposeError::DiskFull),
            PLENTY => Ok(()),
            LOW if frees_space(command) => Ok(()),
            _ => Err(ProposeError::DiskFull),
        }
    }

    /// Notes that so much was applied, and measures when it adds up to a part of the reserve.
    pub(crate) fn wrote(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Relaxed) + bytes;
        if written >= self.reserve_bytes / 16 {
            self.written.store(0, Relaxed);
            self.measure();
        }
    }

    /// Notes that accepted entries wait for space, or no longer do.
    pub(crate) fn set_waiting(&self, who: Waits, waits: bool) {
        let (flag, what) = match who {
            Waits::Log => (&self.log_waits, "log"),
            Waits::State => (&self.state_waits, "state"),
        };
        if flag.swap(waits, Relaxed) == waits {
            return;
        }
        let any = self.log_waits.load(Relaxed) || self.state_waits.load(Relaxed);
        self.stats.out_of_space.store(u64::from(any), Relaxed);
        match waits {
            true => tracing::error!(what, "out of space; writes are refused until there is some"),
            false => tracing::info!(what, "there is space again"),
        }
    }

    /// Whether a file of this size may be made without touching the reserve.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        match self.disk.free_bytes(&self.dir) {
            Ok(free) => free >= bytes.saturating_add(self.reserve_bytes / 4),
            Err(_) => true,
        }
    }

    fn measure(&self) {
        let disk = self.disk.free_bytes(&self.dir).unwrap_or_else(|error| {
            tracing::warn!(%error, "the free space of the data directory's disk is not known");
            u64::MAX
        });
        // A map may be smaller than the reserve that suits a disk.
        let map_reserve = self.reserve_bytes.min(self.map_bytes / 4);
        let used =
            self.state.read().as_ref().and_then(|state| state.size_bytes().ok()).map_or(0, |(used, _)| used);
        let map = self.map_bytes.saturating_sub(used);
        let level = level(disk, self.reserve_bytes).max(level(map, map_reserve));
        let before = self.level.swap(level, Relaxed);
        if (before == PLENTY) != (level == PLENTY) {
            match level {
                PLENTY => tracing::info!(disk, map, "there is space again, and writes are accepted"),
                _ => tracing::warn!(disk, map, "space is low; only deletes and compaction are accepted"),
            }
        }
    }
}

fn level(free: u64, reserve: u64) -> u8 {
    match free {
        free if free < reserve / 2 => CRITICAL,
        free if free < reserve => LOW,
        _ => PLENTY,
    }
}

/// Whether a Command only deletes or gives up, so that it leaves more space than it takes, if not at once.
fn frees_space(command: &Command) -> bool {
    match &command.op {
        Some(
            Op::Compact(_)
            | Op::TrimHistory(_)
            | Op::LeaseRevoke(_)
            | Op::LeaseExpire(_)
            | Op::LockRelease(_)
            | Op::LockCancel(_)
            | Op::LockResume(_)
            | Op::RestoreCommit(_)
            | Op::RestoreAbort(_)
            | Op::CatalogDeregister(_)
            | Op::CatalogReap(_),
        ) => true,
        Some(Op::Kv(txn)) => {
            let mut operations =
                txn.then.iter().chain(&txn.otherwise).filter_map(|o| o.op.as_ref()).peekable();
            let grows =
                |op: &kv_operation::Op| matches!(op, kv_operation::Op::Put(_) | kv_operation::Op::Lock(_));
            operations.peek().is_some() && !operations.any(grows)
        }
        Some(
            Op::LeaseGrant(_)
            | Op::LockAcquire(_)
            | Op::LockSetValue(_)
            | Op::RestoreBegin(_)
            | Op::RestoreRows(_)
            | Op::CatalogRegister(_)
            | Op::CatalogMaintain(_)
            | Op::CatalogConfigure(_)
            | Op::CheckReport(_)
            | Op::CheckSettle(_),
        )
        | None => false,
    }
}
