//! A writer that writes each key once and makes each call again until it is answered or late, as an application would. What was
//! acknowledged must be there at the end, written once.

use std::time::Duration;

use konsul_client::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

/// Begins all keys of the ledger.
pub(crate) const LEDGER: &str = "ledger/";
/// A writer waits up to this long between two writes.
const PAUSE_MAX: Duration = Duration::from_millis(60);

/// A write and what the writer was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) key: String,
    pub(crate) value: String,
    /// Its revision; `None` when nobody told.
    pub(crate) revision: Option<u64>,
}

/// Writes one key after the other.
pub(super) struct Writer {
    via: String,
    client: Client,
    random: StdRng,
}

impl Writer {
    pub(super) fn new(via: &str, client: Client, seed: u64) -> Self {
        Self { via: via.to_owned(), client, random: StdRng::seed_from_u64(seed) }
    }

    /// Writes until it is told to stop; all its writes.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Vec<Promise> {
        let mut promises = Vec::new();
        loop {
            let key = format!("{LEDGER}{}/{:06}", self.via, promises.len());
            let value = format!("{:016x}", self.random.random::<u64>());
            let written = self.client.kv().put(&key, value.clone()).await;
            promises.push(Promise { key, value, revision: written.ok().map(|written| written.revision) });
            let pause = self.random.random_range(Duration::ZERO..PAUSE_MAX);
            if tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await.is_ok() {
                return promises;
            }
        }
    }
}
