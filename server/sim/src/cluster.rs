//! One simulation: members are started and form a cluster, faults come and go while clients call, everything heals, and then
//! all members must agree with each other and with what clients were told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use turmoil::{Builder, Sim};

use crate::complaints::Complaints;
use crate::faults::Faults;
use crate::invariants::{self, Violation};
use crate::kernel;
use crate::member::{Lives, Member, Orders, Stage, name};
use crate::plan::Plan;
use crate::record::{Record, Shared};

/// How much time passes at once.
const TICK: Duration = Duration::from_millis(1);
/// How long members may take to form a cluster, and to agree once all faults have ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a simulation went.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its seed.
    pub seed: u64,
    /// A hash of everything that happened: the same for the same seed.
    pub hash: u64,
    /// Things that happened.
    pub events: u64,
    /// Members of the cluster.
    pub members: usize,
    /// Calls of clients, and those of them that were answered.
    pub calls: (usize, usize),
    /// Faults.
    pub faults: u64,
    /// Revisions of the store at the end.
    pub revisions: usize,
    /// How long it took, in the simulation.
    pub elapsed: Duration,
    /// What must not be, and was.
    pub violations: Vec<Violation>,
}

/// Runs the simulation of a seed in an empty directory, and prints what happens if that is wanted. It needs a thread of its own,
/// and for an exact replay a process of its own: some libraries count in statics.
#[must_use]
pub fn run(seed: u64, dir: &Path, is_told: bool) -> Run {
    kernel::simulate(seed);
    let complaints = Complaints::default();
    complaints.hear_panics();
    complaints.hear_logs(|| Cluster::new(seed, dir, is_told, complaints.clone()).run(seed))
}

struct Cluster<'a> {
    plan: Arc<Plan>,
    record: Shared,
    sim: Sim<'a>,
    faults: Faults,
    stage: watch::Sender<Stage>,
    complaints: Complaints,
}

impl Cluster<'_> {
    fn new(seed: u64, dir: &Path, is_told: bool, complaints: Complaints) -> Self {
        let plan = Arc::new(Plan::new(seed));
        let record = Record::new(is_told);
        record.lock().note(format_args!("{plan:?}"));
        let mut random = SmallRng::seed_from_u64(seed);
        let mut sim = Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::MAX)
            .epoch(std::time::UNIX_EPOCH + kernel::EPOCH)
            .rng_seed(random.random())
            .max_message_latency(Duration::from_millis(plan.latency_ms))
            .fail_rate(plan.loss)
            .repair_rate(0.1)
            .enable_random_order()
            .build();
        let (stage, staged) = watch::channel(Stage::Work);
        let mut orders = Vec::new();
        for number in 0..plan.members {
            let (order, ordered) = watch::channel(Orders::default());
            orders.push(order);
            let member = Arc::new(Member {
                number,
                plan: plan.clone(),
                record: record.clone(),
                dir: dir.join(name(number)),
                stage: staged.clone(),
                orders: ordered,
                lives: Mutex::new(Lives { count: 0, random: SmallRng::from_rng(&mut random) }),
            });
            sim.host(name(number), move || member.clone().live());
        }
        let faults = Faults::new(plan.clone(), record.clone(), SmallRng::from_rng(&mut random), orders);
        Self { plan, record, sim, faults, stage, complaints }
    }

    fn run(mut self, seed: u64) -> Run {
        let ended = self.live();
        let mut record = self.record.lock();
        let mut violations: Vec<_> = ended.err().into_iter().collect();
        violations.extend(invariants::broken(&record));
        for violation in &violations {
            record.note(format_args!("VIOLATION: {violation}"));
        }
        Run {
            seed,
            hash: record.hash(),
            events: record.count,
            members: self.plan.members,
            calls: (record.operations.len(), record.operations.iter().filter(|o| o.answer.is_some()).count()),
            faults: self.faults.count,
            revisions: record.ends.values().map(|end| end.batches.len()).max().unwrap_or_default(),
            elapsed: self.sim.elapsed(),
            violations,
        }
    }

    fn live(&mut self) -> Result<(), Violation> {
        if !self.plan.faulty_from_start {
            self.until("the members form a cluster", PATIENCE, Self::is_formed)?;
        }
        let end = self.sim.elapsed() + self.plan.faulty;
        while self.sim.elapsed() < end {
            self.faults.step(&mut self.sim);
            self.step()?;
        }
        self.faults.heal(&mut self.sim);
        self.stage.send_replace(Stage::Settle);
        self.record.lock().ends.clear();
        self.until("all members agree when faults have ended", PATIENCE, Self::is_settled)
    }

    fn step(&mut self) -> Result<(), Violation> {
        let elapsed = self.sim.elapsed();
        kernel::set_elapsed(elapsed);
        self.record.lock().elapsed = elapsed;
        self.faults.start_stopped(&mut self.sim);
        let stepped = self.sim.step();
        for complaint in self.complaints.take() {
            self.record.lock().complain(&complaint);
        }
        stepped.map(|_| ()).map_err(|e| Violation { invariant: "a member runs", what: e.to_string() })
    }

    fn until(
        &mut self,
        invariant: &'static str,
        patience: Duration,
        is_so: fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        let end = self.sim.elapsed() + patience;
        while !is_so(self) {
            if self.sim.elapsed() > end {
                return Err(Violation { invariant, what: format!("not within {patience:?}") });
            }
            self.step()?;
        }
        Ok(())
    }

    /// Whether every member knows a leader.
    fn is_formed(&self) -> bool {
        let record = self.record.lock();
        let knows = |member| {
            let mut beliefs = record.beliefs.iter().rev();
            beliefs.find(|belief| belief.process.member == member).is_some_and(|b| b.leader.is_some())
        };
        (0..self.plan.members).all(knows)
    }

    /// Whether every member has read what all acknowledged, and has applied as much as all others.
    fn is_settled(&self) -> bool {
        let record = self.record.lock();
        let mut ends = record.ends.values().map(|end| end.sight.applied);
        let first = ends.next();
        record.ends.len() == self.plan.members && ends.all(|applied| Some(applied) == first)
    }
}
