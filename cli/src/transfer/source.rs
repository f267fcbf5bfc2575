//! Where keys to import come from: an export, Consul's `kv export`, or an etcd.

use std::fs::File;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::etcd::Etcd;
use super::format::{Head, Record, Tail};
use crate::failure::Failure;

/// Keys one after the other.
pub(super) enum Source {
    Export(ExportLines),
    Consul(std::vec::IntoIter<ConsulEntry>),
    Etcd(Box<Etcd>),
}

/// The lines of an export after its head.
pub(super) struct ExportLines {
    name: String,
    lines: Lines<Box<dyn BufRead>>,
    number: u64,
    read: u64,
    tail: Option<u64>,
}

/// An entry of Consul's `kv export`.
#[derive(Debug, Deserialize)]
pub(super) struct ConsulEntry {
    key: String,
    flags: u64,
    /// In base64; null for an empty one.
    value: Option<String>,
}

impl Source {
    /// An export in a file, or on stdin for `-`.
    pub(super) fn export(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let mut lines = open(path)?.lines();
        let head = lines.next().transpose().map_err(|error| Failure::Read { path: path.into(), error })?;
        let wrong = |why| Failure::NoExport { name: name.clone(), why };
        Head::parse(&head.unwrap_or_default()).map_err(wrong)?;
        Ok(Self::Export(ExportLines { name, lines, number: 1, read: 0, tail: None }))
    }

    /// What `consul kv export` wrote.
    pub(super) fn consul(path: &Path) -> Result<Self, Failure> {
        let entries: Vec<ConsulEntry> =
            serde_json::from_reader(open(path)?).map_err(|error| Failure::NoExport {
                name: path.display().to_string(),
                why: format!("Consul writes it otherwise: {error}"),
            })?;
        Ok(Self::Consul(entries.into_iter()))
    }

    /// The keys of an etcd under a prefix.
    pub(super) async fn etcd(
        endpoint: &str,
        prefix: &str,
        after: &str,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        Ok(Self::Etcd(Box::new(Etcd::connect(endpoint, prefix, after, timeout).await?)))
    }

    /// How many keys it has left out so far, because they are bound to a lease.
    pub(super) fn leased(&self) -> u64 {
        match self {
            Self::Export(_) | Self::Consul(_) => 0,
            Self::Etcd(etcd) => etcd.leased(),
        }
    }

    /// The next key; `None` after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, Failure> {
        match self {
            Self::Export(lines) => lines.next(),
            Self::Consul(entries) => entries.next().map(ConsulEntry::record).transpose(),
            Self::Etcd(etcd) => etcd.next().await,
        }
    }
}

impl ExportLines {
    fn next(&mut self) -> Result<Option<Record>, Failure> {
        let Some(line) = self.lines.next() else {
            return match self.tail {
                Some(entries) if entries == self.read => Ok(None),
                Some(entries) => {
                    Err(self.wrong(format!("it says it has {entries} keys, and has {}", self.read)))
                }
                None => Err(self.wrong("its end is missing: it was cut off".into())),
            };
        };
        self.number += 1;
        let line = line.map_err(|error| Failure::Read { path: self.name.clone().into(), error })?;
        if self.tail.is_some() {
            return Err(self.wrong(format!("line {} comes after its end", self.number)));
        }
        if let Ok(Tail { entries }) = serde_json::from_str(&line) {
            self.tail = Some(entries);
            return self.next();
        }
        self.read += 1;
        Record::parse(&line).map(Some).map_err(|why| self.wrong(format!("line {}: {why}", self.number)))
    }

    fn wrong(&self, why: String) -> Failure {
        Failure::NoExport { name: self.name.clone(), why }
    }
}

impl ConsulEntry {
    fn record(self) -> Result<Record, Failure> {
        let value = STANDARD.decode(self.value.unwrap_or_default()).map_err(|_| Failure::NoExport {
            name: self.key.clone(),
            why: "the value is not in base64".into(),
        })?;
        Ok(Record { key: self.key, value: value.into(), flags: self.flags, content_type: String::new() })
    }
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).map_err(|error| Failure::Read { path: path.into(), error })?;
    Ok(Box::new(BufReader::new(file)))
}
