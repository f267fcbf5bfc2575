//! Reads that wait until a revision is applied. A publish that nobody waits for costs one atomic load.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use konsul_state::Revision;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Who waits for which revision.
pub(super) struct Waiters {
    waiting: Mutex<Waiting>,
    /// The smallest revision that somebody waits for; `NOBODY` if nobody does.
    least: AtomicU64,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    by_revision: BTreeMap<(Revision, u64), oneshot::Sender<()>>,
    next_id: u64,
}

const NOBODY: u64 = u64::MAX;

/// One that waits. Dropping it takes it out.
pub(super) struct Waiter<'w> {
    waiters: &'w Waiters,
    place: (Revision, u64),
    applied: oneshot::Receiver<()>,
}

impl Waiters {
    pub(super) fn new(max: usize) -> Self {
        Self { waiting: Mutex::default(), least: AtomicU64::new(NOBODY), max }
    }

    /// Enters a waiter; `None` when there are too many.
    pub(super) fn enter(&self, revision: Revision) -> Option<Waiter<'_>> {
        let mut waiting = self.waiting.lock();
        if waiting.by_revision.len() >= self.max {
            return None;
        }
        let place = (revision, waiting.next_id);
        waiting.next_id += 1;
        let (tell, applied) = oneshot::channel();
        waiting.by_revision.insert(place, tell);
        // Sequentially consistent with the publisher's store of the head: either it sees this waiter, or the
        // waiter, which looks at the head after entering, sees the head.
        self.least.fetch_min(revision.0, Ordering::SeqCst);
        Some(Waiter { waiters: self, place, applied })
    }

    /// Lets all go that wait for `head` or less.
    pub(super) fn release(&self, head: Revision) {
        if self.least.load(Ordering::SeqCst) > head.0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        let rest = waiting.by_revision.split_off(&(head.next(), 0));
        let done = std::mem::replace(&mut waiting.by_revision, rest);
        self.remember_least(&waiting);
        drop(waiting);
        for tell in done.into_values() {
            // One that has just given up does not listen any more.
            let _ = tell.send(());
        }
    }

    pub(super) fn count(&self) -> usize {
        self.waiting.lock().by_revision.len()
    }

    /// Lets all go, because the server stops.
    pub(super) fn release_all(&self) {
        self.waiting.lock().by_revision.clear();
    }

    fn remember_least(&self, waiting: &Waiting) {
        let least = waiting.by_revision.first_key_value().map_or(NOBODY, |((revision, _), _)| revision.0);
        self.least.store(least, Ordering::SeqCst);
    }
}

impl Waiter<'_> {
    /// Returns when the revision is applied; false if it was let go for another reason.
    pub(super) async fn applied(mut self) -> bool {
        (&mut self.applied).await.is_ok()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock();
        if waiting.by_revision.remove(&self.place).is_some() {
            self.waiters.remember_least(&waiting);
        }
    }
}
