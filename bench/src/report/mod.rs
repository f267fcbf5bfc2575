//! What a run found: lines of figures with their samples, and what they were measured on. Rendering is in
//! `table`, what must be reached in `goals`.

pub(crate) mod goals;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::peers::Peer;
use crate::stats::median;

/// One run of the bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    /// When it was started (RFC 3339).
    pub(crate) started: String,
    /// What it ran on and with.
    pub(crate) conditions: Conditions,
    /// The figures, in the order of the rows.
    pub(crate) lines: Vec<Line>,
}

/// What the figures depend on besides the peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Conditions {
    /// What `etcd --version` says.
    pub(crate) etcd: String,
    /// What `konsul --version` says.
    pub(crate) konsul: String,
    /// Processors that the bench may use.
    pub(crate) processors: usize,
    /// Memory of the machine, in bytes.
    pub(crate) memory_bytes: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// File system that held all data.
    pub(crate) file_system: String,
    /// Rounds of each row; medians are over them.
    pub(crate) rounds: usize,
    /// Seconds measured a round.
    pub(crate) seconds: f64,
    /// Threads of the client.
    pub(crate) client_threads: usize,
    /// Connections of the client.
    pub(crate) connections: usize,
    /// Runtimes of the bare server.
    pub(crate) bare_runtimes: usize,
}

/// One figure of every peer that has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    /// `row/case/measure`, for example `put/256/rate`.
    pub(crate) id: String,
    /// What it is, for people.
    pub(crate) label: String,
    /// How the figure is to be read.
    pub(crate) unit: Unit,
    /// One sample a round.
    pub(crate) samples: BTreeMap<Peer, Vec<f64>>,
}

/// Units of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Something a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds of the server's CPU time for each call or event.
    CpuMicroseconds,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
    /// A quotient of two figures of the same peer.
    Ratio,
}

impl Line {
    /// The median of a peer's samples; `None` if it has none.
    pub(crate) fn median(&self, peer: Peer) -> Option<f64> {
        self.samples.get(&peer).filter(|samples| !samples.is_empty()).map(|samples| median(samples))
    }
}

impl Report {
    /// The median of a figure by its id.
    pub(crate) fn median(&self, id: &str, peer: Peer) -> Option<f64> {
        self.lines.iter().find(|line| line.id == id)?.median(peer)
    }

    /// Adds one sample; makes the line when it is the first.
    pub(crate) fn add(&mut self, figure: Figure, peer: Peer) {
        if !self.lines.iter().any(|line| line.id == figure.id) {
            let Figure { id, label, unit, .. } = figure.clone();
            self.lines.push(Line { id, label, unit, samples: BTreeMap::new() });
        }
        if let Some(line) = self.lines.iter_mut().find(|line| line.id == figure.id) {
            line.samples.entry(peer).or_default().push(figure.value);
        }
    }

    /// Writes the report as JSON and as markdown into `directory` and returns the JSON's path.
    ///
    /// # Errors
    /// When a file can't be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory)?;
        let json = directory.join(format!("{}.json", self.name()));
        fs::write(&json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("can't write {}", json.display()))?;
        fs::write(json.with_extension("md"), table::document(self))?;
        Ok(json)
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the file is not there or is no report.
    pub(crate) fn read(json: &Path) -> Result<Self> {
        let text = fs::read_to_string(json).with_context(|| format!("can't read {}", json.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", json.display()))
    }

    /// Date, and a name of the machine that says how large it is and not which.
    fn name(&self) -> String {
        let date = self.started.split('T').next().unwrap_or_default();
        let gib = (self.conditions.memory_bytes as f64 / f64::from(1 << 30)).round();
        format!("{date}-{}cpu-{gib}gib", self.conditions.processors)
    }
}

/// One sample of one figure.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    id: String,
    label: String,
    unit: Unit,
    value: f64,
}

impl Figure {
    /// A sample of the figure `id`.
    pub(crate) fn new(id: impl Into<String>, label: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { id: id.into(), label: label.into(), unit, value }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measure = self.id.rsplit('/').next().unwrap_or(&self.id);
        write!(f, "{measure} {}", table::show(self.unit, self.value))
    }
}
