//! Why a member could not start or stop.

use std::io;
use std::path::{Path, PathBuf};

use konsul_state::StateError;
use uuid::Uuid;

/// Why a member could not start or stop. The texts are complete: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// Another process has the data directory open.
    #[error("data directory {} is in use by another process", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory holds something, but nothing of ours.
    #[error("{} is not empty and not a konsul data directory", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory was written by a newer version.
    #[error("data directory {} has format {found}, and this version of konsul knows up to {known}: use a newer konsul", path.display())]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// The data directory belongs to another member.
    #[error("data directory {} belongs to member {found:?}, and this server is configured as {configured:?}: a data directory can't be given to another member", path.display())]
    OtherMember {
        /// The data directory.
        path: PathBuf,
        /// The member it belongs to.
        found: String,
        /// The member that is configured.
        configured: String,
    },
    /// The data directory belongs to another cluster.
    #[error(
        "this member belongs to cluster {mine}, and can't be part of {theirs}: it needs a new data directory for that"
    )]
    OtherCluster {
        /// The cluster it belongs to.
        mine: Uuid,
        /// The one it was asked into.
        theirs: Uuid,
    },
    /// The member of this data directory runs elsewhere.
    #[error(
        "member {name:?} is running already, at {address}: a data directory must not be copied to a second server"
    )]
    RunsElsewhere {
        /// The member's name.
        name: String,
        /// Where it answers.
        address: String,
    },
    /// The cluster writes what this version does not know.
    #[error("the cluster of data directory {} writes format {found}, and this version of konsul knows up to {known}: use a newer konsul", path.display())]
    NewerCluster {
        /// The data directory.
        path: PathBuf,
        /// The format that all members knew.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// The data directory was written before the first release.
    #[error("data directory {} has format {found}, which no release has written: start with a new one", path.display())]
    Unreleased {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u32,
    },
    /// The cluster could not be joined.
    #[error("{address}: {error}")]
    Join {
        /// The member that was asked.
        address: String,
        /// What it said.
        error: String,
    },
    /// The peer port can't be opened.
    #[error("cannot listen for peers on {address}: {error}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What is wrong.
        error: String,
    },
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The log can't be used.
    #[error("{0}")]
    Log(String),
    /// The state can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A setting has an impossible value.
    #[error("{0}")]
    Setting(String),
    /// Consensus could not be started.
    #[error("consensus could not be started: {0}")]
    Consensus(String),
}

impl RaftError {
    pub(crate) fn file(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |error| Self::File { path, error }
    }

    pub(crate) fn log(what: impl Into<String>) -> Self {
        Self::Log(what.into())
    }

    pub(crate) fn damaged(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.as_ref().to_owned(), what: what.into() }
    }
}
