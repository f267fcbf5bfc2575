//! A watcher of everything, from the first revision on, which resumes by itself whatever happens to the servers.

use std::time::Duration;

use anyhow::{Context, Result};
use konsul_client::proto::Entry;
use konsul_client::{Client, WatchEvent, WatchOptions};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::text;
use crate::report::Report;

/// How often a quiet stream tells how far it has come.
const PROGRESS: Duration = Duration::from_secs(1);

/// A change of a key; no value: it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

impl Change {
    /// What an entry says about its last write.
    pub(crate) fn put(entry: &Entry) -> Self {
        Self { revision: entry.mod_revision, key: entry.key.clone(), value: Some(text(&entry.value)) }
    }
}

/// A watcher that remembers all it is told.
pub(crate) struct Watcher {
    name: String,
    complete: watch::Receiver<u64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Change>>,
}

impl Watcher {
    /// Begins to watch. If the watch ends by itself, that is reported.
    pub(super) fn begin(name: &str, client: Client, report: &Report) -> Self {
        let (told, complete) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(remember(name.to_owned(), client, report.clone(), told, stopped));
        Self { name: name.to_owned(), complete, stop, task }
    }

    /// Waits until it knows everything up to and including this revision, and brings its name and what it was told. Reports it if that
    /// takes longer than the limit, or the watch ended before.
    ///
    /// # Errors
    /// When its task panicked.
    pub(super) async fn until(
        mut self,
        revision: u64,
        limit: Duration,
        report: &Report,
    ) -> Result<(String, Vec<Change>)> {
        let comes = self.complete.wait_for(|complete| *complete >= revision);
        let came = tokio::time::timeout(limit, comes).await.map(|came| came.is_ok());
        let (name, complete) = (&self.name, *self.complete.borrow());
        if came != Ok(true) {
            let when = format_args!("{limit:?} after all was healed");
            report.found(format_args!(
                "the watch through {name} is at {complete} and not at {revision}, {when}"
            ));
        }
        self.stop.send_replace(true);
        let changes = self.task.await.context("a watcher of the rig failed")?;
        Ok((self.name, changes))
    }
}

async fn remember(
    name: String,
    client: Client,
    report: Report,
    told: watch::Sender<u64>,
    mut stopped: watch::Receiver<bool>,
) -> Vec<Change> {
    let options = WatchOptions::prefix("").from_revision(1).progress_interval(PROGRESS);
    let mut events = client.kv().watch(options);
    let mut changes = Vec::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            _ = stopped.wait_for(|stop| *stop) => return changes,
        };
        match event {
            Some(Ok(WatchEvent::Put { revision, entry, last_of_revision, .. })) => {
                changes.push(Change { revision, ..Change::put(&entry) });
                if last_of_revision {
                    told.send_replace(revision);
                }
            }
            Some(Ok(WatchEvent::Delete { revision, entry, last_of_revision, .. })) => {
                changes.push(Change { revision, key: entry.key, value: None });
                if last_of_revision {
                    told.send_replace(revision);
                }
            }
            Some(Ok(WatchEvent::Progress { revision, .. })) => drop(told.send_replace(revision)),
            Some(Ok(WatchEvent::Opened { .. })) => {}
            Some(Ok(other)) => report.found(format_args!("the watch through {name} was told {other:?}")),
            Some(Err(error)) => {
                report.found(format_args!("the watch through {name} ended: {error}"));
                return changes;
            }
            None => return changes,
        }
    }
}
