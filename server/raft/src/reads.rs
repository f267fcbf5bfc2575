//! Linearizable reads by read-index, batched: one round asks openraft for the commit index under confirmed
//! leadership, and serves every read that waited when it began. Each then waits until that index is applied
//! here.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use konsul_state::propose::ProposeError;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::answers::{Desks, Round, Waiter};
use crate::health::Health;
use crate::proposer::Raft;
use crate::stats::Stats;
use crate::types::Types;

/// The reads that wait for the next round.
pub(crate) struct Reads {
    queue: Mutex<Queue>,
    filled: Notify,
    max_waiting: usize,
    desks: Arc<Desks>,
    health: Arc<Health>,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiter<()>>,
    closed: bool,
}

impl Reads {
    pub(crate) fn new(max_waiting: usize, desks: Arc<Desks>, health: Arc<Health>, stats: Arc<Stats>) -> Self {
        Self { queue: Mutex::default(), filled: Notify::new(), max_waiting, desks, health, stats }
    }

    /// Returns when every write that was acknowledged before the call is applied here.
    pub(crate) async fn barrier(&self) -> Result<(), ProposeError> {
        if let Some(error) = self.health.broken() {
            return Err(error);
        }
        let (waiter, answer) = self.desks.wait();
        let is_first = {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(ProposeError::ShuttingDown);
            }
            if queue.waiting.len() >= self.max_waiting {
                return Err(ProposeError::Busy);
            }
            queue.waiting.push(waiter);
            queue.waiting.len() == 1
        };
        if is_first {
            self.filled.notify_one();
        }
        answer.await.unwrap_or_else(|| Err(self.health.why_unanswered()))
    }

    /// Runs rounds until it is closed.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft, mut applied: watch::Receiver<u64>) {
        loop {
            self.filled.notified().await;
            // Reads that became ready together with the first one run first, and join.
            tokio::task::yield_now().await;
            let (waiting, closed) = {
                let mut queue = self.queue.lock();
                (std::mem::take(&mut queue.waiting), queue.closed)
            };
            if !waiting.is_empty() {
                self.round(&raft, &mut applied, waiting).await;
            }
            if closed {
                return;
            }
        }
    }

    /// Refuses new reads from now on; `run` ends when those that wait are answered.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    async fn round(&self, raft: &Raft, applied: &mut watch::Receiver<u64>, waiting: Vec<Waiter<()>>) {
        let count = waiting.len();
        let round = Round::new(waiting, self.health.clone());
        self.stats.read_rounds.fetch_add(1, Relaxed);
        self.stats.reads.fetch_add(count as u64, Relaxed);
        let index = match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer.read_log_id().index(),
            Err(error) => return round.fail(&self.refusal(&error)),
        };
        // Fails only when the applying thread is gone, and then the round says why by being dropped.
        if applied.wait_for(|applied| *applied >= index).await.is_ok() {
            round.answer_each(std::iter::repeat_n((), count));
        }
    }

    fn refusal(&self, error: &RaftError<Types, LinearizableReadError<Types>>) -> ProposeError {
        match error {
            RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            ) => ProposeError::NoLeader,
            RaftError::Fatal(_) => self.health.why_unanswered(),
        }
    }
}
