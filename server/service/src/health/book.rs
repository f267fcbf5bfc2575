//! What the leader has in memory of checks: when those with a TTL are critical unless somebody passes them, when an instance whose check
//! stays critical is deregistered, when a check that flapped may settle; and the loads that instances reported. The same argument as
//! for leases holds (`lease::deadlines`): a pass is acknowledged by a leader that a quorum confirms afterwards, whoever begins to lead gives every
//! check its full time, and what a deposed leader proposes is refused. Nothing here is written to disk or told to another member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_state::batch::CheckChange;
use konsul_state::command::{CheckRecord, Health, check_definition::Kind};
use konsul_state::{Batch, Change, CheckId, CheckOwner, HOLD_MS, InstanceId, Label, Namespace};
use parking_lot::Mutex;

use crate::timers::Timers;

/// How soon something is proposed again that was not carried out.
const AGAIN_MS: u64 = 500;

/// The checks that have deadlines, while this member leads.
pub(crate) struct Book {
    pages: Mutex<Pages>,
    /// Times are counted from here.
    origin: Instant,
}

impl Default for Book {
    fn default() -> Self {
        Self { pages: Mutex::default(), origin: Instant::now() }
    }
}

#[derive(Default)]
struct Pages {
    phase: Phase,
    checks: HashMap<CheckId, Known>,
    /// The TTL checks of each instance, by its name in one string: whoever passes them need not make an id for it.
    ttl_checks: HashMap<Box<str>, Vec<CheckId>>,
    loads: HashMap<Box<str>, f64>,
    expiries: Timers<CheckId>,
    reaps: Timers<CheckId>,
    settlings: Timers<CheckId>,
    /// How long this member stood still while it led, all in all: no time passed for the checks.
    stood_still_ms: u64,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// This member does not lead.
    #[default]
    Resting,
    /// It leads, and reads what there is; what changes meanwhile is followed.
    Loading,
    /// It knows all checks in this term.
    Leading(u64),
}

/// What has to be known of a check.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// 0: it has none.
    pub(crate) ttl_ms: u64,
    /// 0: never.
    pub(crate) deregister_after_ms: u64,
    pub(crate) status: Health,
    pub(crate) observed: Health,
    pub(crate) since_ms: u64,
    pub(crate) held_until_steady_ms: u64,
    pub(crate) create_revision: u64,
}

impl Known {
    /// Of a check that has deadlines.
    fn of(record: &CheckRecord) -> Option<Self> {
        let definition = record.definition.as_ref()?;
        let ttl_ms = match definition.kind {
            Some(Kind::TtlMs(ms)) => ms,
            _ => 0,
        };
        let known = Self {
            ttl_ms,
            deregister_after_ms: definition.deregister_after_ms,
            status: record.status(),
            observed: record.observed(),
            since_ms: record.since_ms,
            held_until_steady_ms: record.held_until_steady_ms,
            create_revision: record.create_revision,
        };
        let has_deadlines =
            known.ttl_ms > 0 || known.deregister_after_ms > 0 || known.held_until_steady_ms > 0;
        has_deadlines.then_some(known)
    }
}

/// Checks that are due, with what is known of them.
pub(crate) type Due = Vec<(CheckId, Known)>;

/// What is due at a time.
pub(crate) struct AllDue {
    /// Nobody passed them in time.
    pub(crate) expired: Due,
    /// They were critical for too long.
    pub(crate) overdue: Due,
    /// They have not flapped for long enough.
    pub(crate) settled: Due,
}

impl AllDue {
    pub(crate) fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.overdue.is_empty() && self.settled.is_empty()
    }
}

/// A pass of an instance's checks.
pub(crate) struct Passed<'a> {
    pub(crate) service: &'a str,
    pub(crate) instance: &'a str,
    /// Which check; empty: all that have a TTL.
    pub(crate) check: &'a str,
    pub(crate) load: Option<f64>,
}

/// What became of a pass.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// How long it is good for; 0: there is no such check.
    pub(crate) ttl_ms: u64,
    /// The checks whose last result was not that they pass.
    pub(crate) failing: Vec<String>,
}

impl Book {
    /// Whether all checks are known in this term.
    pub(crate) fn leads(&self, term: u64) -> bool {
        self.pages.lock().phase == Phase::Leading(term)
    }

