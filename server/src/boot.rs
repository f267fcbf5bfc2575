//! Puts the crates together and takes them apart: the only file that knows them all.
//!
//! Up: data directory and consensus, watch hub, Door, pages, listener, then the leader's duties. Down, the other way round:
//! streams are ended and no calls taken, those in flight finish, and only then consensus and the state are closed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use konsul_checks::Prober;
use konsul_fronts::{Listener, Port, Probe, discovery, pages};
use konsul_raft::{Node, PeerSettings, Recovery, Role, TlsFiles};
use konsul_service::duties::Duties;
use konsul_service::{About, Door, Parts, Readers};
use konsul_state::cluster::MemberRole;
use konsul_state::propose::{BatchSink, Propose, Standing};
use konsul_state::{Batch, Persistence, Revision};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::backup::{BackupStats, Schedule};
use crate::config::{CheckSettings, ClusterSettings, MemberKind, Settings};
use crate::dns::{Dns, Names};
use crate::signals::Signals;
use crate::telemetry::{Metrics, Sources};

/// Room that the state's map has beyond twice `limits.max_store_bytes`, so that deletes and compaction find some at the limit.
const MAP_ROOM_BYTES: u64 = 1 << 30;

/// What `grpc.health.v1` is asked about: the server as a whole, and each service.
const HEALTH_SERVICES: [&str; 8] = [
    "",
    "konsul.v1.KV",
    "konsul.v1.Lease",
    "konsul.v1.Lock",
    "konsul.v1.Election",
    "konsul.v1.Catalog",
    "konsul.v1.Health",
    "konsul.v1.Admin",
];

/// Serves until a signal.
pub(crate) async fn serve(settings: Settings, runtimes: Vec<Handle>) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(Failure::system("cannot listen for signals"))?;
    let address = settings.server.listen;
    // Bound first: a second server on the same port ends before it has touched any data.
    let socket = TcpListener::bind(address).await.map_err(|error| Failure::Listen { address, error })?;
    let bound = socket.local_addr().map_err(|error| Failure::Listen { address, error })?;
    let server = Server::start(&settings, bound, &runtimes).await?;
    let stop = CancellationToken::new();
    let listener = Listener::new(socket, server.port.clone(), settings.server.bounds, runtimes);
    let serving = tokio::spawn(listener.run(stop.clone()));
    announce(&settings, bound)?;
    let signal = signals.next().await;
    tracing::info!(signal, "stopping: ending streams and finishing calls; a second signal ends at once");
    tokio::select! {
        () = server.stop(stop, serving) => tracing::info!("stopped"),
        signal = signals.next() => tracing::warn!(signal, "stopped without waiting"),
    }
    Ok(())
}

/// Makes a new cluster out of a survivor's data directory, or says what that would do.
pub(crate) async fn recover(settings: &Settings, listen: SocketAddr, go: bool) -> Result<Recovery, Failure> {
    Ok(konsul_raft::recover(raft_settings(settings, listen)?, go).await?)
}

/// Looks at everything in the data directory of a server that is stopped.
pub(crate) fn verify(
    settings: &Settings,
    listen: SocketAddr,
    so_far: impl FnMut(&konsul_raft::Verified),
) -> Result<konsul_raft::Verified, Failure> {
    Ok(konsul_raft::verify(&raft_settings(settings, listen)?, so_far)?)
}

/// Everything that is up, but for the listener.
struct Server {
    node: Arc<Node>,
    readers: Arc<Readers>,
    duties: Duties,
    dns: Option<Dns>,
    backups: Option<tokio::task::JoinHandle<()>>,
    stop_backups: CancellationToken,
    health: tonic_health::server::HealthReporter,
    watchdog: Arc<Watchdog>,
    port: Port<Door>,
}

