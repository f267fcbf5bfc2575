//! A client of one member: it calls, one call after the other, until its member's process ends, and puts down what it was
//! told. A call without an answer it gives up after a while, or tries again under the same idempotency key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use konsul_raft::Node;
use konsul_state::command::{
    self, KvCompare, KvDelete, KvOperation, KvPut, KvTxn, command::Op, kv_compare, kv_operation, kv_result,
    outcome,
};
use konsul_state::propose::{Propose, ProposeError};
use konsul_state::view::View;
use konsul_state::{Command, Key, Namespace, Outcome, State};
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::watch;

use crate::member::Stage;
use crate::plan::Plan;
use crate::record::{Action, Answer, Process, Result, Shared, Write};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a call is tried.
const MAX_TRIES: u32 = 3;

/// A client.
pub(crate) struct Client {
    pub(crate) process: Process,
    pub(crate) number: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) record: Shared,
    pub(crate) stage: watch::Receiver<Stage>,
    pub(crate) node: Arc<Node>,
    pub(crate) state: State,
    pub(crate) random: SmallRng,
    /// The last value it saw of each key, so that some of its swaps succeed.
    pub(crate) known: Vec<Option<u64>>,
    /// How many clients of the member may still call.
    pub(crate) busy: Arc<AtomicUsize>,
}

impl Client {
    /// Calls for as long as there is work.
    pub(crate) async fn run(mut self) {
        while *self.stage.borrow() == Stage::Work {
            let think_ms = self.random.random_range(1..=self.plan.think_ms);
            tokio::time::sleep(Duration::from_millis(think_ms)).await;
            let key = self.random.random_range(0..self.plan.keys);
            let action = self.choose(key);
            let number = self.record.lock().call(self.process, self.number, key, action);
            let answer = match action {
                Action::Get => self.get(key).await,
                Action::Look => self.look(key),
                Action::Write(write) => self.write(number, key, write).await,
            };
            if let Some(answer) = answer {
                self.record.lock().answer(number, answer);
                self.learn(key, action, answer.result);
            }
        }
        self.busy.fetch_sub(1, Relaxed);
    }

    fn choose(&mut self, key: usize) -> Action {
        // Nobody else's, because calls are numbered and this will be the next.
        let value = self.record.lock().operations.len() as u64;
        match self.random.random_range(0..10) {
            0..=2 => Action::Write(Write::Put(value)),
            3..=4 => Action::Write(Write::Swap { expected: self.known[key], value }),
            5 => Action::Write(Write::Delete),
            6..=8 => Action::Get,
            _ => Action::Look,
        }
    }

    fn learn(&mut self, key: usize, action: Action, result: Result) {
        self.known[key] = match (action, result) {
            (Action::Write(write), Result::Changed) => write.value(),
            (_, Result::Found(value)) => value,
            _ => None,
        };
    }

    /// A linearizable read.
    async fn get(&self, key: usize) -> Option<Answer> {
        match tokio::time::timeout(PATIENCE, self.node.read_barrier()).await {
            Ok(Ok(())) => self.look(key),
            // A read that failed says nothing.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    fn look(&self, key: usize) -> Option<Answer> {
        let view = self.state.view().ok()?;
        let result = Result::Found(read(&view, key)?);
        Some(Answer { revision: view.revision().0, result })
    }

    /// A write, tried again under the same idempotency key while nobody knows what became of it.
    async fn write(&mut self, number: usize, key: usize, write: Write) -> Option<Answer> {
        let command = command(number, key, write, self.plan.value_bytes);
        let mut is_refused = true;
        for _ in 0..MAX_TRIES {
            match tokio::time::timeout(PATIENCE, self.node.propose(command.clone())).await {
                Ok(Ok(outcome)) => {
                    self.repeat(number, command, &outcome).await;
                    return self.understand(number, &outcome);
                }
                Ok(Err(ProposeError::NoLeader | ProposeError::Busy | ProposeError::DiskFull)) => {}
                Ok(Err(_)) | Err(_) => is_refused = false,
            }
            if self.random.random_bool(0.5) {
                break;
            }
        }
        is_refused.then_some(Answer { revision: 0, result: Result::Refused })
    }

    /// Now and then calls again for what was answered; the answer has to be the same.
    async fn repeat(&mut self, number: usize, command: Command, outcome: &Outcome) {
        if !self.random.random_bool(0.05) {
            return;
        }
        let repeated = tokio::time::timeout(PATIENCE, self.node.propose(command)).await;
        if let Ok(Ok(again)) = repeated
            && again != *outcome
        {
            let what = format!("call {number} came to {outcome:?}, and when it was repeated to {again:?}");
            self.record.lock().complain(&what);
        }
    }

    fn understand(&self, number: usize, outcome: &Outcome) -> Option<Answer> {
        let result = match &outcome.result {
            Some(outcome::Result::Kv(kv)) if !kv.succeeded => Result::Unchanged,
            Some(outcome::Result::Kv(kv)) => match kv.results.first().and_then(|r| r.result.as_ref()) {
                Some(kv_result::Result::Delete(delete)) if delete.deleted == 0 => Result::Unchanged,
                _ => Result::Changed,
            },
            other => {
                self.record.lock().complain(&format!("call {number} came to {other:?}"));
                return None;
            }
        };
        Some(Answer { revision: outcome.revision, result })
    }
}

/// The key of this number.
pub(crate) fn key_name(key: usize) -> String {
    format!("key/{key}")
}

/// The number of a key of this name.
pub(crate) fn key_number(name: &str) -> Option<usize> {
    name.strip_prefix("key/")?.parse().ok()
}

/// The number at the beginning of a value.
pub(crate) fn value_number(value: &[u8]) -> Option<u64> {
    let digits = value.split(|byte| *byte == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The value of this number, of some length up to `max_bytes` and a few.
fn value(number: u64, max_bytes: usize) -> Vec<u8> {
    let mut value = format!("{number} ").into_bytes();
    let padding = number.wrapping_mul(7_919) as usize % (max_bytes + 1);
    value.resize(value.len() + padding, b'.');
    value
}

fn read(view: &View, key: usize) -> Option<Option<u64>> {
    let (namespace, key) = (Namespace::parse("").ok()?, Key::parse(&key_name(key)).ok()?);
    let found = view.kv_get(&namespace, &key, None).ok()?;
    Some(found.and_then(|record| value_number(&record.value)))
}

fn command(number: usize, key: usize, write: Write, value_bytes: usize) -> Command {
    let key = key_name(key);
    let compare = match write {
        Write::Swap { expected, .. } => {
            let target = match expected {
                Some(expected) => kv_compare::Target::Value(value(expected, value_bytes).into()),
                None => kv_compare::Target::Exists(false),
            };
            vec![KvCompare { key: key.clone(), target: Some(target), ..KvCompare::default() }]
        }
        Write::Put(_) | Write::Delete => Vec::new(),
    };
    let op = match write.value() {
        Some(number) => {
            let value = value(number, value_bytes).into();
            kv_operation::Op::Put(KvPut { key, value, ..KvPut::default() })
        }
        None => kv_operation::Op::Delete(KvDelete { key, ..KvDelete::default() }),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let txn = KvTxn {
        namespace: Namespace::DEFAULT.to_owned(),
        compare,
        then: vec![KvOperation { op: Some(op) }],
        ..KvTxn::default()
    };
    Command {
        format: command::FORMAT,
        time_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        idempotency_key: format!("call {number}"),
        op: Some(Op::Kv(txn)),
        ..Command::default()
    }
}
