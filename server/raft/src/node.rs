//! One member: what [`Node::open`] puts together, and how it is taken apart again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use konsul_state::propose::{BatchSink, Proposal, Propose, Standing};
use konsul_state::{Command, Durability, Outcome, State};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, Instant, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use crate::answers::Desks;
use crate::apply::{Applier, Growth};
use crate::copy::Pace;
use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::keeper::Keeper;
use crate::log::LogReader;
use crate::machine::{Builder, Machine};
use crate::network::NoPeers;
use crate::proposer::{Proposer, Raft};
use crate::reads::Reads;
use crate::recovery::{Common, Found, find};
use crate::settings::Settings;
use crate::space::Space;
use crate::stats::Stats;
use crate::types::Member;

/// Runs that may wait for the applying thread; openraft sends one at a time.
const MAX_WORKS: usize = 4;
/// How long a shutdown waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);
/// The same when it waits for space that may never come.
const DRAIN_WITHOUT_SPACE: Duration = Duration::from_millis(500);

/// A member of the cluster. Its tasks run on the runtime that opened it; calls may come from any.
pub struct Node {
    member_id: u64,
    cluster_id: Uuid,
    raft: Raft,
    proposer: Arc<Proposer>,
    reads: Arc<Reads>,
    log: LogReader,
    desks: Arc<Desks>,
    stats: Arc<Stats>,
    running: Mutex<Option<Running>>,
}

/// What is ended by a shutdown.
struct Running {
    proposing: tokio::task::JoinHandle<()>,
    reading: tokio::task::JoinHandle<()>,
    keeping: tokio::task::JoinHandle<()>,
    stop_keeping: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
    applying: Applying,
    _data_dir: DataDir,
}

/// The applying thread, and what is dropped when it is done.
struct Applying {
    thread: JoinHandle<()>,
    end: oneshot::Receiver<()>,
}

impl Node {
    /// Opens the data directory, recovers, and starts the member. A new directory becomes a cluster of one.
    /// Batches go to `sink`, also those that recovery applies again.
    ///
    /// # Errors
    /// [`RaftError`], one clear line each; a directory that can't be used is left as it was.
    pub async fn open(settings: Settings, sink: Arc<dyn BatchSink>) -> Result<(Self, State), RaftError> {
        settings.check()?;
        let data_dir = DataDir::open(&settings)?;
        let stats = Arc::new(Stats::default());
        let space = Space::new(
            settings.disk.clone(),
            data_dir.path.clone(),
            settings.reserve_bytes,
            settings.map_bytes as u64,
            stats.clone(),
        );
        let common = Common { stats, health: Arc::default(), space: Arc::new(space) };
        let found = find(&settings, data_dir, &common)?;
        common.space.watch(Some(found.state.clone()));
        let state = found.state.clone();
        let node = Self::start(&settings, found, sink, common).await?;
        Ok((node, state))
    }

