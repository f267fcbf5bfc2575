//! `konsul cluster status` and `members`.

use clap::Args;

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul cluster members
  konsul cluster members -o json | jq -r '.members[] | select(.leader) | .name'";

/// List the members of the cluster
///
/// Each member tells what it knows. How far the others are, and when they answered last, only the leader knows.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Members {}

impl Members {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let members = session.client.admin().members().await?;
        session.output.message(&members)
    }
}

/// Tell how the cluster is doing
///
/// Says who leads, how many voters there are and how many of them may be lost, and lists the members. Exit code 1 when no leader
/// is known.
#[derive(Debug, Args)]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let members = session.client.admin().members().await?;
        session.output.cluster(&members)?;
        match members.members.iter().any(|member| member.leader) {
            true => Ok(()),
            false => Err(Failure::NoLeader),
        }
    }
}
