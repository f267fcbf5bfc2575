//! The hub: what is published goes into the ring, wakes each runtime's shard once, and lets waiting reads go.
//! Publishing happens on the applying thread, waits for no watcher and encodes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use konsul_state::propose::{BatchSink, ProposeError};
use konsul_state::{Batch, Revision, State, StateError};
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::ring::{Recent, Ring};
use super::shard::Shard;
use super::waiters::Waiters;
use crate::error::ServiceError;
use crate::limits::Limits;

/// Where committed changes are published and watchers take them from.
pub struct Hub {
    pub(super) state: State,
    pub(super) limits: Limits,
    ring: RwLock<Ring>,
    /// The newest revision published.
    head: AtomicU64,
    /// The revision of the last restore; whoever was told of earlier ones has to begin anew.
    restored: AtomicU64,
    shards: RwLock<Vec<Arc<Shard>>>,
    waiters: Waiters,
    stopping: AtomicBool,
    streams: AtomicUsize,
    targets: AtomicUsize,
    events_sent: AtomicU64,
    tasks: TaskTracker,
}

/// What the hub is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchStats {
    /// Open watch streams.
    pub streams: usize,
    /// Targets of all streams.
    pub targets: usize,
    /// Revisions that are published but not yet matched to watchers, on the runtime that lags most.
    pub lag_revisions: u64,
    /// Batches in the ring.
    pub ring_batches: usize,
    /// Bytes of the Batches in the ring.
    pub ring_bytes: usize,
    /// Reads that wait for a revision.
    pub waiting_reads: usize,
    /// Events sent since the start.
    pub events_sent: u64,
}

