//! A host of the simulation: one member with its clients, from one crash to the next.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use konsul_raft::{Node, PeerSettings, Role, Settings, Threads};
use konsul_state::cluster::Change;
use konsul_state::propose::{BatchSink, Propose};
use konsul_state::{Batch, ReadError, Revision, State};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::disk::SimDisk;
use crate::net::SimNet;
use crate::plan::Plan;
use crate::record::{Belief, End, Process, Published, Shared, Sight, digest};

/// Where members listen for each other.
const PORT: u16 = 8300;
/// How often a member is looked at besides when it publishes.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of history read at once.
const PAGE_BYTES: usize = 1 << 20;

/// What everybody is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Clients call.
    Work,
    /// Nobody calls any more; members settle, and tell what they have.
    Settle,
}

/// A member over all its lives.
pub(crate) struct Member {
    pub(crate) number: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) record: Shared,
    pub(crate) dir: PathBuf,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) orders: watch::Receiver<Orders>,
    pub(crate) lives: Mutex<Lives>,
}

/// What an operator wants of a member; a number that grows is an order given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// To stop.
    pub(crate) stop: u64,
    /// To hand leadership over.
    pub(crate) transfer: u64,
    /// Boots of its kernel.
    pub(crate) boot: u64,
}

/// How often it lived, and chance for each life.
pub(crate) struct Lives {
    pub(crate) count: u32,
    pub(crate) random: SmallRng,
}

/// The name of a member, and of its host.
pub(crate) fn name(number: usize) -> String {
    format!("m{number}")
}

impl Member {
    /// Lives until it is told to stop, or the host crashes.
    pub(crate) async fn live(self: Arc<Self>) -> turmoil::Result {
        let mut orders = self.orders.clone();
        let first = *orders.borrow_and_update();
        let (process, mut random) = self.next_life();
        let sink = Arc::new(Sink { process, record: self.record.clone(), state: OnceLock::new() });
        let (node, state) = Node::open(self.settings(first.boot), sink.clone()).await?;
        sink.open(&state);
        let node = Arc::new(node);
        let mut tasks = JoinSet::new();
        let busy = Arc::new(AtomicUsize::new(self.plan.clients));
        for number in 0..self.plan.clients {
            let client = Client {
                process,
                number,
                plan: self.plan.clone(),
                record: self.record.clone(),
                stage: self.stage.clone(),
                node: node.clone(),
                state: state.clone(),
                random: SmallRng::from_rng(&mut random),
                known: vec![None; self.plan.keys],
                busy: busy.clone(),
            };
            tasks.spawn(client.run());
        }
        let (record, stage) = (self.record.clone(), self.stage.clone());
        let watcher = Watcher { process, record, stage, node: node.clone(), state, busy };
        tasks.spawn(watcher.run());
        let mut transfer = first.transfer;
        while orders.borrow_and_update().stop == first.stop {
            if orders.borrow().transfer != transfer {
                transfer = orders.borrow().transfer;
                tasks.spawn(hand_over(node.clone()));
            }
            orders.changed().await?;
        }
        tasks.shutdown().await;
        node.shutdown().await;
        self.record.lock().note(format_args!("{process} has stopped"));
        Ok(())
    }

    fn next_life(&self) -> (Process, SmallRng) {
        let mut lives = self.lives.lock();
        lives.count += 1;
        let process = Process { member: self.number, life: lives.count };
        self.record.lock().note(format_args!("{process} starts"));
        (process, SmallRng::from_rng(&mut lives.random))
    }

    fn settings(&self, boot: u64) -> Settings {
        let Plan { members, durability, snapshot_min_bytes, log_keep_bytes, .. } = *self.plan;
        let address = |number| format!("{}:{PORT}", name(number));
        let peers = PeerSettings {
            cluster_name: "simulated".to_owned(),
            listen: (Ipv4Addr::UNSPECIFIED, PORT).into(),
            advertise: Some(address(self.number)),
            client_address: address(self.number),
            bootstrap_expect: u32::try_from(members).unwrap_or(u32::MAX),
            join: (0..members).map(address).collect(),
            token: "token".to_owned(),
            role: Role::Voter,
            tls: None,
            replace_dead_after: None,
            version: "0".to_owned(),
        };
        Settings {
            member_name: Some(name(self.number)),
            peers: Some(peers),
            map_bytes: 64 << 20,
            durability,
            log_file_bytes: 64 << 10,
            log_keep_bytes,
            snapshot_min_bytes,
            // Waiting for its pace would be forever, because time stands still meanwhile.
            snapshot_bytes_per_second: u64::MAX,
            reserve_bytes: 1 << 20,
            disk: Arc::new(SimDisk),
            net: Arc::new(SimNet),
            threads: Threads::Tasks { pause },
            ..Settings::new(&self.dir, format!("boot {boot}"))
        }
    }
}

