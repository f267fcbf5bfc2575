//! `konsul verify`.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use konsul_server::{Flags, Verified};
use serde::{Deserialize, Serialize};

use crate::args::Format;
use crate::failure::{Failure, complain};
use crate::output::{Output, Text};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  konsul verify /var/lib/konsul            the server must be stopped
  konsul verify /var/lib/konsul -o json    for scripts

Exit codes: 0 all is well, 1 something is wrong (a line each on stderr says what and where)";

/// What is looked at, in this order.
const PARTS: [&str; 3] = ["the log", "the snapshots", "the state"];

/// Check all data of a server that is stopped
///
/// Looks at every checksum of the log and that entry follows entry, at the snapshots, at every row of the state, history and index
/// against each other, and at the hash; then whether log, snapshots and state belong together. Nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Verify {
    /// Directory of the server's data
    data_dir: String,
    /// Configuration file of the server, in TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look here, and not in a process of its own
    #[arg(long, hide = true)]
    here: bool,
}

/// What is printed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    member: String,
    first_entry: Option<u64>,
    last_entry: Option<u64>,
    snapshots: Vec<u64>,
    revision: Option<u64>,
    applied_entry: Option<u64>,
    state_hash: Option<String>,
    findings: Vec<String>,
}

impl Text for Report {
    fn text(&self) -> String {
        let log = match (self.first_entry, self.last_entry) {
            (Some(first), Some(last)) => format!("entries {first} to {last}"),
            _ => "none".to_owned(),
        };
        let snapshots: Vec<String> = self.snapshots.iter().map(|at| format!("at entry {at}")).collect();
        let snapshots = if snapshots.is_empty() { "none".to_owned() } else { snapshots.join(", ") };
        let state = match (self.revision, self.applied_entry, &self.state_hash) {
            (Some(revision), Some(entry), Some(hash)) => {
                format!("revision {revision} at entry {entry}, hash {hash}")
            }
            _ => "none that can be trusted; the next start makes it from the newest snapshot and the log"
                .to_owned(),
        };
        let wrong = match self.findings.len() {
            0 => "nothing is wrong".to_owned(),
            1 => "1 thing is wrong".to_owned(),
            n => format!("{n} things are wrong"),
        };
        let member = &self.member;
        format!(
            "member     {member}\nlog        {log}\nsnapshots  {snapshots}\nstate      {state}\n{wrong}\n"
        )
    }
}

impl From<Verified> for Report {
    fn from(verified: Verified) -> Self {
        let Verified { member, log, snapshots, state, findings } = verified;
        let (revision, applied_entry, state_hash) = match state {
            Some((revision, entry, hash)) => (Some(revision), Some(entry), Some(hash)),
            None => (None, None, None),
        };
        let (first_entry, last_entry) = (log.map(|(first, _)| first), log.map(|(_, last)| last));
        Self { member, first_entry, last_entry, snapshots, revision, applied_entry, state_hash, findings }
    }
}

impl Verify {
    pub(crate) fn run(self, format: Format) -> Result<(), Failure> {
        let output = Output::new(format);
        if self.here {
            let flags = Flags { config: self.config, data_dir: Some(self.data_dir), ..Flags::default() };
            let tell = |verified: &Verified| {
                // Whoever started this process misses it.
                drop(Output::new(Format::Json).made(&Report::from(verified.clone())));
            };
            let verified = konsul_server::verify(&flags, tell)?;
            return output.made(&Report::from(verified));
        }
        let (report, ended) = self.look()?;
        let Some(mut report) = report else {
            // It has said why itself.
            return Err(Failure::Command {
                code: ended.code().and_then(|code| code.try_into().ok()).unwrap_or(1),
            });
        };
        if let Some(signal) = ended.signal() {
            report.findings.push(format!(
                "the state or a snapshot is damaged: reading it ended the process with signal {signal}"
            ));
        }
        report.findings.iter().for_each(|finding| complain(finding));
        output.made(&report)?;
        if report.findings.is_empty() { Ok(()) } else { Err(Failure::Command { code: 1 }) }
    }

    /// Looks in a process of its own: LMDB trusts its files, and a damaged one can end the process that reads it.
    fn look(&self) -> Result<(Option<Report>, ExitStatus), Failure> {
        let failed = |error| Failure::Start { what: "the look at the data".into(), error };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["verify", &self.data_dir, "--here", "-o", "json"]).stdout(Stdio::piped());
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        let mut process = command.spawn().map_err(failed)?;
        let mut progress = Progress::new("verifying");
        let mut parts = PARTS.into_iter();
        progress.part(parts.next().unwrap_or_default());
        let mut report = None;
        // One line after each part; the last one has all that was found.
        for line in process.stdout.take().into_iter().flat_map(|lines| BufReader::new(lines).split(b'\n')) {
            report = serde_json::from_slice(&line.map_err(failed)?).ok().or(report);
            parts.next().into_iter().for_each(|part| progress.part(part));
        }
        drop(progress);
        let ended = process.wait().map_err(failed)?;
        let ended_well = ended.success() || ended.signal().is_some();
        Ok((report.filter(|_| ended_well), ended))
    }
}
