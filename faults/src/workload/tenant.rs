//! Tenants of leases: each binds a key to a lease, refreshes it for a while, and leaves it. One watcher sees when the keys go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use konsul_client::{Client, WatchEvent, WatchOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::locker::NAMESPACE;

/// Begins the keys of all tenants.
pub(crate) const TENANTS: &str = "tenants/";
/// A lease lives from a second to so long.
const TTL_MAX: Duration = Duration::from_secs(4);
/// It is refreshed so many times at most.
const REFRESHES_MAX: u32 = 6;

/// A lease that was left. Times are those of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenancy {
    pub(crate) key: String,
    pub(crate) ttl: Duration,
    /// When the last refresh that was acknowledged was sent: it lives for its whole time from here on.
    pub(crate) refreshed: Duration,
    /// When the last call that may have refreshed it had ended.
    pub(crate) touched: Duration,
    /// When it was said to be gone, if that came before its tenant left.
    pub(crate) told_gone: Option<Duration>,
}

/// Makes leases and leaves them.
pub(super) struct Tenant {
    via: String,
    client: Client,
    random: StdRng,
    began: Instant,
}

impl Tenant {
    pub(super) fn new(via: &str, client: Client, seed: u64, began: Instant) -> Self {
        Self { via: via.to_owned(), client, random: StdRng::seed_from_u64(seed), began }
    }

    /// Makes leases until it is told to stop; those whose keys were certainly written.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Vec<Tenancy> {
        let mut tenancies = Vec::new();
        // A key for each attempt: one whose put got no answer may be written still, under its own lease.
        let mut attempt = 0;
        while !*stopped.borrow_and_update() {
            attempt += 1;
            let key = format!("{TENANTS}{}/{attempt:06}", self.via);
            match self.live(key).await {
                Some(tenancy) => tenancies.push(tenancy),
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        tenancies
    }

    async fn live(&mut self, key: String) -> Option<Tenancy> {
        let leases = self.client.leases().namespace(NAMESPACE);
        let ttl = self.random.random_range(Duration::from_secs(1)..TTL_MAX);
        // The API's time to live is of milliseconds.
        let ttl = Duration::from_millis(u64::try_from(ttl.as_millis()).ok()?);
        let mut refreshed = self.began.elapsed();
        let lease = leases.grant(ttl, 0, &self.via).await.ok()?.id;
        let kv = self.client.kv().namespace(NAMESPACE);
        kv.put(&key, "").lease(lease).await.ok()?;
        let (mut touched, mut told_gone) = (self.began.elapsed(), None);
        for _ in 0..self.random.random_range(0..=REFRESHES_MAX) {
            tokio::time::sleep(self.random.random_range(Duration::ZERO..ttl * 2 / 3)).await;
            let sent = self.began.elapsed();
            let answer = leases.refresh(&[lease]).await;
            let is_gone = answer.as_ref().is_ok_and(|results| results.iter().all(|r| r.ttl.is_none()));
            touched = self.began.elapsed();
            match answer {
                Ok(_) if is_gone => {
                    told_gone = Some(touched);
                    break;
                }
                Ok(_) => refreshed = sent,
                Err(_) => {}
            }
        }
        Some(Tenancy { key, ttl, refreshed, touched, told_gone })
    }
}

/// When each tenant's key went, in the report's time, as a watch that resumes by itself has it.
pub(super) async fn ends(
    client: Client,
    began: Instant,
    mut stopped: watch::Receiver<bool>,
) -> BTreeMap<String, Duration> {
    let mut ends = BTreeMap::new();
    let mut watch = client.kv().namespace(NAMESPACE).watch(WatchOptions::prefix(TENANTS).from_revision(1));
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            _ = stopped.wait_for(|stop| *stop) => return ends,
        };
        match event {
            Some(Ok(WatchEvent::Delete { entry, .. })) => drop(ends.insert(entry.key, began.elapsed())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return ends,
        }
    }
}