/// How long a piece of work waits for its thread or its disk: mostly next to nothing.
fn pause() -> Duration {
    let mut random = rand::rng();
    match random.random_range(0..100) {
        0..80 => Duration::ZERO,
        80..98 => Duration::from_millis(random.random_range(1..=5)),
        _ => Duration::from_millis(random.random_range(10..=100)),
    }
}

async fn hand_over(node: Arc<Node>) {
    // Whether it succeeds is not the question.
    let _ = node.change(Change::Transfer(None)).await;
}

/// Puts down what a member publishes.
struct Sink {
    process: Process,
    record: Shared,
    /// Set once the member is open.
    state: OnceLock<State>,
}

impl Sink {
    fn open(&self, state: &State) {
        if self.state.set(state.clone()).is_ok()
            && let Some(revision) = self.see()
        {
            self.record.lock().publish(self.process, Published::Opened(revision.0), Some(revision.0));
        }
    }

    fn see(&self) -> Option<Revision> {
        let sight = sight(self.process, self.state.get()?)?;
        self.record.lock().see(sight);
        Some(Revision(sight.revision))
    }
}

impl BatchSink for Sink {
    fn publish(&self, batches: &[Arc<Batch>]) {
        let committed = self.see();
        for batch in batches {
            let what = Published::Batch { revision: batch.revision.0, digest: digest(batch) };
            self.record.lock().publish(self.process, what, committed.map(|r| r.0));
        }
    }

    fn reset(&self, revision: Revision) {
        let committed = self.see();
        self.record.lock().publish(self.process, Published::Reset(revision.0), committed.map(|r| r.0));
    }
}

fn sight(process: Process, state: &State) -> Option<Sight> {
    let view = state.view().ok()?;
    Some(Sight { process, applied: view.applied(), revision: view.revision().0, hash: view.hash() })
}

/// Looks at a member now and then, and tells what it has in the end.
struct Watcher {
    process: Process,
    record: Shared,
    stage: watch::Receiver<Stage>,
    node: Arc<Node>,
    state: State,
    /// Clients that may still call.
    busy: Arc<AtomicUsize>,
}

impl Watcher {
    async fn run(self) {
        let (mut believed, mut seen) = (None, None);
        loop {
            let standing = self.node.standing();
            let (id, term, leader) = (standing.member_id, standing.term, standing.leader_id);
            let belief = Some(Belief { process: self.process, id, term, leader });
            if belief != believed {
                believed = belief;
                belief.into_iter().for_each(|belief| self.record.lock().believe(belief));
            }
            let sight = sight(self.process, &self.state);
            if sight != seen {
                seen = sight;
                sight.into_iter().for_each(|sight| self.record.lock().see(sight));
            }
            let is_settling = *self.stage.borrow() == Stage::Settle;
            if is_settling
                && self.busy.load(Relaxed) == 0
                && self.node.read_barrier().await.is_ok()
                && let Err(error) = self.tell()
            {
                self.record.lock().complain(&format!("{} can't tell what it has: {error}", self.process));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells what the member has, if it has more than it told.
    fn tell(&self) -> Result<(), ReadError> {
        let Some(sight) = sight(self.process, &self.state) else { return Ok(()) };
        let told = self.record.lock().ends.get(&self.process.member).map(|end| end.sight);
        if told == Some(sight) {
            return Ok(());
        }
        let view = self.state.view()?;
        let mut batches: Vec<Arc<Batch>> = Vec::new();
        while (batches.len() as u64) < view.revision().0 {
            let page = view.batches(Revision(batches.len() as u64 + 1), PAGE_BYTES)?;
            if page.is_empty() {
                break;
            }
            batches.extend(page);
        }
        self.record.lock().end(End { sight, batches });
        Ok(())
    }
}
