//! Group commit: callers put their Commands into a queue, and what waits there becomes one log entry. While
//! that is being synced the next one fills. If another member leads, the group is sent there; if nobody does, it waits a while for
//! somebody. This is the only way into the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::time::{Duration, Instant};

use bytes::Bytes;
use konsul_state::propose::ProposeError;
use konsul_state::{Command, Outcome};
use openraft::errors::ClientWriteError;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::answers::{Answer, Desks, Round, Waiter};
use crate::forward::{Forward, Sent};
use crate::health::Health;
use crate::leadership::{Leader, Leadership};
use crate::machine::Machine;
use crate::settings::Limits;
use crate::space::Space;
use crate::stats::Stats;
use crate::types::{Completion, Group, Member, Types, WriteResult};

pub(crate) type Raft = openraft::Raft<Types, Machine>;

/// How long a Command waits for a leader before it is refused: longer than an election takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// How soon to try again what a leader that is none refused.
const RETRY: Duration = Duration::from_millis(20);

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
    /// Whether a group came back because nobody led it.
    came_back: AtomicBool,
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
    asked: Asked,
}

/// Since when a caller waits, and where it asked.
#[derive(Clone, Copy)]
struct Asked {
    since: Instant,
    /// At another member, which sent it here because this one led: it is not sent on, or members that take each other for
    /// the leader would wait for each other.
    elsewhere: bool,
}

/// The callers of one log entry.
struct Callers {
    round: Round,
    asked: Vec<Asked>,
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
            came_back: AtomicBool::new(false),
        }
    }

    /// Has a Command proposed, and returns its outcome. Whoever drops the future goes away without an answer;
    /// the Command may be carried out all the same.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.space.admit(&command)?;
        self.propose_encoded(command.encode_to_vec().into(), false).await
    }

    /// The same for a Command that came in at another member. The other member is believed to have encoded one, not that
    /// it is whole.
    pub(crate) async fn propose_forwarded(&self, command: Bytes) -> Answer<Outcome> {
        let decoded = Command::decode(command.clone()).map_err(|_| ProposeError::Unknown)?;
        self.space.admit(&decoded)?;
        self.propose_encoded(command, true).await
    }

    async fn propose_encoded(&self, command: Bytes, elsewhere: bool) -> Answer<Outcome> {
        let began = Instant::now();
        let answer = self.enqueue(command, elsewhere).inspect_err(|_| {
            self.stats.refused.fetch_add(1, Relaxed);
        })?;
        let _waiting = Waiting::new(&self.stats);
        let answer = answer.await.unwrap_or_else(|| Err(self.health.why_unanswered()));
        self.stats.propose_us.record_us(began.elapsed());
        answer
    }

    fn enqueue(
        &self,
        command: Bytes,
        elsewhere: bool,
    ) -> Result<impl Future<Output = Option<Result<Outcome, ProposeError>>> + use<>, ProposeError> {
        if let Some(error) = self.health.unfit() {
            return Err(error);
        }
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
            let asked = Asked { since: Instant::now(), elsewhere };
            queue.waiting.push_back(Pending { command, waiter, asked });
        }
        self.filled.notify_one();
        Ok(answer)
    }

    /// Proposes what comes in until it is closed and everything is answered.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft, mut leadership: Leadership, forward: Arc<Forward>) {
        let mut is_crowded = false;
        while self.wait_until_filled().await {
            let Ok(permit) = self.in_flight.clone().acquire_owned().await else { return };
            let Some(leader) = self.wait_for_leader(&mut leadership).await else { continue };
            if is_crowded {
                // Calls that became ready together with the first one run first, and join.
                tokio::task::yield_now().await;
            }
            let (group, callers) = self.next_group(permit);
            is_crowded = group.commands().len() > 1;
            match leader {
                Leader::Other(member) => {
                    tokio::spawn(self.clone().send(forward.clone(), member, group, callers));
                }
                Leader::Me | Leader::Nobody => self.clone().append(&raft, group, callers).await,
            }
        }
        let all = u32::try_from(self.limits.in_flight_entries).unwrap_or(u32::MAX);
        // Fails only if the semaphore were closed, which nobody does.
        drop(self.in_flight.acquire_many(all).await);
    }

    async fn append(self: Arc<Self>, raft: &Raft, group: Group, callers: Callers) {
        let again = group.clone();
        let completion = Completion::new(move |result: WriteResult| match result {
            Err(ClientWriteError::ForwardToLeader(_)) => self.put_back(&again, callers),
            decided => callers.complete(decided),
        });
        // If Raft has stopped the completion is dropped, and with it the callers are told.
        if let Err(error) = raft.client_write_ff(group, Some(completion)).await {
            tracing::debug!(%error, "a proposal was not taken");
        }
    }

    async fn send(self: Arc<Self>, forward: Arc<Forward>, to: Member, group: Group, callers: Callers) {
        match forward.send(&to, &group).await {
            Sent::Answered(answers) => callers.round.answer_each(answers),
            Sent::NotTaken => self.put_back(&group, callers),
            Sent::Unknown => callers.round.fail(&ProposeError::Unknown),
        }
    }

    /// Puts a group that nobody took where it was, for the next leader.
    fn put_back(&self, group: &Group, callers: Callers) {
        let commands = group.commands().iter().cloned();
        let waiting = commands.zip(callers.round.into_waiters()).zip(callers.asked);
        {
            let mut queue = self.queue.lock();
            for ((command, waiter), asked) in waiting.rev() {
                queue.bytes += command.len();
                queue.waiting.push_front(Pending { command, waiter, asked });
            }
        }
        self.came_back.store(true, Release);
        self.filled.notify_one();
    }

    /// Waits for a leader while anybody waits here; `None` when nobody does any more.
    async fn wait_for_leader(&self, leadership: &mut Leadership) -> Option<Leader> {
        let mut wait = self.came_back.swap(false, AcqRel);
        loop {
            let leader = leadership.now();
            let is_here = leader == Leader::Me;
            if !is_here && !self.refuse_those_in_vain(matches!(leader, Leader::Other(_))) {
                return None;
            }
            if leader != Leader::Nobody && !wait {
                return Some(leader);
            }
            tokio::select! {
                () = leadership.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
            wait = false;
        }
    }

    /// Refuses those that waited for too long for a leader, and those that came for one that is none any more; forgets those who
    /// went away. A broken member refuses all. Nothing was proposed of them. Says whether anybody still waits.
    fn refuse_those_in_vain(&self, another_leads: bool) -> bool {
        let broken = self.health.broken();
        let mut refused = Vec::new();
        let is_waiting = {
            let mut queue = self.queue.lock();
            let patience = if queue.closed { Duration::ZERO } else { PATIENCE };
            let stays = |pending: &Pending| {
                let is_patient = another_leads || pending.asked.since.elapsed() < patience;
                broken.is_none() && is_patient && !pending.asked.elsewhere && !pending.waiter.is_gone()
            };
            let (stay, go) =
                std::mem::take(&mut queue.waiting).into_iter().partition::<VecDeque<_>, _>(stays);
            queue.waiting = stay;
            queue.bytes = queue.waiting.iter().map(|pending| pending.command.len()).sum();
            refused.extend(go.into_iter().map(|pending| pending.waiter));
            !queue.waiting.is_empty()
        };
        let error = broken.unwrap_or(ProposeError::NoLeader);
        refused.into_iter().for_each(|waiter| waiter.tell(Err(error.clone())));
        is_waiting
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
        let (mut waiters, mut times) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for Pending { command, waiter, asked } in queue.waiting.drain(..count) {
            commands.push(command);
            waiters.push(waiter);
            times.push(asked);
        }
        let group = Group::new(commands);
        queue.bytes -= group.bytes();
        drop(queue);
        self.stats.group_commands.record(count as u64);
        let round = Round::new(waiters, self.health.clone());
        (group, Callers { round, asked: times, _permit: permit })
    }
}

