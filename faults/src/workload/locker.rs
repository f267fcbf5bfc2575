//! Holders of one lock who count together: each reads a number and writes the next one, under the lock and its fencing token. Some stop refreshing
//! their lease and go on long after it has ended, as a program does that was stopped: their writes must be refused.

use std::time::Duration;

use konsul_client::{Client, LockGuard};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::text;

/// Where lockers and tenants keep their keys: the watchers of the rig do not look there.
pub(crate) const NAMESPACE: &str = "coordination";
/// The number they count with, and the lock they count under.
pub(crate) const COUNTER: &str = "counter";
/// How long a lease lives: with less, elections would take most locks away.
const TTL: Duration = Duration::from_secs(3);
/// One in so many stands still.
const STANDS_STILL: f64 = 0.3;
/// How long one that stands still does so beyond the life of its lease.
const STILL_MAX: Duration = Duration::from_secs(3);
/// So many times a holder adds at most.
const ADDS_MAX: u32 = 4;
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// A number that was written under a token; `known` if it was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) number: u64,
    pub(crate) token: u64,
    pub(crate) known: bool,
}

impl Count {
    /// What is written.
    fn value(&self) -> String {
        format!("{} {}", self.number, self.token)
    }

    /// What was written; `None` if it is none of theirs.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let (number, token) = value.split_once(' ')?;
        Some(Self { number: number.parse().ok()?, token: token.parse().ok()?, known: true })
    }
}

/// One that takes the lock again and again.
pub(super) struct Locker {
    client: Client,
    random: StdRng,
    remembered: Counts,
}

/// What a locker remembers.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) counts: Vec<Count>,
    /// Writes that were refused because the lock was lost.
    pub(crate) fenced: usize,
    /// How many times the lock was had.
    pub(crate) held: usize,
}

impl Locker {
    pub(super) fn new(client: Client, seed: u64) -> Self {
        Self { client, random: StdRng::seed_from_u64(seed), remembered: Counts::default() }
    }

    /// Counts until it is told to stop.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Counts {
        loop {
            let held = tokio::select! {
                held = self.lock() => held,
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            if let Ok(guard) = held {
                self.remembered.held += 1;
                self.count(guard).await;
            }
            let pause = self.random.random_range(Duration::ZERO..PAUSE_MAX);
            if tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await.is_ok() {
                break;
            }
        }
        self.remembered
    }

    async fn lock(&self) -> Result<(LockGuard, konsul_client::HeldLease), konsul_client::Error> {
        let lease = self.client.leases().namespace(NAMESPACE).hold(TTL).await?;
        let guard = self.client.locks().namespace(NAMESPACE).lock(COUNTER).lease(&lease).await?;
        Ok((guard, lease))
    }

    /// Adds some times to the number. What is not known to be done ends it: it may be done later, as long as the lock is held.
    async fn count(&mut self, (guard, lease): (LockGuard, konsul_client::HeldLease)) {
        let kv = self.client.kv().namespace(NAMESPACE);
        for _ in 0..self.random.random_range(1..=ADDS_MAX) {
            let Ok(found) = kv.get(COUNTER).await else { return };
            let before = found.and_then(|entry| Count::parse(&text(&entry.value)));
            if self.random.random_bool(STANDS_STILL) {
                lease.clone().leave();
                tokio::time::sleep(TTL + self.random.random_range(Duration::ZERO..STILL_MAX)).await;
            }
            let number = before.map_or(0, |before| before.number) + 1;
            let mut count = Count { number, token: guard.token(), known: false };
            let written = kv.put(COUNTER, count.value()).fence(guard.fence()).await;
            match written {
                Ok(_) => {
                    count.known = true;
                    self.remembered.counts.push(count);
                }
                Err(error) if error.reason() == Some("LOCK_NOT_HELD") => {
                    self.remembered.fenced += 1;
                    return;
                }
                Err(_) => {
                    self.remembered.counts.push(count);
                    return;
                }
            }
        }
        // What can't be given up ends with its lease.
        drop(guard.unlock().await);
        drop(lease.revoke().await);
    }
}
