//! What clients did and what came of it: a record a call, in memory and as a line of JSON in `history.jsonl`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Op {
    Get,
    Put,
    /// A put if the key's revision is the expected one.
    Cas,
    Delete,
}

/// A value and the revision that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Version {
    pub(crate) value: String,
    pub(crate) revision: u64,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum Outcome {
    /// It was done. A write tells its revision, whatever changed nothing that of the store; each tells what it found.
    Done { revision: u64, found: Option<Version> },
    /// The key was at another revision than the expected one; 0: it was not there.
    Refused { found_revision: u64 },
    /// It certainly was not done.
    NotDone,
    /// Nobody knows whether it was done, and it may still be.
    Unknown,
}

/// One call. Times are nanoseconds of the report's time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) client: usize,
    pub(crate) via: String,
    pub(crate) op: Op,
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<u64>,
    pub(crate) called_ns: u64,
    pub(crate) returned_ns: u64,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
}

/// All calls, in the order of their returns.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    path: PathBuf,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    file: BufWriter<File>,
    records: Vec<Record>,
    /// What kept calls from being done, and how often.
    errors: BTreeMap<String, usize>,
}

impl History {
    /// An empty history whose times are counted from `began`, written into the folder as it grows.
    ///
    /// # Errors
    /// When the file can't be made.
    pub(crate) fn new(folder: &Path, began: Instant) -> Result<Self> {
        let path = folder.join("history.jsonl");
        let file = BufWriter::new(File::create(&path)?);
        let inside = Inside { file, records: Vec::new(), errors: BTreeMap::new() };
        Ok(Self { began, path, inside: Mutex::new(inside) })
    }

    /// Now, in the time of this history.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Remembers a call, and why it failed, if it did.
    pub(crate) fn add(&self, record: Record, error: Option<String>) {
        self.with(|inside| {
            // A file that can't be written is noticed when it is completed.
            let _ = serde_json::to_writer(&mut inside.file, &record);
            let _ = inside.file.write_all(b"\n");
            inside.records.push(record);
            if let Some(error) = error {
                *inside.errors.entry(error).or_default() += 1;
            }
        });
    }

    /// Completes the file; where it is.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn complete(&self) -> Result<&Path> {
        self.with(|inside| inside.file.flush()).context("can't write the history")?;
        Ok(&self.path)
    }

    /// All records.
    pub(crate) fn records(&self) -> Vec<Record> {
        self.with(|inside| inside.records.clone())
    }

    /// How many clients have records: numbers from this on are free.
    pub(crate) fn clients(&self) -> usize {
        self.with(|inside| inside.records.iter().map(|record| record.client + 1).max().unwrap_or(0))
    }

    /// How many calls were answered.
    pub(crate) fn answered(&self) -> usize {
        let answered =
            |record: &&Record| matches!(record.outcome, Outcome::Done { .. } | Outcome::Refused { .. });
        self.with(|inside| inside.records.iter().filter(answered).count())
    }

    /// What kept calls from being done, and how often.
    pub(crate) fn errors(&self) -> BTreeMap<String, usize> {
        self.with(|inside| inside.errors.clone())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Inside) -> T) -> T {
        what(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