    /// This member does not lead any more, or has another state.
    pub(crate) fn rest(&self) {
        let mut pages = self.pages.lock();
        if pages.phase != Phase::Resting {
            *pages = Pages::default();
        }
    }

    /// This member leads, and begins to load.
    pub(crate) fn begin(&self) {
        *self.pages.lock() = Pages { phase: Phase::Loading, ..Pages::default() };
    }

    /// Takes in what `read` finds in the state, each check with its full time. Nothing is published while it reads, so what it finds is
    /// not gone by the time it is taken in.
    pub(crate) fn load<E>(
        &self,
        read: impl FnOnce() -> Result<Vec<(CheckId, CheckRecord)>, E>,
    ) -> Result<(), E> {
        let mut pages = self.pages.lock();
        let checks = read()?;
        let now = self.now_ms(&pages);
        for (id, record) in checks {
            pages.put(id, Some(&record), now);
        }
        Ok(())
    }

    /// All checks are known now.
    pub(crate) fn lead(&self, term: u64) {
        let mut pages = self.pages.lock();
        if pages.phase == Phase::Loading {
            pages.phase = Phase::Leading(term);
        }
    }

    /// Time in which this member stood still does not count: passes could not come in.
    pub(crate) fn stood_still(&self, by: Duration) {
        self.pages.lock().stood_still_ms += u64::try_from(by.as_millis()).unwrap_or(0);
    }

    /// Begins the time of checks anew that somebody passes. `None` unless this member leads in this term.
    pub(crate) fn pass<'a>(
        &self,
        term: u64,
        namespace: &str,
        passes: impl Iterator<Item = Passed<'a>>,
    ) -> Option<Vec<Told>> {
        let mut pages = self.pages.lock();
        if pages.phase != Phase::Leading(term) {
            return None;
        }
        let now = self.now_ms(&pages);
        let mut name = String::with_capacity(128);
        let told = passes.map(|passed| {
            name_of(namespace, passed.service, passed.instance, &mut name);
            pages.pass(&name, &passed, now)
        });
        Some(told.collect())
    }

    /// What the instances of a service said last of their load. `None` unless this member leads in this term.
    pub(crate) fn loads<'a>(
        &self,
        term: u64,
        namespace: &str,
        service: &str,
        instances: impl Iterator<Item = &'a str>,
    ) -> Option<Vec<Option<f64>>> {
        let pages = self.pages.lock();
        if pages.phase != Phase::Leading(term) {
            return None;
        }
        let mut name = String::with_capacity(128);
        let load = |instance: &str| {
            name_of(namespace, service, instance, &mut name);
            pages.loads.get(name.as_str()).copied()
        };
        Some(instances.map(load).collect())
    }

    /// Takes out what is due, at most `most` of each. It is to be carried out, or given back with [`Self::again`].
    pub(crate) fn due(&self, most: usize) -> AllDue {
        let mut pages = self.pages.lock();
        let now = self.now_ms(&pages);
        let Pages { expiries, reaps, settlings, checks, .. } = &mut *pages;
        let take = |timers: &mut Timers<CheckId>| -> Due {
            let due = timers.due(now, most);
            due.into_iter().filter_map(|id| checks.get(&id).cloned().map(|known| (id, known))).collect()
        };
        AllDue { expired: take(expiries), overdue: take(reaps), settled: take(settlings) }
    }

    /// These were not carried out: what is still due of them is due again soon.
    pub(crate) fn again(&self, due: &Due) {
        let mut pages = self.pages.lock();
        let at_ms = self.now_ms(&pages) + AGAIN_MS;
        for (id, known) in due {
            let Pages { checks, expiries, reaps, settlings, .. } = &mut *pages;
            if checks.get(id) != Some(known) {
                continue;
            }
            let waits = [
                (known.expires(), expiries),
                (known.is_reaped(), reaps),
                (known.held_until_steady_ms > 0, settlings),
            ];
            for (waits, timers) in waits {
                if waits && timers.at_ms(id).is_none() {
                    timers.set(id, at_ms);
                }
            }
        }
    }

    /// Follows what was committed.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        let checks = |batch: &Arc<Batch>| batch.changes.iter().any(|c| matches!(c, Change::Check(_)));
        if !batches.iter().any(checks) {
            return;
        }
        let mut pages = self.pages.lock();
        if pages.phase == Phase::Resting {
            return;
        }
        let now = self.now_ms(&pages);
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            if let Change::Check(CheckChange { id, after, .. }) = change {
                pages.put(id.clone(), after.as_ref(), now);
            }
        }
    }

    /// How many checks are known.
    pub(crate) fn count(&self) -> usize {
        self.pages.lock().checks.len()
    }

    fn now_ms(&self, pages: &Pages) -> u64 {
        let ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        ms.saturating_sub(pages.stood_still_ms)
    }
}

