//! When leases end, in the memory of the leader alone. A lease is due when its time is over since it was granted, refreshed, or since
//! this member began to lead, whichever is latest. Nothing here is written to disk or told to another member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_state::batch::LeaseChange;
use konsul_state::view::{LeaseHeld, LockHeld};
use konsul_state::{Batch, Change, LeaseId, LockId, Namespace};
use parking_lot::Mutex;

use crate::timers::Timers;

/// How soon an end is proposed again that was not carried out.
const AGAIN_MS: u64 = 500;

/// A lease's name.
pub(crate) type Name = (Namespace, LeaseId);

/// The deadlines of all leases, while this member leads.
pub(crate) struct Deadlines {
    book: Mutex<Book>,
    /// Times are counted from here.
    origin: Instant,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { book: Mutex::default(), origin: Instant::now() }
    }
}

#[derive(Default)]
struct Book {
    phase: Phase,
    leases: HashMap<Name, Lease>,
    /// When they end. A lease whose end is proposed does not wait, and is refreshed no more.
    ends: Timers<Name>,
    held_back: HashMap<LockId, HeldBack>,
    /// How long this member stood still while it led, all in all: no time passed for the leases.
    stood_still_ms: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// This member does not lead.
    #[default]
    Resting,
    /// It leads, and reads what there is; what changes meanwhile is followed.
    Loading,
    /// It knows all leases in this term.
    Leading(u64),
}

/// What has to be known of a lease.
struct Lease {
    ttl_ms: u64,
    create_revision: u64,
}

/// A lock that is held back.
struct HeldBack {
    /// Since which revision.
    since: u64,
    /// Since when, by this member's clock, and for how long.
    from_ms: u64,
    delay_ms: u64,
}

/// A lease whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) name: Name,
    pub(crate) create_revision: u64,
}

impl Deadlines {
    /// Whether all leases are known in this term.
    pub(crate) fn leads(&self, term: u64) -> bool {
        self.book.lock().phase == Phase::Leading(term)
    }

    /// This member does not lead any more.
    pub(crate) fn rest(&self) {
        let mut book = self.book.lock();
        if book.phase != Phase::Resting {
            *book = Book::default();
        }
    }

    /// This member leads, and begins to load.
    pub(crate) fn begin(&self) {
        *self.book.lock() = Book { phase: Phase::Loading, ..Book::default() };
    }

    /// Takes in what `read` finds in the state, each lease with its full time. Nothing is published while it reads, so what it
    /// finds is not gone by the time it is taken in.
    pub(crate) fn load<E>(
        &self,
        read: impl FnOnce() -> Result<(Vec<LeaseHeld>, Vec<LockHeld>), E>,
    ) -> Result<Option<Name>, E> {
        let mut book = self.book.lock();
        let (leases, locks) = read()?;
        let now = self.now_ms(&book);
        let last = leases.last().map(|lease| (lease.namespace.clone(), lease.id));
        for LeaseHeld { namespace, id, record } in leases {
            book.enter((namespace, id), record.ttl_ms, record.create_revision, now);
        }
        for LockHeld { lock, record } in locks {
            book.hold_back(lock, record.held_back_since, record.delay_ms, now);
        }
        Ok(last)
    }

    /// All leases are known now.
    pub(crate) fn lead(&self, term: u64) {
        let mut book = self.book.lock();
        if book.phase == Phase::Loading {
            book.phase = Phase::Leading(term);
        }
    }

    /// Time in which this member stood still does not count: refreshes could not come in.
    pub(crate) fn stood_still(&self, by: Duration) {
        let mut book = self.book.lock();
        book.stood_still_ms += u64::try_from(by.as_millis()).unwrap_or(0);
    }

    /// Begins the leases' time anew, and tells how long that is; 0 for one that is not there. `None` unless this member leads in
    /// this term.
    pub(crate) fn refresh(
        &self,
        term: u64,
        namespace: &Namespace,
        ids: impl Iterator<Item = LeaseId>,
    ) -> Option<Vec<u64>> {
        self.visit(term, namespace, ids, |book, name, now| {
            let ttl_ms = book.leases.get(name)?.ttl_ms;
            book.ends.put_off(name, now + ttl_ms).then_some(ttl_ms)
        })
    }

    /// How long the leases have, in ms; 0 for one that is not there. `None` unless this member leads in this term.
    pub(crate) fn left(
        &self,
        term: u64,
        namespace: &Namespace,
        ids: impl Iterator<Item = LeaseId>,
    ) -> Option<Vec<u64>> {
        self.visit(term, namespace, ids, |book, name, now| {
            Some(book.ends.at_ms(name)?.saturating_sub(now).max(1))
        })
    }

