//! Every setting of a server: its name, default and meaning, once. The file, the environment and the flags
//! all end in here; nothing else reads them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use konsul_state::{Durability, Persistence};

mod sources;
mod table;
mod value;

pub use sources::{ConfigError, Flags, load};
pub use table::{SETTINGS, Setting};

/// All settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Whether this is a throwaway server for development.
    pub dev: bool,
    /// `[server]`
    pub server: ServerSettings,
    /// `[store]`
    pub store: StoreSettings,
    /// `[raft]`
    pub raft: RaftSettings,
    /// `[cluster]`
    pub cluster: ClusterSettings,
    /// `[dns]`
    pub dns: DnsSettings,
    /// `[checks]`
    pub checks: CheckSettings,
    /// `[backup]`
    pub backup: BackupSettings,
    /// `[limits]`
    pub limits: konsul_service::Limits,
    /// `[log]`
    pub log: LogSettings,
}

/// The process and its listener.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerSettings {
    /// Where everything but DNS is spoken.
    pub listen: SocketAddr,
    /// Where everything that must last is kept.
    pub data_dir: PathBuf,
    /// A file that is told the bound address.
    pub address_file: Option<PathBuf>,
    /// Runtimes that serve calls; 0 chooses by the number of cores.
    pub runtimes: usize,
    /// What a connection may take.
    pub bounds: konsul_fronts::Bounds,
}

/// How the state is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// Where.
    pub persistence: Persistence,
    /// What a commit waits for.
    pub durability: Durability,
    /// Unused bytes of the state's file after which it is shrunk.
    pub max_unused_bytes: u64,
}

/// How writes are agreed on.
#[derive(Debug, Clone, PartialEq)]
pub struct RaftSettings {
    /// Most writes that wait to be put into the log.
    pub max_waiting_writes: usize,
    /// Most log entries that are being synced at a time.
    pub max_entries_in_flight: usize,
    /// How old an entry of the log becomes before a snapshot takes its place.
    pub log_max_age: Duration,
    /// Least bytes of log after which a snapshot is taken.
    pub snapshot_log_bytes: u64,
    /// Most bytes of a snapshot that are written in a second.
    pub snapshot_bytes_per_second: u64,
    /// Free bytes of the disk below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// How often a leader tells that it is there.
    pub heartbeat: Duration,
    /// How long a member hears of no leader before it asks for votes.
    pub election_timeout: Duration,
}

/// How the server becomes one of several.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// The cluster's name.
    pub name: String,
    /// This member's name; empty: the machine's.
    pub member_name: String,
    /// Where other members are listened for; none: the server is alone.
    pub peer_listen: Option<SocketAddr>,
    /// Where they reach this one; empty: where it listens.
    pub peer_advertise: String,
    /// Where clients reach this one; empty: where it listens.
    pub client_advertise: String,
    /// How many servers make a cluster together.
    pub bootstrap_expect: u32,
    /// Where other members may be found.
    pub join: Vec<String>,
    /// What a server has to know to become a member.
    pub join_token: String,
    /// What this member is to be.
    pub role: MemberKind,
    /// How long a voter may be dead before it makes room; zero: for ever.
    pub replace_dead_after: Duration,
    /// The authority of the members' certificates.
    pub tls_ca: Option<PathBuf>,
    /// This member's certificate.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
}

/// What a member is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// A voter, as soon as it has caught up.
    Voter,
    /// A voter when it is promoted.
    Standby,
    /// Never a voter.
    Replica,
}

/// How the catalog is answered over DNS.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsSettings {
    /// Where, over UDP and TCP; none: there is no DNS.
    pub listen: Option<SocketAddr>,
    /// Where over TLS.
    pub tls_listen: Option<SocketAddr>,
    /// Where over HTTPS.
    pub https_listen: Option<SocketAddr>,
    /// The certificate for both.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// A file that is told the bound addresses.
    pub address_file: Option<PathBuf>,
    /// The domain that is answered for.
    pub domain: String,
    /// Other domains that mean the same.
    pub alternative_domains: Names,
    /// The data center that a name may end with.
    pub datacenter: String,
    /// How long answers about services may be kept.
    pub service_ttl: Duration,
    /// How long answers about nodes may be kept.
    pub node_ttl: Duration,
    /// How long it may be kept that there is nothing.
    pub negative_ttl: Duration,
    /// Whether instances that warn are left out.
    pub only_passing: bool,
    /// Up to which age the catalog is answered from without a leader; zero: any.
    pub max_stale: Duration,
    /// Most bytes of an answer over UDP.
    pub max_udp_bytes: u32,
    /// Answers a second to a network over UDP; 0: as many as it asks for.
    pub answers_per_second: u32,
    /// Who is asked for other names; none: they are refused.
    pub recursors: Sockets,
    /// How long each of them has.
    pub recursor_timeout: Duration,
}

/// Names, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

/// Addresses with ports, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets(pub Vec<SocketAddr>);

/// Networks in CIDR form, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(pub Vec<ipnet::IpNet>);

