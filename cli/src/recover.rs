//! `konsul recover`.

use std::path::PathBuf;

use clap::Args;
use konsul_server::Flags;
use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;
use crate::output::{Output, Text};

const EXAMPLES: &str = "\
Examples:
  konsul recover --data-dir /var/lib/konsul             say what would be done
  konsul recover --data-dir /var/lib/konsul --yes       do it

Then start the server as before, and let new members join it; the lost ones need new data directories.";

/// Make a new cluster out of one survivor, when a majority of the voters is lost for good
///
/// Works on the data directory of a server that is stopped. Everything in its log is kept, also what was not yet known to be
/// committed; what only the lost members had is lost. Choose the survivor that is furthest: run this on each without --yes, and
/// compare the last entries. Never do this while a majority may come back: both sides would go on by themselves.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Recover {
    /// Directory of the server's data
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Configuration file of the server, in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    survivor: String,
    lost: Vec<String>,
    last_index: u64,
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
}

impl Text for Report {
    fn text(&self) -> String {
        let Self { survivor, lost, last_index, revision, cluster_id } = self;
        let lost = if lost.is_empty() { "nobody".to_owned() } else { lost.join(", ") };
        let has =
            format!("{survivor} has the log up to entry {last_index}, and the state at revision {revision}");
        match cluster_id {
            Some(id) => format!("{has}\ncluster {id} is made of {survivor} alone; members no more: {lost}\n"),
            None => format!(
                "{has}\na new cluster would be made of {survivor} alone; members no more: {lost}\nnothing is changed; run it with \
                 --yes to do it\n"
            ),
        }
    }
}

impl Recover {
    pub(crate) fn run(self, format: Format) -> Result<(), Failure> {
        let flags = Flags { config: self.config, data_dir: self.data_dir, ..Flags::default() };
        let recovery = konsul_server::recover(&flags, self.yes)?;
        let report = Report {
            survivor: recovery.survivor,
            lost: recovery.lost,
            last_index: recovery.last_index,
            revision: recovery.revision,
            cluster_id: recovery.cluster_id.map(|id| id.to_string()),
        };
        Output::new(format).made(&report)
    }
}
