//! Giving up the claims of callers who went away, on the member they called.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use konsul_state::command::command::Op;
use konsul_state::propose::{Propose, ProposeError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::carry_out;
use crate::lock::Left;
use crate::readers::Readers;

/// Claims that are given up together.
const TOGETHER: usize = 64;
/// How often to look for what has become due, and whether this member can still serve.
const EVERY: Duration = Duration::from_secs(1);

/// Gives up what nobody waits for.
pub(super) struct GivingUp {
    pub(super) propose: Arc<dyn Propose>,
    pub(super) readers: Arc<Readers>,
}

impl GivingUp {
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut was_fit = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.readers.abandoned.added() => {}
                () = sleep(EVERY) => {}
            }
            // A member that can't go on publishes nothing more, so nobody else tells those who wait.
            let is_fit = self.propose.unfit().is_none();
            if was_fit && !is_fit {
                self.readers.turns.reset();
            }
            was_fit = is_fit;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.give_up_all() => {}
            }
        }
    }

    /// Gives up all that are due.
    async fn give_up_all(&self) {
        loop {
            let group = self.readers.abandoned.take(TOGETHER);
            if group.is_empty() {
                return;
            }
            let again = join_all(group.into_iter().map(|left| self.give_up(left))).await;
            self.readers.abandoned.put_back(again.into_iter().flatten());
        }
    }

    /// Gives one up; returns it if that has to be done again.
    async fn give_up(&self, left: Left) -> Option<Left> {
        match carry_out(&*self.propose, Op::LockCancel(left.cancel.clone())).await {
            Ok(_) => left.once_more.map(|due| Left { due, once_more: None, ..left }),
            Err(
                ProposeError::NoLeader | ProposeError::Busy | ProposeError::Unknown | ProposeError::DiskFull,
            ) => Some(Left { due: Instant::now() + EVERY, ..left }),
            // This member can't, now or ever: the claim ends with its lease.
            Err(error) => {
                tracing::debug!(%error, "a claim that nobody waits for was not given up");
                None
            }
        }
    }
}
