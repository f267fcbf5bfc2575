//! `konsul cluster`: one file for what shows the cluster, one for what changes it.

mod change;
mod show;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul cluster status                how the cluster is doing, and how many members it can lose
  konsul cluster members               its members
  konsul cluster remove n3             take a member out, alive or not
  konsul cluster transfer              let another member lead, before this one is stopped for long

Any member takes these commands; the leader carries them out.";

/// See and change the members of the cluster
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(show::Status),
    Members(show::Members),
    Join(change::Join),
    Remove(change::Remove),
    Promote(change::Promote),
    Demote(change::Demote),
    Transfer(change::Transfer),
}

impl Cluster {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        match self.command {
            Command::Status(command) => command.run(session).await,
            Command::Members(command) => command.run(session).await,
            Command::Join(command) => command.run(session).await,
            Command::Remove(command) => command.run(session).await,
            Command::Promote(command) => command.run(session).await,
            Command::Demote(command) => command.run(session).await,
            Command::Transfer(command) => command.run(session).await,
        }
    }
}
