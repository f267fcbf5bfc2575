//! What goes wrong, and when: faults of the plan's kinds begin at random times, last for a while, and end. A link has one
//! fault at a time, because turmoil can't tell them apart.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::sync::watch;
use turmoil::Sim;

use crate::member::{Orders, name};
use crate::plan::{Fault, Plan};
use crate::record::Shared;

/// How long a message takes on a slow link, in ms.
const SLOW_MS: std::ops::RangeInclusive<u64> = 100..=800;

/// What goes wrong.
pub(crate) struct Faults {
    plan: Arc<Plan>,
    record: Shared,
    random: SmallRng,
    orders: Vec<watch::Sender<Orders>>,
    /// When the next one begins.
    next: Duration,
    /// Members that are down, and until when.
    down: BTreeMap<usize, Duration>,
    /// Links that are not as they should be, and until when.
    links: BTreeMap<(usize, usize), (LinkFault, Duration)>,
    /// Faults so far.
    pub(crate) count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkFault {
    Cut,
    OneWay { from: usize, to: usize },
    Held,
    Slow,
}

impl Faults {
    pub(crate) fn new(
        plan: Arc<Plan>,
        record: Shared,
        random: SmallRng,
        orders: Vec<watch::Sender<Orders>>,
    ) -> Self {
        let (next, down, links) = (Duration::ZERO, BTreeMap::new(), BTreeMap::new());
        Self { plan, record, random, orders, next, down, links, count: 0 }
    }

    /// Lets faults that are due begin and end.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        self.end(sim, |until| until <= now);
        if now < self.next {
            return;
        }
        self.next = now + self.within(self.plan.fault_every_ms);
        let until = now + self.within(self.plan.fault_lasts_ms);
        if let Some(fault) = self.plan.faults.choose(&mut self.random).copied() {
            self.begin(sim, fault, until);
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        self.record.lock().note(format_args!("all faults end"));
        self.end(sim, |_| true);
        sim.set_fail_rate(0.0);
        for (a, b) in self.pairs() {
            sim.release(name(a), name(b));
        }
    }

    /// Starts members that have stopped as they were told.
    pub(crate) fn start_stopped(&self, sim: &mut Sim<'_>) {
        for member in (0..self.plan.members).filter(|member| !self.down.contains_key(member)) {
            if !sim.is_host_running(name(member)) {
                sim.bounce(name(member));
            }
        }
    }

    fn within(&mut self, max_ms: u64) -> Duration {
        Duration::from_millis(self.random.random_range(1..=max_ms))
    }

    fn begin(&mut self, sim: &mut Sim<'_>, fault: Fault, until: Duration) {
        self.count += 1;
        let members = self.plan.members;
        let one = self.random.random_range(0..members);
        let other = (one + self.random.random_range(1..members)) % members;
        self.record
            .lock()
            .note(format_args!("{fault:?} (m{one}, m{other}) until {:.3}", until.as_secs_f64()));
        match fault {
            Fault::Crash => self.crash(sim, one, until),
            Fault::PowerLoss => {
                self.crash(sim, one, until);
                self.orders[one].send_modify(|orders| orders.boot += 1);
            }
            Fault::CrashAll => (0..members).for_each(|member| self.crash(sim, member, until)),
            Fault::Restart => self.orders[one].send_modify(|orders| orders.stop += 1),
            Fault::Transfer => self.orders.iter().for_each(|o| o.send_modify(|orders| orders.transfer += 1)),
            Fault::Isolate => self.cut(sim, &BTreeSet::from([one]), until),
            Fault::Split => {
                let mut all: Vec<usize> = (0..members).collect();
                all.shuffle(&mut self.random);
                let side = all.into_iter().take(members / 2).collect();
                self.cut(sim, &side, until);
            }
            Fault::OneWay => self.disturb(sim, LinkFault::OneWay { from: one, to: other }, one, other, until),
            Fault::Hold => self.disturb(sim, LinkFault::Held, one, other, until),
            Fault::Slow => self.disturb(sim, LinkFault::Slow, one, other, until),
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, member: usize, until: Duration) {
        if let Entry::Vacant(vacant) = self.down.entry(member) {
            sim.crash(name(member));
            vacant.insert(until);
        }
    }

    /// Cuts the links between one side and the others.
    fn cut(&mut self, sim: &mut Sim<'_>, side: &BTreeSet<usize>, until: Duration) {
        for (a, b) in self.pairs() {
            if side.contains(&a) != side.contains(&b) {
                self.disturb(sim, LinkFault::Cut, a, b, until);
            }
        }
    }

    fn disturb(&mut self, sim: &mut Sim<'_>, fault: LinkFault, a: usize, b: usize, until: Duration) {
        let link = (a.min(b), a.max(b));
        if self.links.contains_key(&link) {
            return;
        }
        match fault {
            LinkFault::Cut => sim.partition(name(a), name(b)),
            LinkFault::OneWay { from, to } => sim.partition_oneway(name(from), name(to)),
            LinkFault::Held => sim.hold(name(a), name(b)),
            LinkFault::Slow => {
                let latency = Duration::from_millis(self.random.random_range(SLOW_MS));
                sim.set_link_latency(name(a), name(b), latency);
            }
        }
        self.links.insert(link, (fault, until));
    }

    /// Ends the faults whose end is due.
    fn end(&mut self, sim: &mut Sim<'_>, is_due: impl Fn(Duration) -> bool) {
        let links: Vec<_> =
            self.links.iter().filter(|(_, (_, until))| is_due(*until)).map(|(l, _)| *l).collect();
        for (a, b) in links {
            let Some((fault, _)) = self.links.remove(&(a, b)) else { continue };
            self.record.lock().note(format_args!("{fault:?} of m{a} and m{b} ends"));
            match fault {
                LinkFault::Cut => sim.repair(name(a), name(b)),
                LinkFault::OneWay { from, to } => sim.repair_oneway(name(from), name(to)),
                LinkFault::Held => sim.release(name(a), name(b)),
                LinkFault::Slow => {
                    sim.set_link_latency(name(a), name(b), Duration::ZERO);
                    let latency = Duration::from_millis(self.plan.latency_ms);
                    sim.set_link_max_message_latency(name(a), name(b), latency);
                }
            }
        }
        let down: Vec<_> = self.down.iter().filter(|(_, until)| is_due(**until)).map(|(m, _)| *m).collect();
        for member in down {
            self.down.remove(&member);
            sim.bounce(name(member));
        }
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let members = self.plan.members;
        (0..members).flat_map(|a| (a + 1..members).map(move |b| (a, b))).collect()
    }
}
