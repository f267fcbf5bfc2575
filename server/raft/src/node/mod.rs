//! One member: what [`Node::open`] puts together, and how it is taken apart again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use konsul_state::cluster::{self, MemberRole};
use konsul_state::command::FORMAT;
use konsul_state::propose::{BatchSink, Changing, LeaderDesk, Proposal, Propose, ProposeError, Standing};
use konsul_state::{Command, Durability, Outcome, State};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Config, Instant, RaftMetrics, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::answers::Desks;
use crate::apply::{Applier, Growth};
use crate::asks::Asks;
use crate::cluster::{Agreement, Contact, Forming, Manager, Steward, describe, format_of, runs_elsewhere};
use crate::copy::Pace;
use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::forward::Forward;
use crate::hashes::Hashes;
use crate::health::Health;
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::leadership::{Leader, Leadership};
use crate::log::LogReader;
use crate::machine::{Builder, Machine};
use crate::peer::{Links, Network, PeerPort, PeerService, ServedPort, Serving, Tls, pb};
use crate::proposer::{Proposer, Raft};
use crate::reads::{Reads, Way};
use crate::recovery::{Common, Found, find};
use crate::settings::{PeerSettings, Settings};
use crate::snapshots::stored_membership;
use crate::space::Space;
use crate::stats::Stats;
use crate::threads::Working;
use crate::types::{Member, Types};

