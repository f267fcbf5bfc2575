//! A client of single keys: reads, writes, compares and swaps, deletes, each call once, and remembers what came of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use konsul_client::proto::Entry;
use konsul_client::{Client, Code, Error};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::history::{History, Op, Outcome, Record, Version};
use super::text;
use crate::report::Report;

/// Keys that all clients share at a time.
const KEYS: u64 = 8;
/// After this long they go on to other keys. A check takes much longer the more outcomes of a key are unknown.
const GENERATION: Duration = Duration::from_secs(10);
/// A client waits up to this long between two calls, so that the servers are busy and not drowned.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// A client with one call at a time.
pub(super) struct Register {
    number: usize,
    via: String,
    client: Client,
    history: Arc<History>,
    report: Report,
    random: StdRng,
    writes: u64,
    /// The revisions at which this client last saw the present keys; 0: not there.
    seen: HashMap<String, u64>,
    generation: u64,
}

/// A call to be made.
struct Call<'a> {
    op: Op,
    key: &'a str,
    value: Option<String>,
    expected: Option<u64>,
}

impl Register {
    pub(super) fn new(
        number: usize,
        via: &str,
        client: Client,
        history: Arc<History>,
        report: &Report,
        seed: u64,
    ) -> Self {
        Self {
            number,
            via: via.to_owned(),
            client,
            history,
            report: report.clone(),
            random: StdRng::seed_from_u64(seed),
            writes: 0,
            seen: HashMap::new(),
            generation: 0,
        }
    }

    /// Makes one call after the other until it is told to stop.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            self.step().await;
            let pause = self.random.random_range(Duration::ZERO..PAUSE_MAX);
            if tokio::time::timeout(pause, stopped.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
        }
    }

    /// Reads a key; whether that was answered.
    pub(super) async fn get(&self, key: &str) -> bool {
        let call = Call { op: Op::Get, key, value: None, expected: None };
        matches!(self.make(call).await, Outcome::Done { .. })
    }

    async fn step(&mut self) {
        let key = self.draw_key();
        let seen = self.seen.get(&key).copied();
        let op = match (self.random.random_range(0..10), seen) {
            (0..4, _) | (6..9, None) => Op::Get,
            (4..6, _) => Op::Put,
            (6..9, Some(_)) => Op::Cas,
            _ => Op::Delete,
        };
        let value = matches!(op, Op::Put | Op::Cas).then(|| {
            self.writes += 1;
            format!("{}-{}", self.number, self.writes)
        });
        let expected = seen.filter(|_| op == Op::Cas);
        let outcome = self.make(Call { op, key: &key, value, expected }).await;
        let now = match (outcome, op) {
            (Outcome::Done { found, .. }, Op::Get) => found.map_or(0, |found| found.revision),
            (Outcome::Done { .. }, Op::Delete) => 0,
            (Outcome::Done { revision, .. }, Op::Put | Op::Cas) => revision,
            (Outcome::Refused { found_revision }, _) => found_revision,
            (Outcome::NotDone | Outcome::Unknown, _) => return,
        };
        self.seen.insert(key, now);
    }

    fn draw_key(&mut self) -> String {
        let generation = self.history.now_ns() / u64::try_from(GENERATION.as_nanos()).unwrap_or(u64::MAX);
        if generation != self.generation {
            self.generation = generation;
            self.seen.clear();
        }
        let number = self.random.random_range(0..KEYS);
        format!("register/{generation:05}/{number}")
    }

    async fn make(&self, call: Call<'_>) -> Outcome {
        let called_ns = self.history.now_ns();
        let answer = self.send(&call).await;
        let returned_ns = self.history.now_ns();
        let (outcome, error) = match answer {
            Ok(outcome) => (outcome, None),
            Err(error) => self.judge(&call, &error),
        };
        let Call { op, key, value, expected } = call;
        let (client, via, key) = (self.number, self.via.clone(), key.to_owned());
        let record = Record {
            client,
            via,
            op,
            key,
            value,
            expected,
            called_ns,
            returned_ns,
            outcome: outcome.clone(),
        };
        self.history.add(record, error);
        outcome
    }

    /// Every write asks what it overwrote, which tells the order of writes that nobody read in between.
    async fn send(&self, call: &Call<'_>) -> Result<Outcome, Error> {
        let kv = self.client.kv();
        match call.op {
            Op::Get => {
                let found = kv.get(call.key).response().await?;
                Ok(done(found.revision, found.entry))
            }
            Op::Put | Op::Cas => {
                let mut put = kv.put(call.key, call.value.clone().unwrap_or_default()).previous();
                if let Some(expected) = call.expected {
                    put = put.if_revision(expected);
                }
                let written = put.await?;
                Ok(done(written.revision, written.previous))
            }
            Op::Delete => {
                let deleted = kv.delete(call.key).previous().await?;
                Ok(done(deleted.revision, deleted.previous))
            }
        }
    }

    /// What an error says about the call, and how it is counted.
    fn judge(&self, call: &Call<'_>, error: &Error) -> (Outcome, Option<String>) {
        let reason = error.reason().unwrap_or("no reason");
        let counted = Some(format!("{:?} ({reason})", error.code()));
        match (error.code(), error.current_revision()) {
            (Code::NotFound, Some(revision)) if call.op == Op::Get && reason == "KEY_NOT_FOUND" => {
                (Outcome::Done { revision, found: None }, None)
            }
            (Code::FailedPrecondition, Some(found_revision)) if call.op == Op::Cas => {
                (Outcome::Refused { found_revision }, None)
            }
            // Nothing was sent, or it was refused before it was taken.
            _ if matches!(error, Error::Unreachable(_)) => {
                (Outcome::NotDone, Some("no connection".to_owned()))
            }
            (Code::ResourceExhausted, _) if error.reason().is_some() => (Outcome::NotDone, counted),
            (
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::Unknown,
                _,
            ) => (Outcome::Unknown, counted),
            // No fault explains these.
            _ => {
                self.report.found(format_args!(
                    "{:?} of {} through {}: {counted:?}: {error}",
                    call.op, call.key, self.via
                ));
                (Outcome::Unknown, counted)
            }
        }
    }
}

fn done(revision: u64, found: Option<Entry>) -> Outcome {
    let version = |entry: Entry| Version { value: text(&entry.value), revision: entry.mod_revision };
    Outcome::Done { revision, found: found.map(version) }
}
