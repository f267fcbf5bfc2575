//! Callers who wait for their turn at a lock, and those who observe one. Each is told by the very Change that concerns it: a
//! waiter costs nothing until then, and a hand-over wakes one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use konsul_state::batch::ClaimChange;
use konsul_state::{Batch, Change, LockId};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Who waits for what.
pub(crate) struct Turns {
    book: Mutex<Book>,
    /// Those in the book, so that a publish that concerns nobody costs one load.
    count: AtomicUsize,
    stopping: AtomicBool,
    max: usize,
}

#[derive(Default)]
struct Book {
    /// By the attempt that their claims were made or renewed with.
    waiting: HashMap<u64, Vec<oneshot::Sender<Turn>>>,
    observed: HashMap<LockId, Observed>,
}

struct Observed {
    changed: Arc<Notify>,
    observers: usize,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is granted.
    Granted,
    /// It is gone.
    Lost,
    /// A later call waits for it.
    TakenOver,
    /// The state is another one: look.
    Look,
    /// The server stops.
    Stopping,
}

/// One that waits. Dropping it takes it out.
pub(crate) struct Waiting<'t> {
    turns: &'t Turns,
    attempt: u64,
    told: oneshot::Receiver<Turn>,
}

/// One that observes a lock. Dropping it takes it out.
pub(crate) struct Observing {
    turns: Arc<Turns>,
    lock: LockId,
    changed: Arc<Notify>,
}

impl Turns {
    pub(crate) fn new(max: usize) -> Self {
        Self { book: Mutex::default(), count: AtomicUsize::new(0), stopping: AtomicBool::new(false), max }
    }

    /// Enters one that waits for what becomes of an attempt; `None` when there are too many.
    pub(crate) fn enter(&self, attempt: u64) -> Option<Waiting<'_>> {
        let mut book = self.book.lock();
        if self.count.fetch_add(1, Ordering::SeqCst) >= self.max {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let (tell, told) = oneshot::channel();
        if self.stopping.load(Ordering::SeqCst) {
            // Fails only if the receiver, which is ours, were gone.
            let _ = tell.send(Turn::Stopping);
        } else {
            book.waiting.entry(attempt).or_default().push(tell);
        }
        Some(Waiting { turns: self, attempt, told })
    }

    /// Enters one that observes a lock; `None` when there are too many.
    pub(crate) fn observe(self: &Arc<Self>, lock: LockId) -> Option<Observing> {
        let mut book = self.book.lock();
        if self.count.fetch_add(1, Ordering::SeqCst) >= self.max {
            self.count.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let fresh = || Observed { changed: Arc::default(), observers: 0 };
        let observed = book.observed.entry(lock.clone()).or_insert_with(fresh);
        observed.observers += 1;
        let changed = observed.changed.clone();
        Some(Observing { turns: self.clone(), lock, changed })
    }

    /// Follows what was committed.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        // Sequentially consistent with entering: whoever enters after this load finds the change in the state.
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            if let Change::Claim(change) = change {
                self.tell(change);
            }
        }
    }

    fn tell(&self, change: &ClaimChange) {
        let mut book = self.book.lock();
        if let Some(observed) = book.observed.get(&change.lock) {
            observed.changed.notify_waiters();
        }
        let before = change.before.as_ref();
        let after = change.after.as_ref();
        let (attempt, turn) = match (before, after) {
            (Some(before), None) => (before.attempt, Turn::Lost),
            (Some(before), Some(after)) if before.attempt != after.attempt => {
                (before.attempt, Turn::TakenOver)
            }
            (_, Some(after)) if after.granted => (after.attempt, Turn::Granted),
            _ => return,
        };
        for waiter in book.waiting.remove(&attempt).unwrap_or_default() {
            // One that has just given up does not listen any more.
            let _ = waiter.send(turn);
        }
    }

    /// The whole state is another one.
    pub(crate) fn reset(&self) {
        self.tell_all(Turn::Look);
    }

    /// Lets all go, because the server stops, and takes no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.tell_all(Turn::Stopping);
    }

    /// How many wait or observe.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn tell_all(&self, turn: Turn) {
        let mut book = self.book.lock();
        for waiter in book.waiting.drain().flat_map(|(_, waiters)| waiters) {
            let _ = waiter.send(turn);
        }
        for observed in book.observed.values() {
            observed.changed.notify_waiters();
        }
    }
}

impl Waiting<'_> {
    /// What becomes of the claim.
    pub(crate) async fn told(&mut self) -> Turn {
        (&mut self.told).await.unwrap_or(Turn::Look)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.told.close();
        let mut book = self.turns.book.lock();
        if let Some(waiters) = book.waiting.get_mut(&self.attempt) {
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                book.waiting.remove(&self.attempt);
            }
        }
        self.turns.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Observing {
    /// Tells of the next change. It has to be made before the state is looked at.
    pub(crate) fn changed(&self) -> &Notify {
        &self.changed
    }
}

impl Drop for Observing {
    fn drop(&mut self) {
        let mut book = self.turns.book.lock();
        if let Some(observed) = book.observed.get_mut(&self.lock) {
            observed.observers -= 1;
            if observed.observers == 0 {
                book.observed.remove(&self.lock);
            }
        }
        self.turns.count.fetch_sub(1, Ordering::SeqCst);
    }
}
