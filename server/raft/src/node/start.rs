//! Putting a member together out of what was found on its disk: who knows whom, and what runs from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use konsul_state::command::FORMAT;
use konsul_state::propose::BatchSink;
use konsul_state::{Durability, StateWriter};
use openraft::{Config, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Node, Running, read_tls};
use crate::answers::Desks;
use crate::apply::{Applier, Growth};
use crate::asks::Asks;
use crate::cluster::{Agreement, Contact, Forming, Manager, Steward, describe, format_of, runs_elsewhere};
use crate::copy::Pace;
use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::forward::Forward;
use crate::hashes::Hashes;
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::leadership::Leadership;
use crate::machine::{Builder, Machine};
use crate::peer::{Links, Network, PeerPort, PeerService, Serving};
use crate::proposer::{Proposer, Raft};
use crate::reads::{Reads, Way};
use crate::recovery::{Common, Found};
use crate::settings::Settings;
use crate::snapshots::stored_membership;

/// Runs that may wait for the applying thread; openraft sends one at a time.
const MAX_WORKS: usize = 4;
/// Most entries that are sent to a member at once; their bytes are bounded where they are read.
const MAX_APPEND_ENTRIES: u64 = 64;

impl Node {
    /// Starts the member that was found on the disk, with all its tasks. Nobody leads it yet.
    pub(super) async fn start(
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
        if let Err(error) = may_serve(settings, &links, &identity, &my_address, &data_dir, &writer).await {
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
            max_unused_bytes: settings.max_unused_bytes,
            works: works.clone(),
        };
        let (shrink, shrinking) = mpsc::channel(1);
        let mut keeping = vec![tokio::spawn(keeper.run(shrinking, keep_on.clone()))];
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
            shrink,
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
}

/// Refuses a state that members of a newer version have written, and a member that runs elsewhere.
async fn may_serve(
    settings: &Settings,
    links: &Links,
    identity: &Identity,
    my_address: &str,
    data_dir: &DataDir,
    writer: &StateWriter,
) -> Result<(), RaftError> {
    let path = &data_dir.path;
    let recorded = stored_membership(writer.membership()?.as_ref()).map_err(RaftError::file(path))?;
    let (found, known) = (format_of(recorded.membership()), FORMAT);
    if found > known {
        return Err(RaftError::NewerCluster { path: path.clone(), found, known });
    }
    let Some(peers) = &settings.peers else { return Ok(()) };
    match runs_elsewhere(links, identity, peers, recorded.membership(), my_address).await {
        Some(error) => Err(error),
        None => Ok(()),
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