impl Known {
    /// Whether it is critical unless somebody passes it.
    fn expires(&self) -> bool {
        self.ttl_ms > 0 && self.observed != Health::Critical
    }

    /// Whether its instance is deregistered unless it gets better.
    fn is_reaped(&self) -> bool {
        self.deregister_after_ms > 0 && self.status == Health::Critical
    }
}

impl Pages {
    fn put(&mut self, id: CheckId, record: Option<&CheckRecord>, now: u64) {
        let known = record.and_then(Known::of);
        let before = self.checks.get(&id);
        let Some(known) = known else {
            if before.is_some() {
                self.forget(&id);
            }
            return;
        };
        let is_same = |of: fn(&Known) -> u64| before.is_some_and(|before| of(before) == of(&known));
        // A result that came by the log is as good as a pass.
        match known.expires() {
            true => self.expiries.set(&id, now + known.ttl_ms),
            false => self.expiries.cancel(&id),
        }
        if !known.is_reaped() {
            self.reaps.cancel(&id);
        } else if !is_same(|known| known.since_ms) || self.reaps.at_ms(&id).is_none() {
            self.reaps.set(&id, now + known.deregister_after_ms);
        }
        if known.held_until_steady_ms == 0 {
            self.settlings.cancel(&id);
        } else if !is_same(|known| known.held_until_steady_ms) {
            self.settlings.set(&id, now + HOLD_MS);
        }
        let had_ttl = before.is_some_and(|before| before.ttl_ms > 0);
        if known.ttl_ms > 0 && !had_ttl {
            if let Some(name) = instance_of(&id) {
                self.ttl_checks.entry(name).or_default().push(id.clone());
            }
        } else if known.ttl_ms == 0 && had_ttl {
            self.forget_ttl(&id);
        }
        self.checks.insert(id, known);
    }

    fn forget(&mut self, id: &CheckId) {
        self.forget_ttl(id);
        self.checks.remove(id);
        for timers in [&mut self.expiries, &mut self.reaps, &mut self.settlings] {
            timers.cancel(id);
        }
    }

    fn forget_ttl(&mut self, id: &CheckId) {
        let Some(name) = instance_of(id) else { return };
        if let Some(checks) = self.ttl_checks.get_mut(&name) {
            checks.retain(|known| known != id);
            if checks.is_empty() {
                self.ttl_checks.remove(&name);
                self.loads.remove(&name);
            }
        }
    }

    fn pass(&mut self, name: &str, passed: &Passed<'_>, now: u64) -> Told {
        let mut told = Told::default();
        let Some(ids) = self.ttl_checks.get(name) else { return told };
        for id in ids.iter().filter(|id| passed.check.is_empty() || id.id.as_str() == passed.check) {
            let Some(known) = self.checks.get(id) else { continue };
            told.ttl_ms = if told.ttl_ms == 0 { known.ttl_ms } else { told.ttl_ms.min(known.ttl_ms) };
            // One that expires at this moment is passed by a result in the log.
            if !self.expiries.put_off(id, now + known.ttl_ms) || known.observed != Health::Passing {
                told.failing.push(id.id.as_str().to_owned());
            }
        }
        if let (Some(load), true) = (passed.load, told.ttl_ms > 0) {
            match self.loads.get_mut(name) {
                Some(known) => *known = load,
                None => drop(self.loads.insert(name.into(), load)),
            }
        }
        told
    }
}

/// An instance's name in one string.
fn name_of(namespace: &str, service: &str, instance: &str, into: &mut String) {
    into.clear();
    for part in [namespace, "\0", service, "\0", instance] {
        into.push_str(part);
    }
}

/// The name of the instance whose check it is.
fn instance_of(id: &CheckId) -> Option<Box<str>> {
    let CheckOwner::Instance(InstanceId { namespace, service, id }) = &id.owner else { return None };
    let mut name = String::new();
    name_of(Namespace::as_str(namespace), Label::as_str(service), id.as_str(), &mut name);
    Some(name.into_boxed_str())
}
