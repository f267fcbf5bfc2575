//! What uses the cluster while it is being broken: clients of single keys, writers of a ledger, holders of a lock, tenants of leases, watchers,
//! and one who compares the members.
//! They only remember; what they remember is judged in `checks`.

mod history;
mod ledger;
mod locker;
mod register;
mod sampler;
mod tenant;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
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
pub(crate) use locker::{Count, Counts};
use register::Register;
pub(crate) use tenant::Tenancy;
pub(crate) use watcher::{Change, Watcher};

/// Clients of each single member, and as many that have all addresses.
const CLIENTS_EACH: usize = 2;
const POLL: Duration = Duration::from_millis(100);
/// How long a watch may take to tell what has happened, once all is healed.
const HEARSAY: Duration = Duration::from_secs(1);
/// Written last, so that everything before it is known to have come.
const LAST_KEY: &str = "last";

/// Everybody who uses the cluster.
pub(crate) struct Workload {
    /// What the clients of single keys did.
    pub(crate) history: Arc<History>,
    watchers: Vec<Watcher>,
    clients: JoinSet<()>,
    writers: JoinSet<Vec<Promise>>,
    lockers: JoinSet<Counts>,
    tenants: JoinSet<Vec<Tenancy>>,
    ends: JoinSet<BTreeMap<String, Duration>>,
    sampler: JoinSet<Vec<Duration>>,
    /// When each leader was seen first.
    leaders: Vec<Duration>,
    stop: watch::Sender<bool>,
    stop_ends: watch::Sender<bool>,
}

/// What lockers and tenants remember.
#[derive(Debug, Default)]
pub(crate) struct Coordination {
    pub(crate) counts: Counts,
    /// The versions of the lockers' number, in order.
    pub(crate) versions: Vec<Count>,
    pub(crate) tenancies: Vec<Tenancy>,
    /// When each tenant's key went.
    pub(crate) ends: BTreeMap<String, Duration>,
    /// When each leader was seen first: it gives all leases their full time again.
    pub(crate) leaders: Vec<Duration>,
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
        let (mut lockers, mut tenants, mut ends) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        let (stop_ends, ends_stopped) = watch::channel(false);
        let began = cluster.report.began();
        ends.spawn(tenant::ends(patient(&everyone(cluster))?, began, ends_stopped));
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
            let locker = locker::Locker::new(patient(&way)?, random.random());
            lockers.spawn(locker.run(stopped.clone()));
            let tenant = tenant::Tenant::new(&way.name, patient(&way)?, random.random(), began);
            tenants.spawn(tenant.run(stopped.clone()));
        }
        let mut sampler = JoinSet::new();
        let members = cluster.members.iter().map(|member| (member.name.clone(), member.client.clone()));
        sampler.spawn(sampler::run(members.collect(), cluster.report.clone(), stopped));
        Ok(Self {
            history,
            watchers,
            clients,
            writers,
            lockers,
            tenants,
            ends,
            sampler,
            leaders: Vec::new(),
            stop,
            stop_ends,
        })
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
            self.leaders.extend(sampler.context("the comparison of members failed")?);
        }
        let mut promises = Vec::new();
        while let Some(writer) = self.writers.join_next().await {
            promises.extend(writer.context("a writer of the rig failed")?);
        }
        Ok(promises)
    }

    /// Waits until all leases of the tenants have ended, and collects what lockers and tenants remember, after [`Self::stop`]. Reports leases
    /// that don't end within the limit.
    ///
    /// # Errors
    /// When one of them panicked, or the lockers' number can't be read.
    pub(crate) async fn coordination(&mut self, cluster: &Cluster, limit: Duration) -> Result<Coordination> {
        let mut told = Coordination { leaders: self.leaders.clone(), ..Coordination::default() };
        while let Some(locker) = self.lockers.join_next().await {
            let Counts { counts, fenced, held } = locker.context("a locker of the rig failed")?;
            told.counts.counts.extend(counts);
            told.counts.fenced += fenced;
            told.counts.held += held;
        }
        while let Some(tenant) = self.tenants.join_next().await {
            told.tenancies.extend(tenant.context("a tenant of the rig failed")?);
        }
        let kv = patient(&everyone(cluster))?.kv().timeout(limit).namespace(locker::NAMESPACE);
        let all_gone = async {
            while kv.list(tenant::TENANTS).keys_only().await.is_ok_and(|page| !page.entries.is_empty()) {
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(limit, all_gone).await.is_err() {
            cluster
                .report
                .found(format_args!("not all leases end within {limit:?} after their tenants left"));
        }
        // The watch hears of the last ones.
        tokio::time::sleep(HEARSAY).await;
        self.stop_ends.send_replace(true);
        while let Some(ends) = self.ends.join_next().await {
            told.ends = ends.context("the watcher of leases failed")?;
        }
        for version in kv.history(locker::COUNTER).ascending().page_size(1_000).all().await? {
            let value = version.entry.map(|entry| text(&entry.value)).unwrap_or_default();
            let count = Count::parse(&value).with_context(|| format!("the number is {value:?}"))?;
            told.versions.push(count);
        }
        Ok(told)
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