    async fn start(
        settings: &Settings,
        found: Found,
        sink: Arc<dyn BatchSink>,
        common: Common,
    ) -> Result<Self, RaftError> {
        let Found { data_dir, log, snapshots, state, writer } = found;
        let Common { stats, health, space } = common;
        log.start()?;
        let reader = log.reader();
        let growth = Arc::new(Growth::default());
        // What a restart finds in the log beyond the files that are always there was not yet in a snapshot.
        let grown = reader.disk_bytes().saturating_sub(2 * settings.log_file_bytes);
        growth.bytes.store(grown, Ordering::Relaxed);
        growth.threshold.store(u64::MAX, Ordering::Relaxed);
        let (stop_keeping, keep_on) = watch::channel(false);
        let builder = Builder {
            state: state.clone(),
            snapshots,
            pace: Pace { bytes_per_second: settings.snapshot_bytes_per_second, stop: keep_on.clone() },
            growth: growth.clone(),
            stats: stats.clone(),
            ready: Arc::default(),
        };
        let stopping = Arc::new(AtomicBool::new(false));
        let (applied, applied_here) = watch::channel(state.applied().index);
        let applier = Arc::new(Applier {
            writer: Mutex::new(Some(writer)),
            may_apply_here: settings.durability == Durability::Log,
            slow: Mutex::new((std::time::Instant::now(), Duration::ZERO)),
            sink,
            space: space.clone(),
            health: health.clone(),
            stats: stats.clone(),
            stopping: stopping.clone(),
            applied,
            growth,
        });
        let (works, waiting) = mpsc::channel(MAX_WORKS);
        let applying = Applying::start(applier.clone(), waiting).map_err(RaftError::file(&data_dir.path))?;
        let machine = Machine { works, applier, builder: builder.clone() };
        let raft = Raft::new(settings.member_id, Arc::new(config()?), NoPeers, log, machine).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(error) => {
                applying.join().await;
                reader.join().await;
                return Err(RaftError::Consensus(error.to_string()));
            }
        };
        let desks = Arc::new(Desks::default());
        let limits = settings.limits;
        let proposer =
            Arc::new(Proposer::new(limits, desks.clone(), space.clone(), health.clone(), stats.clone()));
        let (reads, asked) = Reads::new(limits.waiting_reads, health, stats.clone());
        let keeper = Keeper {
            raft: raft.clone(),
            log: reader.clone(),
            builder,
            space,
            min_bytes: settings.snapshot_min_bytes,
        };
        let cluster_id = data_dir.cluster_id;
        let running = Running {
            proposing: tokio::spawn(proposer.clone().run(raft.clone())),
            reading: tokio::spawn(reads.clone().run(raft.clone(), applied_here, asked)),
            keeping: tokio::spawn(keeper.run(keep_on)),
            stop_keeping,
            stopping,
            applying,
            _data_dir: data_dir,
        };
        let node = Self {
            member_id: settings.member_id,
            cluster_id,
            raft,
            proposer,
            reads,
            log: reader,
            desks,
            stats,
            running: Mutex::new(Some(running)),
        };
        if let Err(error) = node.join_cluster().await {
            node.shutdown().await;
            return Err(error);
        }
        Ok(node)
    }

    /// Makes a cluster of one out of a new directory. A cluster of one elects itself at once, and serves
    /// when everything in its log is applied again: what was acknowledged before a crash is there, committed
    /// or not yet known to be. In a bigger cluster the members settle that among themselves.
    async fn join_cluster(&self) -> Result<(), RaftError> {
        let failed = |e: &dyn std::fmt::Display| RaftError::Consensus(e.to_string());
        let me = self.member_id;
        if self.raft.is_initialized().await.map_err(|e| failed(&e))? {
            if self.raft.voter_ids().any(|id| id != me) {
                return Ok(());
            }
            self.raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
        } else {
            let members = BTreeMap::from([(me, Member::default())]);
            self.raft.initialize(members).await.map_err(|e| failed(&e))?;
        }
        let wait = self.raft.wait(None);
        let ready = wait.metrics(
            |m| {
                let committed = m.cluster_committed.as_ref().map(|id| id.index);
                let applied = m.last_applied.as_ref().map(|id| id.index);
                m.current_leader == Some(me) && committed >= m.last_log_index && applied >= m.last_log_index
            },
            "everything in the log is applied",
        );
        ready.await.map(|_| ()).map_err(|e| failed(&e))
    }

    /// Numbers about this member.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// The id of the cluster, made once with it.
    #[must_use]
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// Stops: refuses new calls, finishes those in flight, ends all tasks and threads and closes the state.
    /// A second call returns at once.
    pub async fn shutdown(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let Running { mut proposing, mut reading, keeping, stop_keeping, stopping, applying, _data_dir } =
            running;
        self.proposer.close();
        stop_keeping.send_replace(true);
        let patience = match self.stats.out_of_space.load(Ordering::Relaxed) {
            0 => DRAIN,
            _ => DRAIN_WITHOUT_SPACE,
        };
        let writes_drained = is_done_within(patience, &mut proposing).await;
        self.reads.close();
        let reads_drained = is_done_within(patience, &mut reading).await;
        stopping.store(true, Ordering::Release);
        self.log.give_up_waiting();
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(%error, "consensus did not stop cleanly");
        }
        if !writes_drained {
            tracing::warn!(
                "writes were in flight at the shutdown; their callers were told that it is not known"
            );
            // With Raft gone, whatever they waited for ends in an error.
            log_panic(proposing.await);
        }
        if !reads_drained {
            log_panic(reading.await);
        }
        log_panic(keeping.await);
        applying.join().await;
        self.log.join().await;
        self.desks.close();
    }
}

impl Propose for Node {
    fn propose(&self, command: Command) -> Proposal<'_, Outcome> {
        Box::pin(self.proposer.propose(command))
    }

    fn read_barrier(&self) -> Proposal<'_, ()> {
        Box::pin(self.reads.barrier())
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_alone = metrics.membership_config.voter_ids().all(|id| id == self.member_id);
        let leads = metrics.current_leader == Some(self.member_id);
        Standing {
            member_id: self.member_id,
            leader_id: metrics.current_leader,
            term: metrics.current_term,
            last_contact_ms: match leads && is_alone {
                true => Some(0),
                false => metrics.last_quorum_acked.map(|at| at.elapsed().as_millis() as u64),
            },
            log_bytes: self.log.disk_bytes(),
        }
    }
}

impl Applying {
    fn start(applier: Arc<Applier>, works: mpsc::Receiver<crate::apply::Work>) -> std::io::Result<Self> {
        let (ended, end) = oneshot::channel();
        let thread = std::thread::Builder::new().name("apply".into()).spawn(move || {
            applier.run(works);
            drop(ended);
        })?;
        Ok(Self { thread, end })
    }

    /// Waits for the thread, without holding up the tasks that it waits for.
    async fn join(self) {
        // It is dropped, not sent, when the thread is done.
        drop(self.end.await);
        if self.thread.join().is_err() {
            tracing::error!("the thread that applies panicked");
        }
    }
}

/// Whether a task ended in time. One that panicked has ended.
async fn is_done_within(patience: Duration, task: &mut tokio::task::JoinHandle<()>) -> bool {
    let joined = tokio::time::timeout(patience, task).await;
    let is_done = joined.is_ok();
    joined.into_iter().for_each(log_panic);
    is_done
}

fn log_panic(joined: Result<(), tokio::task::JoinError>) {
    if let Err(error) = joined {
        tracing::error!(%error, "a task of consensus failed");
    }
}

fn config() -> Result<Config, RaftError> {
    let config = Config {
        cluster_name: "konsul".to_owned(),
        heartbeat_interval: 250,
        election_timeout_min: 1_000,
        election_timeout_max: 2_000,
        // Both are decided by `keeper`.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        enable_pre_vote: Some(true),
        // A restarted leader is elected anew: what it knew of the commit index is stale.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    config.validate().map_err(|e| RaftError::Consensus(e.to_string()))
}
