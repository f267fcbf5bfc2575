//! `konsul cluster join`, `remove`, `promote`, `demote` and `transfer`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

/// Have a server that waits for a cluster join one
///
/// The server is the one at --addr. It was started with cluster.peer_listen and nothing to join, and cluster.bootstrap_expect above 1. Servers that
/// have cluster.join set need no command.
#[derive(Debug, Args)]
pub(crate) struct Join {
    /// Peer addresses of the cluster's members, tried in turn
    #[arg(required = true, value_name = "HOST:PORT")]
    addresses: Vec<String>,
}

impl Join {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        session.client.admin().join_cluster(&self.addresses).await?;
        session.output.done("the cluster takes the server in")
    }
}

/// Take a member out of the cluster
///
/// It may be dead. One that is alive stops to be a member, and needs a new data directory to become one again.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name of the member, as `konsul cluster members` shows it
    name: String,
}

impl Remove {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        session.client.admin().remove_member(&self.name).await?;
        session.output.done(&format!("removed {}", self.name))
    }
}

/// Make a member a voter
///
/// Members become voters by themselves when they have caught up, unless they were made `standby` or `replica`.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Name of the member
    name: String,
}

impl Promote {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        session.client.admin().promote_member(&self.name).await?;
        session.output.done(&format!("{} is a voter", self.name))
    }
}

/// Make a voter a member that doesn't vote
///
/// It goes on having everything, and stays so until it is promoted.
#[derive(Debug, Args)]
pub(crate) struct Demote {
    /// Name of the member
    name: String,
}

impl Demote {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        session.client.admin().demote_member(&self.name).await?;
        session.output.done(&format!("{} does not vote any more", self.name))
    }
}

/// Let another member lead
///
/// Returns when it does. A leader that is stopped by SIGTERM does this by itself.
#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Name of the voter that is to lead; the one whose log is furthest if none is given
    name: Option<String>,
}

impl Transfer {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        session.client.admin().transfer_leadership(self.name.as_deref()).await?;
        session.output.done("leadership is handed over")
    }
}
