//! One member: what [`Node::open`] puts together, and how it is taken apart again.

mod propose;
mod start;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use konsul_state::State;
use konsul_state::propose::{BatchSink, LeaderDesk};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answers::Desks;
use crate::asks::Asks;
use crate::cluster::{Contact, Forming, Manager};
use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::health::Health;
use crate::identity::Identity;
use crate::keeper::Asked;
use crate::leadership::{Leader, Leadership};
use crate::log::LogReader;
use crate::peer::{PeerPort, ServedPort, Tls};
use crate::proposer::{Proposer, Raft};
use crate::reads::Reads;
use crate::recovery::{Common, find};
use crate::settings::{PeerSettings, Settings};
use crate::space::Space;
use crate::stats::Stats;
use crate::threads::Working;
use crate::types::Member;

/// How long a shutdown waits for what is in flight.
const DRAIN: Duration = Duration::from_secs(10);
/// The same when it waits for space that may never come.
const DRAIN_WITHOUT_SPACE: Duration = Duration::from_millis(500);

/// A member of the cluster. Its tasks run on the runtime that opened it; calls may come from any.
pub struct Node {
    identity: Arc<Identity>,
    raft: Raft,
    proposer: Arc<Proposer>,
    reads: Arc<Reads>,
    asks: Arc<Asks>,
    leadership: Leadership,
    manager: Arc<Manager>,
    /// None for a server without peers.
    forming: Option<Arc<Forming>>,
    contact: Arc<Contact>,
    log: LogReader,
    /// To the keeper.
    shrink: mpsc::Sender<Asked>,
    desks: Arc<Desks>,
    stats: Arc<Stats>,
    health: Arc<Health>,
    applied: watch::Receiver<u64>,
    peer_address: Option<SocketAddr>,
    /// How long a leader is believed to lead after it was last heard of.
    believe_for: Duration,
    running: Mutex<Option<Running>>,
}

/// What is ended by a shutdown.
struct Running {
    proposing: tokio::task::JoinHandle<()>,
    reading: tokio::task::JoinHandle<()>,
    /// What makes snapshots, and what looks after the cluster.
    keeping: Vec<tokio::task::JoinHandle<()>>,
    stop_keeping: watch::Sender<bool>,
    port: Option<ServedPort>,
    closing: CancellationToken,
    stopping: Arc<AtomicBool>,
    applying: Working,
    _data_dir: DataDir,
}

impl Node {
    /// Opens the data directory, recovers, and starts the member. A new directory of a server without peers becomes a
    /// cluster of one, and everything in its log is applied when this returns; a server with peers finds them meanwhile.
    /// Batches go to `sink`, also those that recovery applies again.
    ///
    /// # Errors
    /// [`RaftError`], one clear line each; a directory that can't be used is left as it was.
    pub async fn open(settings: Settings, sink: Arc<dyn BatchSink>) -> Result<(Self, State), RaftError> {
        settings.check()?;
        let port = match &settings.peers {
            None => None,
            Some(peers) => Some(PeerPort::bind(&*settings.net, peers.listen, read_tls(peers)?).await?),
        };
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
        let node = Self::start(&settings, found, port, sink, common).await?;
        // Nothing that was put together is held here any more, so a member that does not begin can be taken apart again.
        if let Err(error) = node.begin(&settings).await {
            node.shutdown().await;
            // What failed says more than that consensus ended.
            let broken = node.health.broken().map(|why| RaftError::Consensus(why.to_string()));
            return Err(broken.unwrap_or(error));
        }
        Ok((node, state))
    }

    /// A server without peers makes a cluster of one out of a new directory. A cluster of one elects itself at once, and
    /// serves when everything in its log is applied again: what was acknowledged before a crash is there, committed
    /// or not yet known to be. In a bigger cluster the members settle that among themselves.
    async fn begin(&self, settings: &Settings) -> Result<(), RaftError> {
        let failed = |e: &dyn std::fmt::Display| RaftError::Consensus(e.to_string());
        let me = self.identity.member_id;
        if self.raft.is_initialized().await.map_err(|e| failed(&e))? {
            // A member that crashed between its first vote and its first entry knows of no voters yet, not even itself.
            if !self.raft.voter_ids().eq([me]) {
                return Ok(());
            }
            self.raft.trigger().elect(false).await.map_err(|e| failed(&e))?;
        } else if settings.peers.is_none() {
            self.identity.adopt(self.identity.cluster_id().unwrap_or_else(Uuid::new_v4))?;
            let myself = Member { id: me, name: self.identity.name.clone(), ..Member::default() };
            self.raft.initialize(BTreeMap::from([(me, myself)])).await.map_err(|e| failed(&e))?;
        } else {
            return Ok(());
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

    /// Says who answers what members ask their leader, when this one leads; once. Until then it leads without an answer.
    pub fn answer_with(&self, desk: Arc<dyn LeaderDesk>) {
        self.asks.answer_with(desk);
    }

    /// Numbers about this member.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Where other members are listened for; `None` without peers.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.peer_address
    }

    /// Stops: refuses new calls, finishes those in flight, ends all tasks and threads and closes the state.
    /// A second call returns at once.
    pub async fn shutdown(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let Running {
            mut proposing,
            mut reading,
            keeping,
            stop_keeping,
            port,
            closing,
            stopping,
            applying,
            _data_dir,
        } = running;
        stop_keeping.send_replace(true);
        self.hand_over().await;
        self.proposer.close();
        let patience = match self.stats.out_of_space.load(Ordering::Relaxed) {
            0 => DRAIN,
            _ => DRAIN_WITHOUT_SPACE,
        };
        let writes_drained = is_done_within(patience, &mut proposing).await;
        self.reads.close();
        let reads_drained = is_done_within(patience, &mut reading).await;
        stopping.store(true, Ordering::Release);
        closing.cancel();
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
        for task in keeping {
            log_panic(task.await);
        }
        if let Some(port) = port {
            port.stop().await;
        }
        applying.join().await;
        self.log.join().await;
        self.desks.close();
    }

    /// A leader that stops lets another voter lead first, so that nobody waits for an election.
    async fn hand_over(&self) {
        let others = self.raft.voter_ids().filter(|id| *id != self.identity.member_id).count();
        if others == 0 || self.leadership.now() != Leader::Me {
            return;
        }
        match self.manager.transfer(None).await {
            Ok(()) => tracing::info!("another member leads now"),
            Err(status) => tracing::warn!(error = status.message(), "leadership was not handed over"),
        }
    }
}

fn read_tls(peers: &PeerSettings) -> Result<Option<Tls>, RaftError> {
    peers.tls.as_ref().map(Tls::read).transpose()
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