impl Server {
    async fn start(settings: &Settings, bound: SocketAddr, runtimes: &[Handle]) -> Result<Self, Failure> {
        let sink = Arc::new(LateSink::default());
        let (node, state) = Node::open(raft_settings(settings, bound)?, sink.clone()).await?;
        let node = Arc::new(node);
        let readers = Readers::new(state.clone(), settings.limits.clone())?;
        sink.hand_to(readers.clone());
        node.answer_with(readers.clone());
        let names = Arc::new(Names::new(readers.clone(), node.clone()));
        let dns = Dns::start(&settings.dns, names.clone(), runtimes.to_vec())?;
        let backup_stats = Arc::new(BackupStats::default());
        let sources = Sources {
            dns: dns.as_ref().map(|dns| dns.counters.clone()),
            backups: backup_stats.clone(),
            limits: (settings.limits.max_store_bytes, settings.limits.soft_store_bytes()),
            state: state.clone(),
            readers: readers.clone(),
            stats: node.stats(),
            propose: node.clone(),
        };
        let metrics = Metrics::new(sources).map_err(|e| Failure::Setup(e.to_string()))?;
        let compacted = Arc::new(Notify::new());
        let parts = Parts {
            state: state.clone(),
            propose: node.clone(),
            readers: readers.clone(),
            limits: settings.limits.clone(),
            about: about(settings),
            compacted: compacted.clone(),
            observer: Some(metrics.observer()),
        };
        let (door, health) =
            Door::new(parts).await.map_err(|e| Failure::Setup(format!("reflection: {e}")))?;
        let watchdog =
            Arc::new(Watchdog { metrics, propose: node.clone(), stopping: AtomicBool::new(false) });
        let port = Port::new(door, pages::router(watchdog.clone()).merge(discovery::router(names)));
        let prober = prober(&settings.checks)?;
        let duties =
            Duties::start(state.clone(), node.clone(), &readers, &settings.limits, compacted, prober);
        let stop_backups = CancellationToken::new();
        let backups = settings.backup.folder.clone().map(|folder| {
            let schedule = Schedule {
                settings: settings.backup.clone(),
                state,
                propose: node.clone(),
                stats: backup_stats,
            };
            tokio::spawn(schedule.run(folder, stop_backups.clone()))
        });
        Ok(Self { node, readers, duties, dns, backups, stop_backups, health, watchdog, port })
    }

    async fn stop(mut self, stop: CancellationToken, serving: tokio::task::JoinHandle<()>) {
        self.watchdog.stopping.store(true, Ordering::Release);
        for service in HEALTH_SERVICES {
            self.health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        }
        // Streams end with UNAVAILABLE, so that their connections can end.
        self.readers.stop();
        stop.cancel();
        // Those of the health service end when what they tell of is gone, after they have told it.
        for service in HEALTH_SERVICES {
            self.health.clear_service_status(service).await;
        }
        if let Err(error) = serving.await {
            tracing::error!(%error, "the listener failed");
        }
        if let Some(dns) = self.dns.take() {
            dns.stop().await;
        }
        self.stop_backups.cancel();
        if let Some(backups) = self.backups.take()
            && let Err(error) = backups.await
        {
            tracing::error!(%error, "making backups failed");
        }
        self.duties.stop().await;
        self.node.shutdown().await;
        self.readers.hub.stopped().await;
    }
}

/// What the pages ask.
struct Watchdog {
    metrics: Metrics,
    propose: Arc<dyn Propose>,
    stopping: AtomicBool,
}

impl Watchdog {
    /// How this member stands among the others, for people who look at the page.
    fn describe(&self, standing: &Standing) -> String {
        use std::fmt::Write;
        let Standing { term, committed_index, applied_index, last_contact_ms, .. } = standing;
        let contact = last_contact_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago"));
        let mut text = format!(
            "term {term}, committed {committed_index}, applied {applied_index}, last contact {contact}\n"
        );
        for member in self.propose.members() {
            let role = if member.is_leader { "leader" } else { role_name(member.role) };
            let here = if member.id == standing.member_id { ", this member" } else { "" };
            let lag =
                member.matching_index.map(|at| format!(", {} behind", committed_index.saturating_sub(at)));
            let seen = member.last_contact_ms.map(|ms| format!(", answered {ms} ms ago"));
            let (lag, seen) = (lag.unwrap_or_default(), seen.unwrap_or_default());
            // A String takes everything.
            let _ = writeln!(text, "{} {role}{here}{lag}{seen}", member.name);
        }
        text
    }
}

fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
        MemberRole::Standby => "standby",
        MemberRole::Replica => "replica",
    }
}

impl Probe for Watchdog {
    fn ready(&self) -> Result<String, String> {
        let standing = self.propose.standing();
        let why_not = match standing.leader_id {
            _ if self.stopping.load(Ordering::Acquire) => Some("the server is stopping".to_owned()),
            _ if self.propose.unfit().is_some() => self.propose.unfit().map(|error| error.to_string()),
            None => Some("no leader is known".to_owned()),
            Some(_) => None,
        };
        let details = self.describe(&standing);
        match why_not {
            None => Ok(format!("ok\n{details}")),
            Some(reason) => Err(format!("{reason}\n{details}")),
        }
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }
}

/// Consensus publishes from its start on, and its readers need the state that consensus opened. What is published before
/// they are there is what recovery applies again; they begin after it.
#[derive(Default)]
struct LateSink(OnceLock<Arc<Readers>>);

impl LateSink {
    fn hand_to(&self, readers: Arc<Readers>) {
        // Set once, here.
        let _ = self.0.set(readers);
    }
}

impl BatchSink for LateSink {
    fn publish(&self, batches: &[Arc<Batch>]) {
        if let Some(readers) = self.0.get() {
            readers.publish(batches);
        }
    }

