//! `konsul kv`: one file a command.

mod delete;
mod diff;
mod exec;
mod get;
mod history;
mod list;
mod point;
mod put;
mod revert;
mod txn;
mod watch;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul kv put app/port 8080
  konsul kv get app/port
  konsul kv list app/
  konsul kv watch app/
  konsul kv revert app/ --to 10m

Each command has more of them: konsul kv put --help";

/// Read, write and watch keys
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Kv {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Get(get::Get),
    Put(put::Put),
    List(list::List),
    Delete(delete::Delete),
    History(history::History),
    Diff(diff::Diff),
    Revert(revert::Revert),
    Watch(watch::Watch),
    Txn(txn::Txn),
}

impl Kv {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        match self.command {
            Command::Get(command) => command.run(session).await,
            Command::Put(command) => command.run(session).await,
            Command::List(command) => command.run(session).await,
            Command::Delete(command) => command.run(session).await,
            Command::History(command) => command.run(session).await,
            Command::Diff(command) => command.run(session).await,
            Command::Revert(command) => command.run(session).await,
            Command::Watch(command) => command.run(session).await,
            Command::Txn(command) => command.run(session).await,
        }
    }
}
