//! What can go wrong with a command, and which exit code it has.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server refused, or could not be reached.
    #[error(transparent)]
    Client(#[from] konsul_client::Error),
    /// The server did not start.
    #[error(transparent)]
    Server(#[from] konsul_server::Failure),
    /// A certificate was not made.
    #[error(transparent)]
    Tls(#[from] crate::tls::Error),
    /// Nothing more can be printed.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A value or request could not be read.
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// A file could not be written.
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    /// A backup is not what it should be.
    #[error("{}: {error}", path.display())]
    Backup { path: PathBuf, error: konsul_server::backup::BackupFailure },
    /// A restore was not confirmed.
    #[error("nothing was restored: confirm it with --yes")]
    NotConfirmed,
    /// What is to be imported is not what it should be. Nothing more was written.
    #[error("{name} cannot be imported: {why}")]
    NoExport { name: String, why: String },
    /// An etcd could not be read.
    #[error("cannot read etcd at {endpoint}: {why}")]
    Etcd { endpoint: String, why: String },
    /// More keys than one call writes.
    #[error(
        "more than {most} keys can't be written at one revision: import them without --atomic, or by --prefix"
    )]
    TooManyAtOnce { most: usize },
    /// Keys are there that an import would write.
    #[error("{keys} of these keys are there already: see --on-conflict")]
    KeysExist { keys: u64 },
    /// A transaction's JSON is not one.
    #[error("{} is not a TxnRequest in JSON: {error}", path.display())]
    TxnJson { path: PathBuf, error: serde_json::Error },
    /// A message could not be turned into JSON or back, by the descriptors that this binary carries.
    #[error("cannot convert between JSON and the API's messages: {0}")]
    Reflection(String),
    /// The runtime, a signal handler or a command could not be started.
    #[error("cannot start {what}: {error}")]
    Start { what: String, error: io::Error },
    /// A command of `--exec` failed, and that was asked to end the watch.
    #[error("the command failed ({status}) on revision {revision} of {key}")]
    Exec { status: std::process::ExitStatus, code: u8, revision: u64, key: String },
    /// A cluster without a leader.
    #[error("no leader is known: fewer voters are alive, or reach each other, than a majority")]
    NoLeader,
    /// A service none of whose instances may be picked.
    #[error(
        "no instance of {service} may be picked: `konsul service instances {service}` shows how they are"
    )]
    NoInstance { service: String },
    /// A node that is not there.
    #[error("there is no node {name}")]
    NoNode { name: String },
    /// What a command held is lost.
    #[error("{what} is lost")]
    Lost { what: String },
    /// A lock that was asked for without waiting is held by others.
    #[error("lock {name} is not free: `konsul lock {name}` says who holds it")]
    NotFree { name: String },
    /// The command that was run ended with this code, and said why itself.
    #[error("the command failed")]
    Command { code: u8 },
    /// A point in time that is before all that was ever written.
    #[error("nothing had been written then")]
    NothingThen,
    /// All keys of a namespace, without saying so.
    #[error("an empty KEY means all keys of the namespace: say so with --prefix")]
    AllKeys,
    /// A signal ended the command.
    #[error("interrupted")]
    Interrupted { code: u8 },
}

impl Failure {
    fn exit_code(&self) -> u8 {
        use konsul_client::Error;
        match self {
            Self::Client(Error::InvalidAddress { .. } | Error::InvalidToken) | Self::AllKeys => 2,
            Self::Server(failure) => failure.exit_code(),
            Self::Exec { code, .. } | Self::Interrupted { code } | Self::Command { code } => *code,
            _ => 1,
        }
    }

    /// Says on stderr what went wrong, in one line, unless whoever reads the output or pressed Ctrl-C knows already.
    pub(crate) fn report(&self) -> ExitCode {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Self::Interrupted { .. } | Self::Command { .. } => {}
            _ => complain(&self.to_string()),
        }
        ExitCode::from(self.exit_code())
    }
}

/// Writes one line to stderr, however many the message has.
pub(crate) fn complain(message: &str) {
    use std::io::Write;
    let style: Style = AnsiColor::Red.on_default().bold();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // There is nowhere left to tell that stderr cannot be written.
    let _ = writeln!(anstream::stderr(), "{style}konsul:{style:#} {message}");
}
