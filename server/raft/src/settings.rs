//! How a member is set up. Everything has a default but where it lives and which boot this is.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use konsul_state::{Durability, Persistence};

use crate::disk::{Disk, RealDisk};
use crate::error::RaftError;
use crate::net::{Net, RealNet};
use crate::peer::TlsFiles;
use crate::threads::Threads;

/// How to open a [`Node`](crate::Node).
#[derive(Clone)]
pub struct Settings {
    /// Directory of everything this member keeps. Made if it is not there. Not used, and not touched, with
    /// [`Persistence::Memory`].
    pub data_dir: PathBuf,
    /// This member's name. It belongs to the data directory, and another one than that is refused. `None`: whatever it is
    /// there.
    pub member_name: Option<String>,
    /// The name of a new data directory whose member has no other.
    pub default_member_name: String,
    /// How to reach other members. `None`: there are none.
    pub peers: Option<PeerSettings>,
    /// Greatest size of the state's file in bytes; address space, not memory.
    pub map_bytes: usize,
    /// How often a leader tells that it is there.
    pub heartbeat: Duration,
    /// How long a voter hears of no leader before it asks for votes; up to a quarter longer, so that not all do at once.
    pub election_timeout: Duration,
    /// Where the state and the log are kept.
    pub persistence: Persistence,
    /// What a commit of the state waits for. The log is synced in any case.
    pub durability: Durability,
    /// Names the boot of this machine's kernel; on Linux `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Bounds of queues and entries.
    pub limits: Limits,
    /// Size of a log file in bytes.
    pub log_file_bytes: u64,
    /// Bytes of the newest entries that are held in memory, and stay in the log when it is purged.
    pub log_keep_bytes: usize,
    /// How old an entry of the log becomes, and at most twice that, counted while the member runs; then a snapshot takes its place.
    pub log_max_age: Duration,
    /// Fewest bytes of entries between two snapshots.
    pub snapshot_min_bytes: u64,
    /// Bytes of the state's file that may be unused before it is shrunk, if they are more than half of it; 0: it never is.
    pub max_unused_bytes: u64,
    /// Most bytes of a snapshot that are written in a second.
    pub snapshot_bytes_per_second: u64,
    /// Below this much free space, on the disk or in the state's map, only deletes and compaction are
    /// accepted; below half of it, no write is.
    pub reserve_bytes: u64,
    /// The disk of the log.
    pub disk: Arc<dyn Disk>,
    /// The network between members.
    pub net: Arc<dyn Net>,
    /// Where what takes long is done.
    pub threads: Threads,
}

/// How a member reaches the others, and becomes one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// The cluster's name; members of differently named clusters refuse each other.
    pub cluster_name: String,
    /// Where to listen for other members.
    pub listen: SocketAddr,
    /// Where they reach this one (host:port). `None`: where it listens.
    pub advertise: Option<String>,
    /// Where clients reach this one (host:port).
    pub client_address: String,
    /// How many servers without a cluster make one together. 0: this one only joins.
    pub bootstrap_expect: u32,
    /// Where other members may be found (host:port).
    pub join: Vec<String>,
    /// What a server has to know to become a member.
    pub token: String,
    /// What this member is to be.
    pub role: Role,
    /// Certificates of the peer port. `None`: it is spoken in the clear.
    pub tls: Option<TlsFiles>,
    /// A voter that was silent for so long gives its place to a member that waits for one. `None`: never.
    pub replace_dead_after: Option<Duration>,
    /// The version of this server.
    pub version: String,
}

/// What a member is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A voter, as soon as it has caught up.
    Voter,
    /// A voter when it is promoted.
    Standby,
    /// Never a voter: it has everything and serves reads.
    Replica,
}

/// Bounds of what waits and of what goes into one log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most Commands that may wait to be proposed.
    pub waiting_commands: usize,
    /// Most bytes of Commands that may wait to be proposed.
    pub waiting_bytes: usize,
    /// Most reads that may wait for a read-index round, on each runtime that calls.
    pub waiting_reads: usize,
    /// Most Commands in one log entry.
    pub entry_commands: usize,
    /// Most bytes of Commands in one log entry, unless it is a single one.
    pub entry_bytes: usize,
    /// Most bytes of one Command.
    pub command_bytes: usize,
    /// Most log entries in flight, from proposing to applying.
    pub in_flight_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            waiting_commands: 16_384,
            waiting_bytes: 128 << 20,
            waiting_reads: 65_536,
            entry_commands: 4_096,
            entry_bytes: 8 << 20,
            command_bytes: 16 << 20,
            in_flight_entries: 2,
        }
    }
}

impl Settings {
    /// The defaults, for a data directory and the current boot.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, boot_id: impl Into<String>) -> Self {
        Self {
            data_dir: data_dir.into(),
            member_name: None,
            default_member_name: "konsul".to_owned(),
            peers: None,
            map_bytes: 64 << 30,
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_millis(500),
            persistence: Persistence::Lmdb,
            durability: Durability::Log,
            boot_id: boot_id.into(),
            limits: Limits::default(),
            log_file_bytes: 32 << 20,
            log_keep_bytes: 16 << 20,
            log_max_age: Duration::from_secs(24 * 60 * 60),
            snapshot_min_bytes: 64 << 20,
            max_unused_bytes: 256 << 20,
            snapshot_bytes_per_second: 128 << 20,
            reserve_bytes: 64 << 20,
            disk: Arc::new(RealDisk),
            net: Arc::new(RealNet),
            threads: Threads::Own,
        }
    }

    pub(crate) fn check(&self) -> Result<(), RaftError> {
        let limits = &self.limits;
        let wrong = [
            (self.map_bytes < 1 << 20, "the map must have at least 1 MiB"),
            (self.log_file_bytes < 64 << 10, "a log file must have at least 64 KiB"),
            (limits.waiting_commands == 0 || limits.waiting_reads == 0, "something must be allowed to wait"),
            (self.log_max_age.is_zero(), "an entry must be allowed to stay in the log for some time"),
            (self.heartbeat.is_zero(), "the heartbeat must be at least 1 ms"),
            (
                self.election_timeout < 3 * self.heartbeat,
                "the election timeout must be at least three heartbeats",
            ),
            (limits.entry_commands == 0, "an entry must be allowed to hold a command"),
            (limits.in_flight_entries == 0, "an entry must be allowed in flight"),
            // The log's format counts an entry's bytes in 32 bits.
            (limits.entry_bytes.max(limits.command_bytes) > 1 << 30, "an entry may have at most 1 GiB"),
        ];
        match wrong.iter().find(|(is_wrong, _)| *is_wrong) {
            Some((_, what)) => Err(RaftError::Setting((*what).to_owned())),
            None => Ok(()),
        }
    }
}
