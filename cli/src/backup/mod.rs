//! `konsul backup`: a whole store as a file, and back.

mod look;
mod restore;
mod save;

use clap::{Args, Subcommand};
use konsul_server::backup::Summary;
use serde::Serialize;

use crate::args::ClientArgs;
use crate::failure::Failure;
use crate::output::{Output, Text};
use crate::session;

const EXAMPLES: &str = "\
Examples:
  konsul backup save konsul.backup              from the running cluster
  konsul backup verify konsul.backup            restore it for a trial, on this machine
  konsul backup restore konsul.backup --yes     put it in the place of the whole store";

/// Back up the whole store, and restore it
///
/// A backup has all that the store holds at one revision: the keys of all namespaces, leases, locks and elections. History is not in
/// it. The file checks itself.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Backup {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Save(save::Save),
    Inspect(look::Inspect),
    Verify(look::Verify),
    Restore(restore::Restore),
}

impl Backup {
    pub(crate) fn run(self, client: ClientArgs) -> Result<(), Failure> {
        match self.command {
            Command::Save(command) => session::run(client, |session| command.run(session)),
            Command::Restore(command) => session::run(client, |session| command.run(session)),
            Command::Inspect(command) => command.run(&Output::new(client.output)),
            Command::Verify(command) => command.run(&Output::new(client.output)),
        }
    }
}

/// What is said of a backup.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(skip)]
    what: &'static str,
    file: String,
    bytes: u64,
    cluster_id: String,
    version: String,
    create_time: String,
    revision: u64,
    entries: u64,
    leases: u64,
    locks: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

impl Told {
    fn new(what: &'static str, path: &std::path::Path, summary: Summary) -> Self {
        let Summary { cluster_id, version, created_ms, revision, entries, leases, locks, bytes, hash } =
            summary;
        let create_time = crate::output::time(created_ms);
        let file = path.display().to_string();
        Self { what, file, bytes, cluster_id, version, create_time, revision, entries, leases, locks, hash }
    }
}

impl Text for Told {
    fn text(&self) -> String {
        let Self {
            what,
            file,
            bytes,
            cluster_id,
            version,
            create_time,
            revision,
            entries,
            leases,
            locks,
            hash,
        } = self;
        let hash = hash.as_ref().map(|hash| format!("\nhash      {hash}")).unwrap_or_default();
        format!(
            "{what} {file}\nmade      {create_time} by konsul {version}\ncluster   {cluster_id}\nrevision  {revision}\nholds     {entries} \
             keys, {leases} leases, {locks} locks, {bytes} bytes{hash}\n"
        )
    }
}
