//! What a seed decides before the simulation begins: the cluster, the network, the load, and which kinds of faults there are.
//! Not every seed has all of them, because faults hide each other (Groce et al., "Swarm testing", 2012).

use std::time::Duration;

use konsul_state::Durability;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process ends without warning; the files stay as they are.
    Crash,
    /// The same, and another boot of the kernel follows: the state is not to be trusted.
    PowerLoss,
    /// A member is stopped as an operator would, and started again.
    Restart,
    /// All processes end at once.
    CrashAll,
    /// A member reaches nobody.
    Isolate,
    /// Some reach only each other.
    Split,
    /// What one sends to another is lost, and not the other way round.
    OneWay,
    /// What is between two is held, and delivered when that ends.
    Hold,
    /// What is between two takes long.
    Slow,
    /// Leadership is handed over by an operator.
    Transfer,
}

const FAULTS: [Fault; 10] = [
    Fault::Crash,
    Fault::PowerLoss,
    Fault::Restart,
    Fault::CrashAll,
    Fault::Isolate,
    Fault::Split,
    Fault::OneWay,
    Fault::Hold,
    Fault::Slow,
    Fault::Transfer,
];

/// How a simulation is to go.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) members: usize,
    /// Clients of each member.
    pub(crate) clients: usize,
    /// How long a client waits between two calls, in ms, at most.
    pub(crate) think_ms: u64,
    pub(crate) keys: usize,
    /// Bytes of a value, at most.
    pub(crate) value_bytes: usize,
    /// How long there are faults.
    pub(crate) faulty: Duration,
    /// Between two faults, in ms, at most.
    pub(crate) fault_every_ms: u64,
    /// How long a fault lasts, in ms, at most.
    pub(crate) fault_lasts_ms: u64,
    /// The kinds there are.
    pub(crate) faults: Vec<Fault>,
    /// Whether there are faults before there is a cluster.
    pub(crate) faulty_from_start: bool,
    /// How long a message takes, in ms, at most.
    pub(crate) latency_ms: u64,
    /// How often a link fails for a moment when something is sent over it.
    pub(crate) loss: f64,
    pub(crate) durability: Durability,
    pub(crate) snapshot_min_bytes: u64,
    pub(crate) log_keep_bytes: usize,
}

impl Plan {
    /// What this seed decides.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let kinds = random.random_range(1..=5);
        Self {
            members: if random.random_bool(0.7) { 3 } else { 5 },
            clients: random.random_range(1..=2),
            think_ms: *[20, 60, 200].choose(&mut random).unwrap_or(&60),
            keys: random.random_range(1..=5),
            value_bytes: *[16, 256, 4096].choose(&mut random).unwrap_or(&256),
            faulty: Duration::from_secs(random.random_range(5..=10)),
            fault_every_ms: *[400, 1_000, 3_000].choose(&mut random).unwrap_or(&1_000),
            fault_lasts_ms: *[300, 2_000, 5_000].choose(&mut random).unwrap_or(&2_000),
            faults: FAULTS.choose_multiple(&mut random, kinds).copied().collect(),
            faulty_from_start: random.random_bool(0.2),
            latency_ms: *[2, 10, 60].choose(&mut random).unwrap_or(&10),
            loss: if random.random_bool(0.2) { 0.001 } else { 0.0 },
            durability: if random.random_bool(0.2) { Durability::Synced } else { Durability::Log },
            snapshot_min_bytes: *[32 << 10, 1 << 20].choose(&mut random).unwrap_or(&(1 << 20)),
            log_keep_bytes: *[4 << 10, 256 << 10].choose(&mut random).unwrap_or(&(4 << 10)),
        }
    }
}