    fn visit(
        &self,
        term: u64,
        namespace: &Namespace,
        ids: impl Iterator<Item = LeaseId>,
        mut visit: impl FnMut(&mut Book, &Name, u64) -> Option<u64>,
    ) -> Option<Vec<u64>> {
        let mut book = self.book.lock();
        if book.phase != Phase::Leading(term) {
            return None;
        }
        let now = self.now_ms(&book);
        let mut name = (namespace.clone(), LeaseId(0));
        let told = ids.map(|id| {
            name.1 = id;
            visit(&mut book, &name, now).unwrap_or(0)
        });
        Some(told.collect())
    }

    /// Takes out leases whose time is over, at most `most`. Each is to be ended, or given back with [`Self::again`].
    pub(crate) fn due(&self, most: usize) -> Vec<Due> {
        let mut book = self.book.lock();
        let now = self.now_ms(&book);
        let names = book.ends.due(now, most);
        let due = |name: Name| {
            let create_revision = book.leases.get(&name)?.create_revision;
            Some(Due { name, create_revision })
        };
        names.into_iter().filter_map(due).collect()
    }

    /// These are ended, if they were there at all.
    pub(crate) fn ended(&self, leases: &[Due]) {
        let mut book = self.book.lock();
        for due in leases {
            if book.leases.get(&due.name).is_some_and(|lease| lease.create_revision == due.create_revision) {
                book.forget(&due.name);
            }
        }
    }

    /// These were not ended: they are due again soon.
    pub(crate) fn again(&self, leases: &[Due]) {
        let mut book = self.book.lock();
        let at_ms = self.now_ms(&book) + AGAIN_MS;
        for due in leases {
            let known = book.leases.get(&due.name);
            // Another lease may have got the same id meanwhile, and has its own time.
            let is_same = |lease: &Lease| lease.create_revision == due.create_revision;
            if known.is_some_and(is_same) && book.ends.at_ms(&due.name).is_none() {
                book.ends.set(&due.name, at_ms);
            }
        }
    }

    /// Locks that have been held back for as long as they must be, at most `most`, and since which revision.
    pub(crate) fn resumable(&self, most: usize) -> Vec<(LockId, u64)> {
        let book = self.book.lock();
        let now = self.now_ms(&book);
        let over = book.held_back.iter().filter(|(_, held)| held.from_ms + held.delay_ms <= now);
        over.take(most).map(|(lock, held)| (lock.clone(), held.since)).collect()
    }

    /// Follows what was committed.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        let concerns = |change: &Change| matches!(change, Change::Lease(_) | Change::Lock(_));
        if !batches.iter().any(|batch| batch.changes.iter().any(concerns)) {
            return;
        }
        let mut book = self.book.lock();
        if book.phase == Phase::Resting {
            return;
        }
        let now = self.now_ms(&book);
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            match change {
                Change::Lease(LeaseChange { namespace, id, after, .. }) => {
                    let name = (namespace.clone(), *id);
                    match after {
                        Some(record) => book.enter(name, record.ttl_ms, record.create_revision, now),
                        None => book.forget(&name),
                    }
                }
                Change::Lock(change) => {
                    match change.after.as_ref().filter(|lock| lock.held_back_since != 0) {
                        Some(lock) => {
                            book.hold_back(change.lock.clone(), lock.held_back_since, lock.delay_ms, now);
                        }
                        None => drop(book.held_back.remove(&change.lock)),
                    }
                }
                Change::Kv(_)
                | Change::Claim(_)
                | Change::Node(_)
                | Change::Service(_)
                | Change::Instance(_)
                | Change::Check(_) => {}
            }
        }
    }

    /// The whole state is another one: what was known is to be loaded again.
    pub(crate) fn reset(&self) {
        self.rest();
    }

    /// How many leases are known.
    pub(crate) fn count(&self) -> usize {
        self.book.lock().leases.len()
    }

    fn now_ms(&self, book: &Book) -> u64 {
        let ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        ms.saturating_sub(book.stood_still_ms)
    }
}

impl Book {
    fn enter(&mut self, name: Name, ttl_ms: u64, create_revision: u64, now: u64) {
        if self.leases.get(&name).is_some_and(|known| known.create_revision == create_revision) {
            return;
        }
        self.forget(&name);
        self.leases.insert(name.clone(), Lease { ttl_ms, create_revision });
        self.ends.set(&name, now + ttl_ms);
    }

    fn forget(&mut self, name: &Name) {
        self.ends.cancel(name);
        self.leases.remove(name);
    }

    fn hold_back(&mut self, lock: LockId, since: u64, delay_ms: u64, now: u64) {
        if since == 0 {
            return;
        }
        let fresh = HeldBack { since, from_ms: now, delay_ms };
        let held = self.held_back.entry(lock).or_insert(fresh);
        if held.since == since {
            // Several holders may be lost at one revision: the longest delay counts.
            held.delay_ms = held.delay_ms.max(delay_ms);
        } else {
            *held = HeldBack { since, from_ms: now, delay_ms };
        }
    }
}
