//! The watchers of one runtime. Publishing wakes a shard once, however many watchers it has; the shard's task
//! matches the new Batches against its index and wakes the watchers concerned, all on its own runtime.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use konsul_state::Revision;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::runtime;
use tokio::sync::Notify;

use super::hub::Hub;
use super::index::Index;
use super::messages::Chunk;
use super::ring::Recent;
use super::stream::Position;
use super::target::TargetSpec;

/// Most Batches that are matched at a stretch.
const BATCHES_AT_ONCE: usize = 64;
/// Changes after which the task lets others run.
const CHANGES_AT_ONCE: usize = 4096;
/// Most chunks kept for other watchers of the same target.
const SHARED_CHUNKS: usize = 32;

/// The watchers of one runtime.
pub(super) struct Shard {
    pub(super) runtime: runtime::Id,
    pub(super) index: Mutex<Index>,
    /// Number of targets in the index. A shard without any is not woken.
    pub(super) targets: AtomicUsize,
    /// Every target that a revision up to this one concerns is marked, or has seen it.
    matched: AtomicU64,
    wake: Notify,
    shared: Mutex<SharedChunks>,
    pub(super) events_sent: AtomicU64,
}

/// What a watcher shares with its shard: which of its targets have something to send, and from where on.
pub(super) struct WatcherCell {
    pub(super) waker: AtomicWaker,
    ready: Mutex<Vec<u32>>,
    /// For each target the first revision not sent that concerns it; `NOTHING` if there is none.
    dirty: Box<[AtomicU64]>,
}

const NOTHING: u64 = u64::MAX;

impl WatcherCell {
    pub(super) fn new(targets: usize) -> Self {
        let dirty = (0..targets).map(|_| AtomicU64::new(NOTHING)).collect();
        Self { waker: AtomicWaker::new(), ready: Mutex::default(), dirty }
    }

    /// Says that a revision concerns a target, and wakes the watcher if it did not know of any.
    pub(super) fn mark(&self, target: u32, revision: Revision) {
        if self.dirty[target as usize].fetch_min(revision.0, Ordering::AcqRel) == NOTHING {
            self.ready.lock().push(target);
            self.waker.wake();
        }
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Takes the targets that were marked, with the first revision that concerns each.
    pub(super) fn take_marked(&self, mut each: impl FnMut(u32, Revision)) {
        let ready = std::mem::take(&mut *self.ready.lock());
        for target in ready {
            let revision = self.dirty[target as usize].swap(NOTHING, Ordering::AcqRel);
            each(target, Revision(revision));
        }
    }
}

impl Shard {
    pub(super) fn new(runtime: runtime::Id, head: Revision, shared_bytes: usize) -> Self {
        Self {
            runtime,
            index: Mutex::default(),
            targets: AtomicUsize::new(0),
            matched: AtomicU64::new(head.0),
            wake: Notify::new(),
            shared: Mutex::new(SharedChunks { chunks: VecDeque::new(), bytes: 0, max_bytes: shared_bytes }),
            events_sent: AtomicU64::new(0),
        }
    }

    /// Wakes the shard's task.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Every target that a revision up to this one concerns is marked, or has seen it.
    pub(super) fn matched(&self) -> Revision {
        Revision(self.matched.load(Ordering::Acquire))
    }

    /// Enters a target; whatever is published after the revision that is returned will be marked for it.
    pub(super) fn insert(
        &self,
        hub: &Hub,
        spec: &TargetSpec,
        cell: Arc<WatcherCell>,
        target: u32,
    ) -> (usize, Revision) {
        let mut index = self.index.lock();
        let was_empty = index.is_empty();
        let place = index.insert(spec, cell, target);
        // Counted before the head is looked at, and the publisher moves the head before it looks at the count:
        // it wakes this shard for all that is published after the head seen here.
        self.targets.fetch_add(1, Ordering::SeqCst);
        let head = hub.revision();
        if was_empty {
            self.matched.fetch_max(head.0, Ordering::AcqRel);
        }
        (place, head)
    }

    /// Takes a target out.
    pub(super) fn remove(&self, spec: &TargetSpec, place: usize) {
        self.index.lock().remove(spec, place);
        self.targets.fetch_sub(1, Ordering::SeqCst);
    }

    /// The shard's task: matches what is published until the hub stops or is gone.
    pub(super) async fn run(self: Arc<Self>, hub: Weak<Hub>) {
        let _leave = Leave { shard: &self, hub: hub.clone() };
        loop {
            self.wake.notified().await;
            let Some(hub) = hub.upgrade() else { return };
            if hub.is_stopping() {
                self.index.lock().wake_all();
                return;
            }
            while let Some(changes) = self.match_some(&hub) {
                if changes >= CHANGES_AT_ONCE {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Matches some of what was published, and returns how many changes it was; `None` when nothing is left.
    fn match_some(&self, hub: &Hub) -> Option<usize> {
        let from = self.matched().next();
        match hub.recent(from, BATCHES_AT_ONCE) {
            Recent::Gone(head) => {
                self.index.lock().mark_all(from);
                self.matched.fetch_max(head.0, Ordering::AcqRel);
                Some(CHANGES_AT_ONCE)
            }
            Recent::Batches(batches) => {
                let last = batches.last()?.revision;
                let mut index = self.index.lock();
                batches.iter().for_each(|batch| index.mark(batch));
                self.matched.fetch_max(last.0, Ordering::AcqRel);
                Some(batches.iter().map(|b| b.changes.len()).sum())
            }
        }
    }

    /// A chunk that another watcher of the same target was sent from the same position.
    pub(super) fn shared(&self, spec: &TargetSpec, start: Position, head: Revision) -> Option<Chunk> {
        self.shared.lock().find(spec, start, head)
    }

    /// Keeps a chunk for other watchers.
    pub(super) fn share(&self, spec: &Arc<TargetSpec>, start: Position, head: Revision, chunk: &Chunk) {
        let shared = SharedChunk { spec: Arc::clone(spec), start, head, chunk: chunk.clone() };
        self.shared.lock().push(shared);
    }
}

/// Takes the shard off the hub when its task ends, also when its runtime does.
struct Leave<'s> {
    shard: &'s Arc<Shard>,
    hub: Weak<Hub>,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.leave(self.shard);
        }
    }
}

/// The last chunks encoded, newest last.
struct SharedChunks {
    chunks: VecDeque<SharedChunk>,
    bytes: usize,
    max_bytes: usize,
}

struct SharedChunk {
    spec: Arc<TargetSpec>,
    start: Position,
    head: Revision,
    chunk: Chunk,
}

impl SharedChunk {
    fn bytes(&self) -> usize {
        self.chunk.message.as_ref().map_or(0, Bytes::len)
    }
}

impl SharedChunks {
    fn find(&self, spec: &TargetSpec, start: Position, head: Revision) -> Option<Chunk> {
        let same = |c: &&SharedChunk| c.start == start && c.head == head && *c.spec == *spec;
        self.chunks.iter().rev().find(same).map(|c| c.chunk.clone())
    }

    fn push(&mut self, chunk: SharedChunk) {
        self.bytes += chunk.bytes();
        self.chunks.push_back(chunk);
        while self.chunks.len() > SHARED_CHUNKS || self.bytes > self.max_bytes {
            let Some(oldest) = self.chunks.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}