/// Runs that may wait for the applying thread; openraft sends one at a time.
const MAX_WORKS: usize = 4;
/// Most entries that are sent to a member at once; their bytes are bounded where they are read.
const MAX_APPEND_ENTRIES: u64 = 64;
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

    async fn start(
        settings: &Settings,
        found: Found,
        port: Option<PeerPort>,
        sink: Arc<dyn BatchSink>,
        common: Common,
    ) -> Result<Self, RaftError> {
        let Found { data_dir, log, snapshots, state, writer } = found;
        let Common { stats, health, space } = common;
        let identity = data_dir.identity.clone();
        let tls = settings.peers.as_ref().map(read_tls).transpose()?.flatten();
        let links = Arc::new(Links::new(identity.clone(), settings.net.clone(), tls));
        let peer_address = port.as_ref().map(|port| port.address);
        let advertised = settings.peers.as_ref().and_then(|peers| peers.advertise.clone());
        let my_address = advertised.or(peer_address.map(|address| address.to_string())).unwrap_or_default();
        let recorded =
            stored_membership(writer.membership()?.as_ref()).map_err(RaftError::file(&data_dir.path))?;
        let (found, known) = (format_of(recorded.membership()), FORMAT);
        let mut unfit = None;
        if found > known {
            unfit = Some(RaftError::NewerCluster { path: data_dir.path.clone(), found, known });
        } else if let Some(peers) = &settings.peers {
            unfit = runs_elsewhere(&links, &identity, peers, recorded.membership(), &my_address).await;
        }
        if let Some(error) = unfit {
            writer.leave()?;
            return Err(error);
        }
        log.start()?;
        let reader = log.reader();
        let growth = Arc::new(Growth::default());
        // What a restart finds in the log beyond the files that are always there was not yet in a snapshot.
        let grown = reader.disk_bytes().saturating_sub(2 * settings.log_file_bytes);
        growth.bytes.store(grown, Ordering::Relaxed);
        growth.threshold.store(u64::MAX, Ordering::Relaxed);
        let (stop_keeping, keep_on) = watch::channel(false);
        let pace = Pace { bytes_per_second: settings.snapshot_bytes_per_second, stop: keep_on.clone() };
        let builder = Builder {
            state: state.clone(),
            snapshots: snapshots.clone(),
            pace: pace.clone(),
            threads: settings.threads,
            growth: growth.clone(),
            stats: stats.clone(),
            ready: Arc::default(),
            making: Arc::default(),
        };
        let hashes = Arc::new(Hashes::default());
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
            hashes: hashes.clone(),
            snapshots: snapshots.clone(),
            skip_upto: AtomicU64::new(0),
        });
        let (works, waiting) = mpsc::channel(MAX_WORKS);
        let applying = settings.threads.start("apply", applier.clone(), waiting);
        let applying = applying.map_err(RaftError::file(&data_dir.path))?;
        let durable_end = reader.follow_durable();
        let machine = Machine { works: works.clone(), applier, builder: builder.clone(), durable_end };
        let network = Network { links: links.clone(), pace, threads: settings.threads, stats: stats.clone() };
        let raft = Raft::new(identity.member_id, Arc::new(config(settings)?), network, log, machine).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(error) => {
                applying.join().await;
                reader.join().await;
                return Err(RaftError::Consensus(error.to_string()));
            }
        };
        let leadership = Leadership::new(identity.member_id, &raft);
        let forward = Arc::new(Forward::new(links.clone(), applied_here.clone()));
        let desks = Arc::new(Desks::default());
        let limits = settings.limits;
        let proposer =
            Arc::new(Proposer::new(limits, desks.clone(), space.clone(), health.clone(), stats.clone()));
        let (reads, asked) = Reads::new(limits.waiting_reads, health.clone(), stats.clone());
        reads.go(Way { raft: raft.clone(), leadership: leadership.clone(), forward: forward.clone() });
        let asks = Arc::new(Asks::new(leadership.clone(), reads.clone(), forward.clone()));
        let manager = Arc::new(Manager {
            identity: identity.clone(),
            raft: raft.clone(),
            leadership: leadership.clone(),
            links: links.clone(),
            cluster_name: settings
                .peers
                .as_ref()
                .map_or_else(String::new, |peers| peers.cluster_name.clone()),
            token: settings.peers.as_ref().map_or_else(String::new, |peers| peers.token.clone()),
            changing: tokio::sync::Mutex::default(),
        });
        let contact = Arc::new(Contact::default());
        let keeper = Keeper {
            raft: raft.clone(),
            log: reader.clone(),
            builder: builder.clone(),
            space: space.clone(),
            applied: applied_here.clone(),
            min_bytes: settings.snapshot_min_bytes,
            max_age: settings.log_max_age,
        };
        let mut keeping = vec![tokio::spawn(keeper.run(keep_on.clone()))];
        let running_reads = tokio::spawn(reads.clone().run(applied_here.clone(), asked));
        let proposing = tokio::spawn(proposer.clone().run(raft.clone(), leadership.clone(), forward));
        let closing = CancellationToken::new();
        let (mut served, mut formed) = (None, None);
        if let (Some(peers), Some(port)) = (&settings.peers, port) {
            let forming = Arc::new(Forming {
                identity: identity.clone(),
                settings: peers.clone(),
                me: describe(&identity, peers, &my_address),
                raft: raft.clone(),
                links: links.clone(),
                manager: manager.clone(),
                contact: contact.clone(),
                health: health.clone(),
                seen: Mutex::default(),
                hints: Mutex::default(),
            });
            let agreement = Agreement {
                manager: manager.clone(),
                links,
                hashes: hashes.clone(),
                health: health.clone(),
                snapshots: snapshots.clone(),
                works,
                threads: settings.threads,
                stats: stats.clone(),
            };
            let service = PeerService::new(Serving {
                identity: identity.clone(),
                raft: raft.clone(),
                proposer: proposer.clone(),
                reads: reads.clone(),
                asks: asks.clone(),
                leadership: leadership.clone(),
                applied: applied_here.clone(),
                snapshots,
                space,
                health: health.clone(),
                forming: forming.clone(),
                manager: manager.clone(),
                contact: contact.clone(),
                threads: settings.threads,
                hashes,
                builder,
                stats: stats.clone(),
                closing: closing.clone(),
                max_snapshot_bytes: settings.map_bytes as u64,
            });
            served = Some(port.serve(service)?);
            let steward = Steward { manager: manager.clone(), replace_dead_after: peers.replace_dead_after };
            formed = Some(forming.clone());
            keeping.push(tokio::spawn(forming.run(keep_on.clone())));
            keeping.push(tokio::spawn(agreement.run(keep_on.clone())));
            keeping.push(tokio::spawn(steward.run(keep_on)));
        }
        let running = Running {
            proposing,
            reading: running_reads,
            keeping,
            stop_keeping,
            port: served,
            closing,
            stopping,
            applying,
            _data_dir: data_dir,
        };
        let node = Self {
            identity,
            raft,
            proposer,
            reads,
            asks,
            leadership,
            manager,
            forming: formed,
            contact,
            log: reader,
            desks,
            stats,
            health,
            applied: applied_here,
            peer_address,
            believe_for: 2 * settings.election_timeout,
            running: Mutex::new(Some(running)),
        };
        Ok(node)
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
}

