//! The active checks, as every member knows them: when each is due, and, of those that this member carries out, how often in a row they
//! passed or failed. A member that takes a check over begins to count anew. Nothing here is written to disk or told to another member; what
//! a check came to is written only where it differs from what is written already.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_checks::{HttpDefinition, Invalid, Probe, Status, TlsDefinition, Verdict};
use konsul_state::batch::CheckChange;
use konsul_state::command::{
    CheckDefinition, CheckRecord, Health, TlsOptions, check_definition::Kind, check_report::Report,
};
use konsul_state::{Batch, Change, CheckId, OUTPUT_EVERY_MS, State, StateError};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::catalog::each;
use crate::core::now_ms;
use crate::timers::Timers;

/// How soon a check is carried out again whose result could not be written.
const AGAIN_MS: u64 = 1_000;

/// All active checks.
pub(crate) struct Schedule {
    pages: Mutex<Pages>,
    /// Times are counted from here.
    origin: Instant,
}

#[derive(Default)]
struct Pages {
    jobs: HashMap<CheckId, Job>,
    due: Timers<CheckId>,
}

/// An active check.
struct Job {
    definition: Arc<CheckDefinition>,
    create_revision: u64,
    /// What is written.
    observed: Health,
    output: u64,
    output_ms: u64,
    /// In a row.
    passes: u32,
    fails: u32,
    under_way: bool,
}

/// A check to carry out.
pub(crate) struct Run {
    pub(crate) id: CheckId,
    pub(crate) create_revision: u64,
    pub(crate) timeout: Duration,
    pub(crate) definition: Arc<CheckDefinition>,
}