impl Hub {
    /// A hub over a state that is not written yet.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub fn new(state: State, limits: Limits) -> Result<Arc<Self>, StateError> {
        let view = state.view()?;
        let (head, restored) = (view.revision(), view.restored_revision());
        drop(view);
        Ok(Arc::new(Self {
            state,
            restored: AtomicU64::new(restored.0),
            ring: RwLock::new(Ring::new(head, limits.watch_ring_batches, limits.watch_ring_bytes)),
            head: AtomicU64::new(head.0),
            shards: RwLock::default(),
            waiters: Waiters::new(limits.max_waiting_reads),
            stopping: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            targets: AtomicUsize::new(0),
            events_sent: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            limits,
        }))
    }

    /// The newest revision published: this member has applied it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision(self.head.load(Ordering::SeqCst))
    }

    /// Returns when this member has applied a revision.
    ///
    /// # Errors
    /// [`ServiceError::TooMany`] when too many reads wait, UNAVAILABLE when the server stops.
    pub(crate) async fn applied(&self, revision: Revision) -> Result<(), ServiceError> {
        let too_many = || ServiceError::TooMany {
            what: "reads waiting for a revision",
            reason: "TOO_MANY_WAITING_READS",
            limit: self.limits.max_waiting_reads,
        };
        let waiter = self.waiters.enter(revision).ok_or_else(too_many)?;
        // Entered before the head and the flag are looked at: whoever moves them looks at the waiters afterwards.
        if self.is_stopping() {
            return Err(ProposeError::ShuttingDown.into());
        }
        if self.revision() >= revision || waiter.applied().await {
            return Ok(());
        }
        Err(ProposeError::ShuttingDown.into())
    }

    /// Ends all streams and waiting reads with UNAVAILABLE and opens no more.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.waiters.release_all();
        self.shards.read().iter().for_each(|shard| shard.wake());
        self.tasks.close();
    }

    /// Returns when the hub's tasks have ended, after [`Hub::stop`].
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// What the hub is doing.
    #[must_use]
    pub fn stats(&self) -> WatchStats {
        let (ring_batches, ring_bytes) = self.ring.read().size();
        let shards = self.shards.read();
        let busy = shards.iter().filter(|shard| shard.targets.load(Ordering::Relaxed) > 0);
        let least = busy.map(|shard| shard.matched()).min();
        let sent = |shard: &Arc<Shard>| shard.events_sent.load(Ordering::Relaxed);
        WatchStats {
            streams: self.streams.load(Ordering::Relaxed),
            targets: self.targets.load(Ordering::Relaxed),
            lag_revisions: least.map_or(0, |least| self.revision().0.saturating_sub(least.0)),
            ring_batches,
            ring_bytes,
            waiting_reads: self.waiters.count(),
            events_sent: self.events_sent.load(Ordering::Relaxed) + shards.iter().map(sent).sum::<u64>(),
        }
    }

    /// The revision of the last restore; 0 if there was none.
    pub(super) fn restored(&self) -> Revision {
        Revision(self.restored.load(Ordering::SeqCst))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn recent(&self, from: Revision, max: usize) -> Recent {
        self.ring.read().from(from, max)
    }

    /// The shard of the runtime this is called on.
    pub(super) fn shard(self: &Arc<Self>) -> Arc<Shard> {
        let runtime = Handle::current().id();
        let find = |shards: &[Arc<Shard>]| shards.iter().find(|s| s.runtime == runtime).cloned();
        if let Some(shard) = find(&self.shards.read()) {
            return shard;
        }
        let mut shards = self.shards.write();
        if let Some(shard) = find(&shards) {
            return shard;
        }
        let shard = Arc::new(Shard::new(runtime, self.revision(), self.limits.watch_shared_bytes));
        self.tasks.spawn(Arc::clone(&shard).run(Arc::downgrade(self)));
        shards.push(Arc::clone(&shard));
        // A stream may have been let in before the stop and come here after it, when all shards there were have been woken.
        if self.is_stopping() {
            shard.wake();
        }
        shard
    }

    pub(super) fn leave(&self, shard: &Arc<Shard>) {
        self.events_sent.fetch_add(shard.events_sent.load(Ordering::Relaxed), Ordering::Relaxed);
        self.shards.write().retain(|s| !Arc::ptr_eq(s, shard));
    }

    /// Counts a stream with its targets in.
    pub(super) fn admit(self: &Arc<Self>, targets: usize) -> Result<Admission, ServiceError> {
        let admission = Admission { hub: Arc::clone(self), targets };
        let streams = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let all_targets = self.targets.fetch_add(targets, Ordering::Relaxed) + targets;
        let too_many = |what, reason, limit| Err(ServiceError::TooMany { what, reason, limit });
        if self.is_stopping() {
            return Err(ProposeError::ShuttingDown.into());
        }
        if streams > self.limits.max_watch_streams {
            return too_many("watch streams", "TOO_MANY_WATCH_STREAMS", self.limits.max_watch_streams);
        }
        if all_targets > self.limits.max_watch_targets {
            return too_many("watch targets", "TOO_MANY_WATCH_TARGETS", self.limits.max_watch_targets);
        }
        Ok(admission)
    }

    fn wake_shards(&self) {
        for shard in self.shards.read().iter() {
            if shard.targets.load(Ordering::SeqCst) > 0 {
                shard.wake();
            }
        }
    }
}

impl BatchSink for Hub {
    fn publish(&self, batches: &[Arc<Batch>]) {
        let mut ring = self.ring.write();
        for batch in batches {
            ring.push(Arc::clone(batch));
        }
        let head = ring.head();
        self.head.store(head.0, Ordering::SeqCst);
        drop(ring);
        self.wake_shards();
        self.waiters.release(head);
    }

    fn reset(&self, revision: Revision) {
        // A state that can't be read stops the member, and with it all streams.
        if let Ok(view) = self.state.view() {
            self.restored.store(view.restored_revision().0, Ordering::SeqCst);
        }
        let mut ring = self.ring.write();
        ring.reset(revision);
        self.head.store(revision.0, Ordering::SeqCst);
        drop(ring);
        self.wake_shards();
        self.waiters.release(revision);
    }
}

/// A stream's place among all streams; given back when it is dropped.
pub(super) struct Admission {
    hub: Arc<Hub>,
    targets: usize,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.hub.streams.fetch_sub(1, Ordering::Relaxed);
        self.hub.targets.fetch_sub(self.targets, Ordering::Relaxed);
    }
}
