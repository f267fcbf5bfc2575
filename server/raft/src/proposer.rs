//! Group commit: callers put their Commands into a queue, and what waits there becomes one log entry. While
//! that is being synced the next one fills. This is the only way into the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use bytes::Bytes;
use konsul_state::propose::ProposeError;
use konsul_state::{Command, Outcome};
use openraft::errors::ClientWriteError;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::answers::{Desks, Round, Waiter};
use crate::health::Health;
use crate::machine::Machine;
use crate::settings::Limits;
use crate::space::Space;
use crate::stats::Stats;
use crate::types::{Completion, Group, Types, WriteResult};

pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// The queue of Commands, and its rules.
pub(crate) struct Proposer {
    queue: Mutex<Queue>,
    filled: Notify,
    in_flight: Arc<Semaphore>,
    limits: Limits,
    desks: Arc<Desks>,
    space: Arc<Space>,
    health: Arc<Health>,
    stats: Arc<Stats>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
}

struct Pending {
    command: Bytes,
    waiter: Waiter,
}

/// The callers of one log entry.
struct Callers {
    round: Round,
    /// Given back when the entry is applied, so that only so many are in flight.
    _permit: OwnedSemaphorePermit,
}

/// Counts a caller for as long as it waits.
struct Waiting<'a>(&'a Stats);

impl<'a> Waiting<'a> {
    fn new(stats: &'a Stats) -> Self {
        stats.waiting.fetch_add(1, Relaxed);
        Self(stats)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Proposer {
    pub(crate) fn new(
        limits: Limits,
        desks: Arc<Desks>,
        space: Arc<Space>,
        health: Arc<Health>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            in_flight: Arc::new(Semaphore::new(limits.in_flight_entries)),
            limits,
            desks,
            space,
            health,
            stats,
        }
    }

    /// Has a Command proposed, and returns its outcome. Whoever drops the future goes away without an answer;
    /// the Command may be carried out all the same.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let began = Instant::now();
        let answer = self.enqueue(command).inspect_err(|_| {
            self.stats.refused.fetch_add(1, Relaxed);
        })?;
        let _waiting = Waiting::new(&self.stats);
        let answer = answer.await.unwrap_or_else(|| Err(self.health.why_unanswered()));
        self.stats.propose_us.record_us(began.elapsed());
        answer
    }

    fn enqueue(
        &self,
        command: Command,
    ) -> Result<impl Future<Output = Option<Result<Outcome, ProposeError>>> + use<>, ProposeError> {
        if let Some(error) = self.health.broken() {
            return Err(error);
        }
        self.space.admit(&command)?;
        let command = Bytes::from(command.encode_to_vec());
        let (bytes, max_bytes) = (command.len(), self.limits.command_bytes);
        if bytes > max_bytes {
            return Err(ProposeError::TooLarge { bytes, max_bytes });
        }
        let (waiter, answer) = self.desks.wait();
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(ProposeError::ShuttingDown);
            }
            let is_full = queue.waiting.len() >= self.limits.waiting_commands;
            if is_full || queue.bytes + bytes > self.limits.waiting_bytes {
                return Err(ProposeError::Busy);
            }
            queue.bytes += bytes;
            queue.waiting.push_back(Pending { command, waiter });
        }
        self.filled.notify_one();
        Ok(answer)
    }

    /// Proposes what comes in until it is closed and everything is answered.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft) {
        let mut is_crowded = false;
        while self.wait_until_filled().await {
            let Ok(permit) = self.in_flight.clone().acquire_owned().await else { return };
            if is_crowded {
                // Calls that became ready together with the first one run first, and join.
                tokio::task::yield_now().await;
            }
            let (group, callers) = self.next_group(permit);
            is_crowded = group.commands().len() > 1;
            let completion = Completion::new(move |result: WriteResult| callers.complete(result));
            // If Raft has stopped the completion is dropped, and with it the callers are told.
            if let Err(error) = raft.client_write_ff(group, Some(completion)).await {
                tracing::debug!(%error, "a proposal was not taken");
            }
        }
        let all = u32::try_from(self.limits.in_flight_entries).unwrap_or(u32::MAX);
        // Fails only if the semaphore were closed, which nobody does.
        drop(self.in_flight.acquire_many(all).await);
    }

    /// Refuses new Commands from now on; `run` ends when those that wait are answered.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.filled.notify_one();
    }

    /// Waits for Commands; false when there will be none any more.
    async fn wait_until_filled(&self) -> bool {
        loop {
            {
                let queue = self.queue.lock();
                if !queue.waiting.is_empty() {
                    return true;
                }
                if queue.closed {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    /// Takes what waits, up to the limits of an entry. A Command that exceeds them is an entry by itself.
    fn next_group(&self, permit: OwnedSemaphorePermit) -> (Group, Callers) {
        let mut queue = self.queue.lock();
        let mut bytes = 0;
        let fits = |pending: &&Pending| {
            bytes += pending.command.len();
            bytes <= self.limits.entry_bytes
        };
        let count = queue.waiting.iter().take(self.limits.entry_commands).take_while(fits).count();
        let count = count.max(1).min(queue.waiting.len());
        let mut commands = Vec::with_capacity(count);
        let mut waiters = Vec::with_capacity(count);
        for Pending { command, waiter } in queue.waiting.drain(..count) {
            commands.push(command);
            waiters.push(waiter);
        }
        let group = Group::new(commands);
        queue.bytes -= group.bytes();
        drop(queue);
        self.stats.group_commands.record(count as u64);
        let round = Round::new(waiters, self.health.clone());
        (group, Callers { round, _permit: permit })
    }
}

impl Callers {
    /// Gives each caller its own outcome, or all the error.
    fn complete(self, result: WriteResult) {
        let Self { round, _permit } = self;
        match result {
            Ok(applied) => round.answer_each(applied.data),
            // It was rejected before it was appended.
            Err(ClientWriteError::ForwardToLeader(_)) => round.fail(&ProposeError::NoLeader),
            // It was appended here and then replaced by another leader's entries; it may live on elsewhere.
            Err(ClientWriteError::LogEntryDiscarded(_)) => round.fail(&ProposeError::ShuttingDown),
            Err(error) => round.fail(&ProposeError::Broken(error.to_string())),
        }
    }
}