    fn reset(&self, revision: Revision) {
        if let Some(readers) = self.0.get() {
            readers.reset(revision);
        }
    }
}

fn raft_settings(settings: &Settings, bound: SocketAddr) -> Result<konsul_raft::Settings, Failure> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(Failure::system("cannot read the kernel's boot id"))?;
    let defaults = konsul_raft::Settings::new(&settings.server.data_dir, boot_id.trim());
    let map_bytes = settings.limits.max_store_bytes * 2 + MAP_ROOM_BYTES;
    Ok(konsul_raft::Settings {
        map_bytes: usize::try_from(map_bytes).unwrap_or(usize::MAX),
        persistence: settings.store.persistence,
        durability: settings.store.durability,
        limits: konsul_raft::Limits {
            waiting_commands: settings.raft.max_waiting_writes,
            in_flight_entries: settings.raft.max_entries_in_flight,
            ..defaults.limits
        },
        log_max_age: settings.raft.log_max_age,
        snapshot_min_bytes: settings.raft.snapshot_log_bytes,
        max_unused_bytes: settings.store.max_unused_bytes,
        snapshot_bytes_per_second: settings.raft.snapshot_bytes_per_second,
        reserve_bytes: settings.raft.disk_reserve_bytes,
        heartbeat: settings.raft.heartbeat,
        election_timeout: settings.raft.election_timeout,
        member_name: Some(settings.cluster.member_name.clone()).filter(|name| !name.is_empty()),
        default_member_name: machine_name(),
        peers: settings.cluster.peer_listen.map(|listen| peers(&settings.cluster, listen, bound)),
        ..defaults
    })
}

fn peers(cluster: &ClusterSettings, listen: SocketAddr, bound: SocketAddr) -> PeerSettings {
    let not_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    PeerSettings {
        cluster_name: cluster.name.clone(),
        listen,
        advertise: not_empty(&cluster.peer_advertise),
        client_address: not_empty(&cluster.client_advertise).unwrap_or_else(|| bound.to_string()),
        bootstrap_expect: match cluster.bootstrap_expect {
            0 if cluster.join.is_empty() => 1,
            expected => expected,
        },
        join: cluster.join.clone(),
        token: cluster.join_token.clone(),
        role: match cluster.role {
            MemberKind::Voter => Role::Voter,
            MemberKind::Standby => Role::Standby,
            MemberKind::Replica => Role::Replica,
        },
        tls: match (&cluster.tls_ca, &cluster.tls_cert, &cluster.tls_key) {
            (Some(ca), Some(cert), Some(key)) => {
                Some(TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() })
            }
            _ => None,
        },
        replace_dead_after: Some(cluster.replace_dead_after).filter(|after| !after.is_zero()),
        version: crate::VERSION.to_owned(),
    }
}

/// The machine's name, as far as it is one that a member can have.
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_good = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
    let name: String =
        name.trim().to_ascii_lowercase().chars().take_while(|c| *c != '.').filter(is_good).take(63).collect();
    match name.trim_matches('-') {
        "" => "konsul".to_owned(),
        name => name.to_owned(),
    }
}

/// What carries active checks out.
fn prober(settings: &CheckSettings) -> Result<Arc<Prober>, Failure> {
    let settings = konsul_checks::Settings {
        allow: settings.allow.0.clone(),
        deny: settings.deny.0.clone(),
        ca_file: settings.ca_file.clone(),
        max_concurrent: settings.max_concurrent,
        ..konsul_checks::Settings::default()
    };
    let prober = Prober::new(&settings).map_err(|e| Failure::Setup(format!("checks: {e}")))?;
    Ok(Arc::new(prober))
}

fn about(settings: &Settings) -> About {
    About {
        version: crate::VERSION.to_owned(),
        persistence: match settings.store.persistence {
            Persistence::Lmdb => "lmdb",
            Persistence::Memory => "memory",
        },
    }
}

/// Tells where the server is to be found.
fn announce(settings: &Settings, bound: SocketAddr) -> Result<(), Failure> {
    if settings.dev {
        tracing::warn!("--dev: a throwaway server, without authentication; its data is gone when it stops");
    }
    let data_dir = match settings.store.persistence {
        Persistence::Lmdb => Some(settings.server.data_dir.display()),
        Persistence::Memory => None,
    };
    tracing::info!(address = %bound, data_dir = data_dir.map(tracing::field::display), "serving");
    let Some(path) = &settings.server.address_file else { return Ok(()) };
    write_whole(path, &format!("{bound}\n")).map_err(Failure::system("cannot write the address file"))
}

/// Whoever waits for the file never reads half of it.
pub(crate) fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, path)
}
