//! A Konsul server: settings, boot, telemetry, shutdown. It behaves as the crates it puts together do.
//!
//! # Layout
//! - [`config`]: every setting, once.
//! - [`backup`]: backup files, looked at without a server.
//! - `boot`: puts the crates together and takes them apart; the only file that knows them all.
//! - `dns`: DNS over the catalog in memory.
//! - `runtimes`: the single-threaded runtimes that calls are served on.
//! - `signals`: when to stop.
//! - `telemetry`: logs and metrics.

mod boot;
mod dns;
mod runtimes;
mod signals;
mod telemetry;

pub mod backup;
pub mod config;

use konsul_fronts::dns::DnsError;

pub use config::Flags;
pub use konsul_raft::PEER_NAME;

/// The version, as `konsul --version` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why the server did not start, or ended. One line.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A setting is unknown or wrong.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// The address can't be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// DNS can't be served.
    #[error(transparent)]
    Dns(#[from] konsul_fronts::dns::DnsError),
    /// The data can't be used.
    #[error(transparent)]
    Raft(#[from] konsul_raft::RaftError),
    /// The state can't be read.
    #[error(transparent)]
    State(#[from] konsul_state::StateError),
    /// The system refused something the server needs.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// Something that is compiled in is malformed.
    #[error("cannot set up {0}")]
    Setup(String),
}

impl Failure {
    /// 2 for a wrong setting, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Dns(DnsError::Setting { .. } | DnsError::NoCertificate { .. }) => 2,
            Self::Dns(DnsError::Bind { .. })
            | Self::Listen { .. }
            | Self::Raft(_)
            | Self::State(_)
            | Self::System { .. }
            | Self::Setup(_) => 1,
        }
    }

    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::System { what, error }
    }
}

/// What `konsul recover` found, or did.
pub use konsul_raft::Recovery;

/// Makes a new cluster of one out of the data directory of a survivor, if `go`; otherwise says what would be done.
///
/// # Errors
/// [`Failure`] when the directory can't be used.
pub fn recover(flags: &Flags, go: bool) -> Result<Recovery, Failure> {
    let settings = config::load(flags, std::env::vars())?;
    let runtimes = runtimes::Runtimes::start(1).map_err(Failure::system("cannot start a thread"))?;
    let listen = settings.server.listen;
    let recovered = runtimes.block_on(async { boot::recover(&settings, listen, go).await });
    runtimes.stop();
    recovered
}

/// What `konsul verify` found.
pub use konsul_raft::Verified;

/// Looks at everything in the data directory of a server that is stopped, and tells `so_far` what was found after each part: a file that
/// is damaged in ways that LMDB does not notice can end the process by a signal.
///
/// # Errors
/// [`Failure`] when the directory can't be looked at.
pub fn verify(flags: &Flags, so_far: impl FnMut(&Verified)) -> Result<Verified, Failure> {
    let settings = config::load(flags, std::env::vars())?;
    let runtimes = runtimes::Runtimes::start(1).map_err(Failure::system("cannot start a thread"))?;
    let listen = settings.server.listen;
    let verified = runtimes.block_on(async { boot::verify(&settings, listen, so_far) });
    runtimes.stop();
    verified
}

/// Runs a server until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// [`Failure`] when it could not start.
pub fn run(flags: &Flags) -> Result<(), Failure> {
    let settings = config::load(flags, std::env::vars())?;
    telemetry::start_logs(&settings.log).map_err(|e| Failure::Setup(format!("logs: {e}")))?;
    let runtimes =
        runtimes::Runtimes::start(settings.runtimes()).map_err(Failure::system("cannot start a thread"))?;
    let ended = runtimes.block_on(boot::serve(settings, runtimes.handles()));
    runtimes.stop();
    ended
}