impl Callers {
    /// Gives each caller its own outcome, or all the error.
    fn complete(self, result: WriteResult) {
        match result {
            Ok(applied) => self.round.answer_each(applied.data.into_iter().map(Ok)),
            // It was rejected before it was appended.
            Err(ClientWriteError::ForwardToLeader(_)) => self.round.fail(&ProposeError::NoLeader),
            // It was appended here and then replaced by another leader's entries; it may live on elsewhere.
            Err(ClientWriteError::LogEntryDiscarded(_)) => self.round.fail(&ProposeError::Unknown),
            Err(error) => self.round.fail(&ProposeError::Broken(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::disk::RealDisk;

    /// Nobody proposes what is queued here.
    fn proposer() -> Proposer {
        let stats = Arc::new(Stats::default());
        let space = Space::new(Arc::new(RealDisk), PathBuf::from("/"), 0, u64::MAX, stats.clone());
        Proposer::new(Limits::default(), Arc::default(), Arc::new(space), Arc::default(), stats)
    }

    #[tokio::test]
    async fn what_waits_at_a_broken_member_is_told_so_at_once() {
        let proposer = proposer();
        let answer = proposer.enqueue(Bytes::from_static(b"a command"), false).unwrap();
        assert!(proposer.refuse_those_in_vain(true), "another member leads, so it waits");
        proposer.health.break_down("the disk is gone");
        assert!(!proposer.refuse_those_in_vain(true));
        assert!(matches!(answer.await, Some(Err(ProposeError::Broken(_)))));
    }
}
