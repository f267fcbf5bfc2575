//! What uses the cluster while it is being broken: clients of single keys, writers of a ledger, watchers, and one who compares the members.
//! They only remember; what they remember is judged in `checks`.

mod history;
mod ledger;
mod register;
mod sampler;
mod watcher;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use konsul_client::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cluster::{self, CALL_LIMIT, Cluster};
use crate::member::Member;
#[cfg(test)]
pub(crate) use history::Version;
pub(crate) use history::{History, Op, Outcome, Record};
pub(crate) use ledger::{LEDGER, Promise};
use register::Register;
pub(crate) use watcher::{Change, Watcher};

/// Clients of each single member, and as many that have all addresses.
const CLIENTS_EACH: usize = 2;
/// Written last, so that everything before it is known to have come.
const LAST_KEY: &str = "last";

/// Everybody who uses the cluster.
pub(crate) struct Workload {
    /// What the clients of single keys did.
    pub(crate) history: Arc<History>,
    watchers: Vec<Watcher>,
    clients: JoinSet<()>,
    writers: JoinSet<Vec<Promise>>,
    sampler: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Through whom somebody uses the cluster: one member's name, or `all`.
struct Way {
    name: String,
    addresses: Vec<String>,
}

impl Workload {
    /// Begins. The seed chooses what they do, though not when.
    ///
    /// # Errors
    /// When there can be no client, or the history can't be written.
    pub(crate) fn begin(cluster: &Cluster, folder: &Path, seed: u64) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let history = Arc::new(History::new(folder, cluster.report.began())?);
        let mut random = StdRng::seed_from_u64(seed);
        let (mut clients, mut writers) = (JoinSet::new(), JoinSet::new());
        let mut watchers = Vec::new();
        for way in ways(cluster) {
            watchers.push(Watcher::begin(&way.name, patient(&way)?, &cluster.report));
            for _ in 0..CLIENTS_EACH {
                let client = cluster::client(way.addresses.clone())?;
                let number = clients.len();
                let register = Register::new(
                    number,
                    &way.name,
                    client,
                    history.clone(),
                    &cluster.report,
                    random.random(),
                );
                clients.spawn(register.run(stopped.clone()));
            }
            let writer = ledger::Writer::new(&way.name, patient(&way)?, random.random());
            writers.spawn(writer.run(stopped.clone()));
        }
        let mut sampler = JoinSet::new();
        let members = cluster.members.iter().map(|member| (member.name.clone(), member.client.clone()));
        sampler.spawn(sampler::run(members.collect(), cluster.report.clone(), stopped));
        Ok(Self { history, watchers, clients, writers, sampler, stop })
    }

    /// How many calls of the clients have been answered.
    pub(crate) fn answered(&self) -> usize {
        self.history.answered()
    }

    /// Lets clients and writers finish what they do, and brings what the writers remember.
    ///
    /// # Errors
    /// When one of them panicked.
    pub(crate) async fn stop(&mut self) -> Result<Vec<Promise>> {
        self.stop.send_replace(true);
        while let Some(client) = self.clients.join_next().await {
            client.context("a client of the rig failed")?;
        }
        while let Some(sampler) = self.sampler.join_next().await {
            sampler.context("the comparison of members failed")?;
        }
        let mut promises = Vec::new();
        while let Some(writer) = self.writers.join_next().await {
            promises.extend(writer.context("a writer of the rig failed")?);
        }
        Ok(promises)
    }

    /// Reads every key through every member once more, so that late effects of writes with unknown outcomes are seen. Reports a
    /// member through which they can't be read within the limit.
    pub(crate) async fn read_all(&self, cluster: &Cluster, limit: Duration) {
        let keys: BTreeSet<String> = self.history.records().into_iter().map(|record| record.key).collect();
        let reader = self.history.clients();
        for (number, member) in cluster.members.iter().enumerate() {
            let client = member.client.clone();
            let reads = Register::new(
                reader + number,
                &member.name,
                client,
                self.history.clone(),
                &cluster.report,
                0,
            );
            let all = async {
                for key in &keys {
                    while !reads.get(key).await {}
                }
            };
            if tokio::time::timeout(limit, all).await.is_err() {
                let name = &member.name;
                cluster
                    .report
                    .found(format_args!("not all keys can be read through {name} within {limit:?}"));
            }
        }
    }

    /// Writes one last key and waits until all watchers have it; what they were told. Reports a watcher that has not been told within the
    /// limit.
    ///
    /// # Errors
    /// When a watcher panicked.
    pub(crate) async fn streams(
        &mut self,
        cluster: &Cluster,
        limit: Duration,
    ) -> Result<Vec<(String, Vec<Change>)>> {
        let kv = patient(&everyone(cluster))?.kv().timeout(limit);
        let last = kv.put(LAST_KEY, "").await.context("the last write after all was healed");
        let last = cluster.report.found_if(last).map_or(0, |last| last.revision);
        let mut streams = Vec::new();
        for watcher in self.watchers.drain(..) {
            streams.push(watcher.until(last, limit, &cluster.report).await?);
        }
        Ok(streams)
    }
}

/// All changes as the store itself tells its history.
///
/// # Errors
/// When it can't be read within the limit.
pub(crate) async fn told_history(
    cluster: &Cluster,
    history: &History,
    limit: Duration,
) -> Result<Vec<Change>> {
    let kv = patient(&everyone(cluster))?.kv().timeout(limit);
    let mut changes = Vec::new();
    let mut keys: BTreeSet<String> = history.records().into_iter().map(|record| record.key).collect();
    keys.insert(LAST_KEY.to_owned());
    for entry in kv.list(LEDGER).all().await? {
        // Each of its keys should be written once, and that needs no question about its past.
        match entry.version {
            1 => changes.push(Change::put(&entry)),
            _ => drop(keys.insert(entry.key)),
        }
    }
    for key in keys {
        for version in kv.history(&key).ascending().page_size(1_000).all().await? {
            let value = version.entry.as_ref().map(|entry| text(&entry.value));
            changes.push(Change { revision: version.revision, key: key.clone(), value });
        }
    }
    changes.sort_unstable();
    Ok(changes)
}

/// Each member alone, and all together.
fn ways(cluster: &Cluster) -> Vec<Way> {
    let alone = |member: &Member| Way { name: member.name.clone(), addresses: vec![member.api()] };
    let mut ways: Vec<Way> = cluster.members.iter().map(alone).collect();
    if ways.len() > 1 {
        ways.push(everyone(cluster));
    }
    ways
}

fn everyone(cluster: &Cluster) -> Way {
    Way { name: "all".to_owned(), addresses: cluster.members.iter().map(Member::api).collect() }
}

/// A client that tries again as often as it may.
fn patient(way: &Way) -> Result<Client> {
    let client = Client::builder().addresses(way.addresses.clone());
    Ok(client.timeout(CALL_LIMIT * 5).connect_timeout(CALL_LIMIT).build()?)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