impl Node {
    /// How long ago a quorum answered this leader, or a leader was heard of here.
    fn last_contact_ms(&self, metrics: &RaftMetrics<Types>) -> Option<u64> {
        let me = self.identity.member_id;
        let is_alone = metrics.membership_config.voter_ids().all(|id| id == me);
        match (metrics.current_leader == Some(me), is_alone) {
            (true, true) => Some(0),
            (true, false) => metrics.last_quorum_acked.map(|at| at.elapsed().as_millis() as u64),
            (false, _) => self.contact.age_ms(),
        }
    }

    /// Who leads. A leader that has no quorum leads nobody, and one that is not heard of any more is none.
    fn leader(&self, metrics: &RaftMetrics<Types>, last_contact_ms: Option<u64>) -> Option<u64> {
        let is_fresh = last_contact_ms.is_some_and(|ms| u128::from(ms) <= self.believe_for.as_millis());
        metrics.current_leader.filter(|_| is_fresh)
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

impl Propose for Node {
    fn propose(&self, command: Command) -> Proposal<'_, Outcome> {
        Box::pin(self.proposer.propose(command))
    }

    fn read_barrier(&self) -> Proposal<'_, ()> {
        Box::pin(self.reads.barrier())
    }

    fn ask_leader(&self, question: Bytes) -> Proposal<'_, Bytes> {
        Box::pin(self.asks.ask(question))
    }

    fn unfit(&self) -> Option<ProposeError> {
        self.health.unfit()
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last_contact_ms = self.last_contact_ms(&metrics);
        Standing {
            member_id: self.identity.member_id,
            leader_id: self.leader(&metrics, last_contact_ms),
            term: metrics.current_term,
            last_contact_ms,
            log_bytes: self.log.disk_bytes(),
            committed_index: metrics.cluster_committed.as_ref().map_or(0, |id| id.index),
            applied_index: *self.applied.borrow(),
        }
    }

    fn format(&self) -> u32 {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        format_of(metrics.membership_config.membership())
    }

    fn cluster_id(&self) -> String {
        self.identity.cluster_id().map_or_else(String::new, |id| id.to_string())
    }

    fn members(&self) -> Vec<cluster::Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = self.identity.member_id;
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let answered =
            |id| Some(metrics.heartbeat.as_ref()?.get(&id).copied().flatten()?.elapsed().as_millis() as u64);
        let matching = |id| Some(metrics.replication.as_ref()?.get(&id).copied().flatten()?.index);
        let leader = self.leader(&metrics, self.last_contact_ms(&metrics));
        let describe = |(id, member): (&u64, &Member)| cluster::Member {
            id: *id,
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            role: match member.role() {
                _ if voters.contains(id) => MemberRole::Voter,
                pb::Role::Voter => MemberRole::Learner,
                pb::Role::Standby => MemberRole::Standby,
                pb::Role::Replica => MemberRole::Replica,
            },
            is_leader: leader == Some(*id),
            version: member.version.clone(),
            matching_index: if *id == me { Some(*self.applied.borrow()) } else { matching(*id) },
            last_contact_ms: if *id == me { Some(0) } else { answered(*id) },
        };
        membership.nodes().map(describe).collect()
    }

    fn change(&self, change: cluster::Change) -> Changing<'_> {
        Box::pin(async move {
            match (change, &self.forming) {
                (cluster::Change::Join(addresses), Some(forming)) => forming.join(&addresses).await,
                (change, _) => self.manager.change(change).await,
            }
        })
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

fn config(settings: &Settings) -> Result<Config, RaftError> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: "konsul".to_owned(),
        heartbeat_interval: millis(settings.heartbeat),
        election_timeout_min: millis(settings.election_timeout),
        // Also how long a voter that has heard of a leader elects no other.
        election_timeout_max: millis(settings.election_timeout) * 5 / 4,
        // More than this behind, a member gets a snapshot instead of entries; the log behind a snapshot is what decides.
        replication_lag_threshold: u64::MAX,
        max_payload_entries: MAX_APPEND_ENTRIES,
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
