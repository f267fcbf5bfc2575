//! What is done unasked. The leader keeps history within its bounds, ends leases whose time is over, lets locks go on that were held
//! back, and says of checks what nobody else can; every member gives up the claims of its own callers who went away, and carries out its share
//! of the active checks. A duty only looks at the state, and at what is in
//! memory for it, and proposes Commands.

mod abandoned;
mod coordination;
mod health;
mod history;
mod leading;
mod probes;

use std::sync::Arc;

use konsul_checks::Prober;
use konsul_state::command::{command::Op, outcome};
use konsul_state::propose::{Propose, ProposeError};
use konsul_state::{Command, State, StateError};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::core::now_ms;
use crate::limits::Limits;
use crate::readers::Readers;

/// The running duties.
pub struct Duties {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug, thiserror::Error)]
enum DutyError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error("the present state could not be read")]
    Unreadable,
}

impl Duties {
    /// Starts them on the current runtime. `compacted` wakes the keeping of history before its time (see
    /// [`Parts::compacted`](crate::Parts::compacted)).
    #[must_use]
    pub fn start(
        state: State,
        propose: Arc<dyn Propose>,
        readers: &Arc<Readers>,
        limits: &Limits,
        compacted: Arc<Notify>,
        prober: Arc<Prober>,
    ) -> Self {
        let stop = CancellationToken::new();
        let history = history::History::new(state.clone(), propose.clone(), limits);
        let coordination =
            coordination::Coordination::new(state.clone(), propose.clone(), readers.deadlines.clone());
        let checks = health::Checks { state, propose: propose.clone(), book: readers.checks.clone() };
        let giving_up = abandoned::GivingUp { propose: propose.clone(), readers: readers.clone() };
        let probes = probes::Probes { propose: propose.clone(), readers: readers.clone(), prober };
        let tasks = vec![
            tokio::spawn(history.run(compacted, stop.clone())),
            tokio::spawn(leading::run(coordination, propose.clone(), stop.clone())),
            tokio::spawn(leading::run(checks, propose.clone(), stop.clone())),
            tokio::spawn(giving_up.run(stop.clone())),
            tokio::spawn(probes.run(stop.clone())),
        ];
        Self { stop, tasks }
    }

    /// Stops them, and returns when they have stopped.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "one of the leader's duties failed");
            }
        }
    }
}

/// Has a Command carried out that nobody asked for.
async fn carry_out(propose: &dyn Propose, op: Op) -> Result<Option<outcome::Result>, ProposeError> {
    let command = Command { format: propose.format(), time_ms: now_ms(), op: Some(op), ..Default::default() };
    Ok(propose.propose(command).await?.result)
}