impl Schedule {
    /// That of a state that is not written yet.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub(crate) fn new(state: &State) -> Result<Self, StateError> {
        let schedule = Self { pages: Mutex::default(), origin: Instant::now() };
        schedule.reset(state)?;
        Ok(schedule)
    }

    /// The whole state is another one.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub(crate) fn reset(&self, state: &State) -> Result<(), StateError> {
        let view = state.view()?;
        let mut pages = Pages::default();
        let now = self.now_ms();
        each(|paging| view.checks(None, paging), |id, record| pages.put(id, Some(&record), now))?;
        *self.pages.lock() = pages;
        Ok(())
    }

    /// Follows what was committed.
    pub(crate) fn publish(&self, batches: &[Arc<Batch>]) {
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            if let Change::Check(CheckChange { id, after, .. }) = change {
                self.pages.lock().put(id.clone(), after.as_ref(), self.now_ms());
            }
        }
    }

    /// Takes out what is due now, at most `most`, of what is this member's; what is others' waits for its next time here as well.
    pub(crate) fn due(&self, most: usize, is_mine: impl Fn(&CheckId) -> bool) -> Vec<Run> {
        let mut pages = self.pages.lock();
        let now = self.now_ms();
        let Pages { jobs, due } = &mut *pages;
        let mut runs = Vec::new();
        for id in due.due(now, most) {
            let Some(job) = jobs.get_mut(&id) else { continue };
            due.set(&id, now + job.definition.interval_ms.max(1));
            if !is_mine(&id) {
                (job.passes, job.fails) = (0, 0);
            } else if !job.under_way {
                job.under_way = true;
                runs.push(Run {
                    id,
                    create_revision: job.create_revision,
                    timeout: Duration::from_millis(job.definition.timeout_ms),
                    definition: Arc::clone(&job.definition),
                });
            }
        }
        runs
    }

    /// Takes in what a check came to. What is to be written of it, if anything; nothing of a check that is another one by now.
    pub(crate) fn conclude(&self, run: &Run, verdict: Verdict) -> Option<Report> {
        let mut pages = self.pages.lock();
        let job = pages.jobs.get_mut(&run.id)?;
        if !Arc::ptr_eq(&job.definition, &run.definition) {
            return None;
        }
        job.under_way = false;
        let status = job.judge(verdict.status);
        let output_ms = now_ms().saturating_sub(job.output_ms);
        let is_news = output_ms >= OUTPUT_EVERY_MS && xxh3_64(verdict.output.as_bytes()) != job.output;
        (status != job.observed || is_news).then(|| Report {
            check: Some(run.id.to_name()),
            status: status.into(),
            output: verdict.output,
            create_revision: run.create_revision,
        })
    }

    /// What these checks came to could not be written: they are due again soon.
    pub(crate) fn again(&self, checks: impl Iterator<Item = CheckId>) {
        let mut pages = self.pages.lock();
        let at_ms = self.now_ms() + AGAIN_MS;
        for id in checks {
            if pages.due.at_ms(&id).is_some_and(|due| due > at_ms) {
                pages.due.set(&id, at_ms);
            }
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.pages.lock().jobs.len()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Pages {
    fn put(&mut self, id: CheckId, record: Option<&CheckRecord>, now: u64) {
        let active = record.and_then(|record| Some((record, record.definition.as_ref()?)));
        let Some((record, definition)) = active.filter(|(_, definition)| definition.interval_ms > 0) else {
            if self.jobs.remove(&id).is_some() {
                self.due.cancel(&id);
            }
            return;
        };
        let (output, output_ms) = (xxh3_64(record.output.as_bytes()), record.output_ms);
        if let Some(job) = self.jobs.get_mut(&id)
            && job.create_revision == record.create_revision
            && *job.definition == *definition
        {
            (job.observed, job.output, job.output_ms) = (record.observed(), output, output_ms);
            return;
        }
        let first = rand::random_range(0..=definition.interval_ms);
        self.due.set(&id, now + first);
        let job = Job {
            definition: Arc::new(definition.clone()),
            create_revision: record.create_revision,
            observed: record.observed(),
            output,
            output_ms,
            passes: 0,
            fails: 0,
            under_way: false,
        };
        self.jobs.insert(id, job);
    }
}

impl Job {
    /// What a result makes of what the check was.
    fn judge(&mut self, status: Status) -> Health {
        let CheckDefinition { passes_after, fails_after, warns_after, .. } = *self.definition;
        match status {
            Status::Passing => {
                (self.passes, self.fails) = (self.passes.saturating_add(1), 0);
                if self.passes >= passes_after { Health::Passing } else { self.observed }
            }
            Status::Warning => {
                (self.passes, self.fails) = (0, 0);
                Health::Warning
            }
            Status::Critical => {
                (self.passes, self.fails) = (0, self.fails.saturating_add(1));
                if self.fails >= fails_after {
                    Health::Critical
                } else if warns_after > 0 && self.fails >= warns_after {
                    self.observed.max(Health::Warning)
                } else {
                    self.observed
                }
            }
        }
    }
}

/// What is done to find out how a check is.
///
/// # Errors
/// [`Invalid`] when it can't be done as it is defined.
pub(crate) fn probe(kind: &Kind) -> Result<Option<Probe>, Invalid> {
    let tls = |tls: &TlsOptions| TlsDefinition {
        server_name: tls.server_name.clone(),
        insecure_skip_verify: tls.insecure_skip_verify,
    };
    let probe = match kind {
        Kind::Http(http) => Probe::http(&HttpDefinition {
            url: http.url.clone(),
            method: http.method.clone(),
            headers: http.headers.iter().map(|item| (item.name.clone(), item.value.clone())).collect(),
            body: http.body.clone(),
            expect_status: http.expect_status.clone(),
            expect_body: http.expect_body.clone(),
            follow_redirects: http.follow_redirects,
            tls: http.tls.as_ref().map(tls).unwrap_or_default(),
        }),
        Kind::Tcp(tcp) => Probe::tcp(&tcp.address, tcp.tls.as_ref().map(tls).as_ref()),
        Kind::Udp(udp) => Probe::udp(&udp.address, udp.payload.clone(), udp.expect.clone()),
        Kind::Grpc(grpc) => Probe::grpc(&grpc.address, &grpc.service, grpc.tls.as_ref().map(tls).as_ref()),
        Kind::Script(name) => Probe::script(name, &[]),
        Kind::TtlMs(_) | Kind::Alias(_) => return Ok(None),
    };
    probe.map(Some)
}
