//! Linearizable reads by read-index, batched twice. The reads that begin on a runtime while a round is under way wait at
//! that runtime's desk and ask for the next one together, so a read needs no switch of threads of its own. The desks that
//! ask at the same time share one round: openraft is asked for the commit index under confirmed leadership, and when
//! that is applied here all of them go on. A member that follows asks the leader for that index.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use konsul_state::propose::ProposeError;
use openraft::ReadPolicy;
use openraft::errors::{LinearizableReadError, RaftError};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::answers::Answer;
use crate::forward::Forward;
use crate::health::Health;
use crate::leadership::{Leader, Leadership};
use crate::proposer::{PATIENCE, Raft};
use crate::runtimes::PerRuntime;
use crate::stats::Stats;
use crate::types::Types;

/// How soon to try again without a leader.
const RETRY: Duration = Duration::from_millis(20);

/// Whom to tell that a round is over.
type Waiter = oneshot::Sender<Answer<()>>;

/// What desks ask for rounds with. Each asks for one at a time, so no more wait than there are runtimes.
pub(crate) type Requests = mpsc::UnboundedReceiver<Waiter>;

/// The reads that wait for a round.
pub(crate) struct Reads {
    desks: PerRuntime<Desk>,
    /// For new desks; none when the reads are closed.
    requests: Mutex<Option<mpsc::UnboundedSender<Waiter>>>,
    closed: AtomicBool,
    max_waiting: usize,
    health: Arc<Health>,
    stats: Arc<Stats>,
    /// Set when the node is put together.
    way: OnceLock<Way>,
}

/// Where an index comes from: this member's consensus, or the leader.
pub(crate) struct Way {
    pub(crate) raft: Raft,
    pub(crate) leadership: Leadership,
    pub(crate) forward: Arc<Forward>,
}

/// Where the reads of one runtime wait.
#[derive(Default)]
struct Desk {
    waiting: Mutex<Vec<Waiter>>,
    filled: Notify,
}

impl Reads {
    /// The reads, and the requests that [`Self::run`] serves. `max_waiting` is for each runtime.
    pub(crate) fn new(max_waiting: usize, health: Arc<Health>, stats: Arc<Stats>) -> (Arc<Self>, Requests) {
        let (requests, asked) = mpsc::unbounded_channel();
        let (desks, requests) = (PerRuntime::default(), Mutex::new(Some(requests)));
        let closed = AtomicBool::new(false);
        (Arc::new(Self { desks, requests, closed, max_waiting, health, stats, way: OnceLock::new() }), asked)
    }

    /// Returns when every write that was acknowledged before the call is applied here.
    pub(crate) async fn barrier(self: &Arc<Self>) -> Result<(), ProposeError> {
        if let Some(error) = self.health.unfit() {
            return Err(error);
        }
        let told = self.enqueue()?;
        told.await.unwrap_or_else(|_| Err(self.health.why_unanswered()))
    }

    fn enqueue(self: &Arc<Self>) -> Result<oneshot::Receiver<Answer<()>>, ProposeError> {
        let desk = self.desks.here(|runtime| self.open_desk(runtime));
        let mut waiting = desk.waiting.lock();
        if self.closed.load(Acquire) {
            return Err(ProposeError::ShuttingDown);
        }
        if waiting.len() >= self.max_waiting {
            return Err(ProposeError::Busy);
        }
        let (waiter, told) = oneshot::channel();
        waiting.push(waiter);
        if waiting.len() == 1 {
            desk.filled.notify_one();
        }
        Ok(told)
    }

    /// A desk on the calling runtime. Its task ends when the reads are closed, or with the runtime.
    fn open_desk(self: &Arc<Self>, runtime: &Handle) -> Arc<Desk> {
        let desk = Arc::new(Desk::default());
        if let Some(requests) = self.requests.lock().clone() {
            runtime.spawn(self.clone().serve(desk.clone(), requests));
        }
        desk
    }

    async fn serve(self: Arc<Self>, desk: Arc<Desk>, requests: mpsc::UnboundedSender<Waiter>) {
        let mut is_crowded = false;
        loop {
            desk.filled.notified().await;
            if is_crowded {
                // Calls that became ready together with the first one run first, and join.
                tokio::task::yield_now().await;
            }
            let (waiting, closed) = {
                let mut waiting = desk.waiting.lock();
                (std::mem::take(&mut *waiting), self.closed.load(Acquire))
            };
            is_crowded = waiting.len() > 1;
            if !waiting.is_empty() {
                self.stats.reads.fetch_add(waiting.len() as u64, Relaxed);
                let answer = self.ask(&requests).await;
                for waiter in waiting {
                    // Whoever went away needs no answer.
                    drop(waiter.send(answer.clone()));
                }
            }
            if closed {
                return;
            }
        }
    }

    async fn ask(&self, requests: &mpsc::UnboundedSender<Waiter>) -> Answer<()> {
        let (waiter, told) = oneshot::channel();
        // If it is not taken, it is dropped, and that is the answer.
        drop(requests.send(waiter));
        told.await.unwrap_or_else(|_| Err(self.health.why_unanswered()))
    }

    /// Runs rounds until the reads are closed and those that waited are answered.
    pub(crate) async fn run(self: Arc<Self>, mut applied: watch::Receiver<u64>, mut asked: Requests) {
        while let Some(first) = asked.recv().await {
            let mut waiting = vec![first];
            while let Ok(another) = asked.try_recv() {
                waiting.push(another);
            }
            let answer = self.round(&mut applied).await;
            for waiter in waiting {
                drop(waiter.send(answer.clone()));
            }
        }
    }

    /// One round, by whoever leads; while nobody does, it waits for somebody.
    async fn round(&self, applied: &mut watch::Receiver<u64>) -> Answer<()> {
        self.stats.read_rounds.fetch_add(1, Relaxed);
        let way = self.way.get().ok_or(ProposeError::NoLeader)?;
        let mut leadership = way.leadership.clone();
        let began = Instant::now();
        loop {
            let answer = match leadership.now() {
                Leader::Nobody => Err(ProposeError::NoLeader),
                Leader::Other(leader) => way.forward.read_index(&leader).await,
                Leader::Me => self.round_as_leader(applied).await,
            };
            let is_closed = self.closed.load(Acquire);
            if answer != Err(ProposeError::NoLeader) || is_closed || began.elapsed() > PATIENCE {
                return answer;
            }
            tokio::select! {
                () = leadership.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn round_as_leader(&self, applied: &mut watch::Receiver<u64>) -> Answer<()> {
        let index = self.index_as_leader().await?;
        // Fails only when what applies is gone.
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map(|_| ()).map_err(|_| self.health.why_unanswered())
    }

    /// The index that a linearizable read must have applied, if this member leads and a quorum says so.
    pub(crate) async fn index_as_leader(&self) -> Answer<u64> {
        let way = self.way.get().ok_or(ProposeError::NoLeader)?;
        let linearizer = way.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        Ok(linearizer.map_err(|error| self.refusal(&error))?.read_log_id().index())
    }

    /// Says where indexes come from.
    pub(crate) fn go(&self, way: Way) {
        // It is said once, when the node is put together.
        let _ = self.way.set(way);
    }

    /// Refuses new reads from now on; those that wait are answered, then the tasks end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Release);
        self.requests.lock().take();
        for desk in self.desks.take() {
            // Nobody is between looking whether it is closed and waiting any more.
            drop(desk.waiting.lock());
            desk.filled.notify_one();
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