/// The checks that the server carries out itself.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckSettings {
    /// Networks that checks may connect to; empty: all that are not denied.
    pub allow: Networks,
    /// Networks that checks may not connect to.
    pub deny: Networks,
    /// Authorities that are believed beside those that browsers believe.
    pub ca_file: Option<PathBuf>,
    /// Most checks under way at a time.
    pub max_concurrent: usize,
}

/// The backups that the server makes by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupSettings {
    /// The folder; none: there are no backups.
    pub folder: Option<PathBuf>,
    /// How often.
    pub interval: Duration,
    /// How many are kept.
    pub keep: usize,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    /// A level or a filter of `tracing`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// One line of text.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dev: false,
            server: ServerSettings {
                listen: SocketAddr::from(([127, 0, 0, 1], 8500)),
                data_dir: PathBuf::from("./konsul-data"),
                address_file: None,
                runtimes: 0,
                bounds: konsul_fronts::Bounds::default(),
            },
            store: StoreSettings {
                persistence: Persistence::Lmdb,
                durability: Durability::Log,
                max_unused_bytes: 256 << 20,
            },
            raft: RaftSettings {
                max_waiting_writes: 16_384,
                max_entries_in_flight: 2,
                log_max_age: Duration::from_secs(24 * 60 * 60),
                snapshot_log_bytes: 64 << 20,
                snapshot_bytes_per_second: 128 << 20,
                disk_reserve_bytes: 64 << 20,
                heartbeat: Duration::from_millis(100),
                election_timeout: Duration::from_millis(500),
            },
            cluster: ClusterSettings {
                name: "konsul".to_owned(),
                member_name: String::new(),
                peer_listen: None,
                peer_advertise: String::new(),
                client_advertise: String::new(),
                bootstrap_expect: 0,
                join: Vec::new(),
                join_token: String::new(),
                role: MemberKind::Voter,
                replace_dead_after: Duration::ZERO,
                tls_ca: None,
                tls_cert: None,
                tls_key: None,
            },
            dns: DnsSettings {
                listen: Some(SocketAddr::from(([127, 0, 0, 1], 8600))),
                tls_listen: None,
                https_listen: None,
                tls_cert: None,
                tls_key: None,
                address_file: None,
                domain: "konsul.".to_owned(),
                alternative_domains: Names::default(),
                datacenter: "dc1".to_owned(),
                service_ttl: Duration::ZERO,
                node_ttl: Duration::ZERO,
                negative_ttl: Duration::from_secs(1),
                only_passing: false,
                max_stale: Duration::ZERO,
                max_udp_bytes: 1_232,
                answers_per_second: 500,
                recursors: Sockets::default(),
                recursor_timeout: Duration::from_secs(2),
            },
            checks: CheckSettings {
                allow: Networks::default(),
                deny: Networks::default(),
                ca_file: None,
                max_concurrent: 512,
            },
            backup: BackupSettings { folder: None, interval: Duration::from_secs(24 * 60 * 60), keep: 7 },
            limits: konsul_service::Limits::default(),
            log: LogSettings {
                filter: "info,openraft=error,raft_engine=error".to_owned(),
                format: LogFormat::Auto,
            },
        }
    }
}

/// All settings with their defaults and meanings, as a file to begin with.
#[must_use]
pub fn example() -> String {
    let defaults = Settings::default();
    let mut text = String::from("# Every setting of a Konsul server, at its default.\n");
    let mut section = "";
    for setting in SETTINGS {
        let (its_section, name) = setting.path.split_once('.').unwrap_or(("", setting.path));
        if its_section != section {
            section = its_section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let value = setting.show(&defaults);
        text.push_str(&format!(
            "# {} Environment: {}\n{name} = {value:?}\n",
            setting.doc,
            setting.variable()
        ));
    }
    text
}

impl Settings {
    /// Runtimes that serve calls: as set, or one a core (ARCHITECTURE.md has the figures).
    #[must_use]
    pub fn runtimes(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.server.runtimes {
            0 => cores,
            set => set,
        }
    }

    /// What no single setting can be blamed for.
    fn check(&self) -> Result<(), ConfigError> {
        if self.dev && !self.server.listen.ip().is_loopback() {
            return Err(ConfigError::DevBeyondLoopback { listen: self.server.listen });
        }
        self.cluster.check(self.dev)
    }
}

impl ClusterSettings {
    fn check(&self, is_dev: bool) -> Result<(), ConfigError> {
        let Some(listen) = self.peer_listen else {
            return match self.bootstrap_expect > 1 || !self.join.is_empty() {
                true => Err(ConfigError::NoPeerAddress),
                false => Ok(()),
            };
        };
        let given =
            [&self.tls_ca, &self.tls_cert, &self.tls_key].iter().filter(|path| path.is_some()).count();
        if given == 1 || given == 2 {
            return Err(ConfigError::PartOfTls);
        }
        if given == 0 && !is_dev && !listen.ip().is_loopback() {
            return Err(ConfigError::PeersWithoutTls { listen });
        }
        if listen.ip().is_unspecified() && self.peer_advertise.is_empty() {
            return Err(ConfigError::NoAdvertise { listen });
        }
        Ok(())
    }
}
