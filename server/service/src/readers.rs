//! All that follows the stream of Batches on this member, told in this order: the catalog in memory, watchers, then what the leader keeps in
//! memory, then callers who wait for a change of their own.

use std::sync::Arc;

use bytes::Bytes;
use konsul_state::propose::{BatchSink, LeaderDesk};
use konsul_state::{Batch, Revision, State, StateError};
use tokio_util::sync::CancellationToken;

use crate::asked::Asked;
use crate::catalog::Directory;
use crate::health::{Book, Roll, Schedule};
use crate::lease::Deadlines;
use crate::limits::Limits;
use crate::lock::{Abandoned, Turns};
use crate::watch::Hub;

/// How many claims may be left behind for each that may wait: connections may break faster than claims can be given up.
const ABANDONED_A_WAITER: usize = 4;

/// The readers of the stream of Batches.
pub struct Readers {
    /// The catalog in memory.
    pub directory: Directory,
    /// Watchers.
    pub hub: Arc<Hub>,
    state: State,
    pub(crate) deadlines: Arc<Deadlines>,
    pub(crate) checks: Arc<Book>,
    pub(crate) schedule: Schedule,
    pub(crate) roll: Roll,
    pub(crate) turns: Arc<Turns>,
    /// Claims that callers left behind.
    pub(crate) abandoned: Abandoned,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
}

impl Readers {
    /// Readers of a state that is not written yet.
    ///
    /// # Errors
    /// [`StateError`] when the state can't be read.
    pub fn new(state: State, limits: Limits) -> Result<Arc<Self>, StateError> {
        let turns = Arc::new(Turns::new(limits.max_waiting_locks));
        let abandoned = Abandoned::new(ABANDONED_A_WAITER * limits.max_waiting_locks);
        let directory = Directory::new(&state)?;
        let schedule = Schedule::new(&state)?;
        let hub = Hub::new(state.clone(), limits)?;
        Ok(Arc::new(Self {
            directory,
            state,
            hub,
            deadlines: Arc::default(),
            checks: Arc::default(),
            schedule,
            roll: Roll::default(),
            turns,
            abandoned,
            stop: CancellationToken::new(),
        }))
    }

    /// How many leases this member looks after: all there are while it leads, none otherwise.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.deadlines.count()
    }

    /// How many checks this member looks after: all there are that have deadlines while it leads, none otherwise.
    #[must_use]
    pub fn checks(&self) -> usize {
        self.checks.count()
    }

    /// Active checks, of which this member carries out its share.
    #[must_use]
    pub fn active_checks(&self) -> usize {
        self.schedule.count()
    }

    /// Calls that wait for a lock or an election, or observe one.
    #[must_use]
    pub fn waiting_for_locks(&self) -> usize {
        self.turns.count()
    }

    /// Ends streams and waiting calls with UNAVAILABLE and takes no more.
    pub fn stop(&self) {
        self.hub.stop();
        self.turns.stop();
        self.stop.cancel();
    }
}

impl BatchSink for Readers {
    fn publish(&self, batches: &[Arc<Batch>]) {
        self.directory.publish(batches);
        self.hub.publish(batches);
        self.deadlines.publish(batches);
        self.checks.publish(batches);
        self.schedule.publish(batches);
        self.turns.publish(batches);
    }

    fn reset(&self, revision: Revision) {
        // A state that can't be read stops the member, and with it all that asks the catalog.
        if let Err(error) = self.directory.reset(&self.state) {
            tracing::error!(%error, "the catalog could not be read anew");
        }
        if let Err(error) = self.schedule.reset(&self.state) {
            tracing::error!(%error, "the active checks could not be read anew");
        }
        self.hub.reset(revision);
        self.deadlines.reset();
        self.checks.rest();
        self.turns.reset();
    }
}

impl LeaderDesk for Readers {
    fn answer(&self, term: u64, question: Bytes) -> Option<Bytes> {
        Asked::answer(question, term, self)
    }
}
