//! Keeping history within its bounds: compacting it, and reclaiming what is compacted. And what a restore has left behind.

use std::sync::Arc;
use std::time::Duration;

use konsul_state::command::{self, command::Op, outcome};
use konsul_state::propose::{Propose, ProposeError};
use konsul_state::{Revision, State, StateError};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::{DutyError, carry_out};
use crate::core::now_ms;
use crate::limits::Limits;

/// How often history is looked at unasked.
const EVERY: Duration = Duration::from_secs(10);
/// How long a restore may stand still. Counted in the time of the state, which goes on when something is written.
const RESTORE_IDLE: Duration = Duration::from_secs(600);
/// Rows, and bytes of them, that one Command reclaims, so that the writes of others come between.
const TRIM_ROWS: u32 = 1_000;
const TRIM_BYTES: u64 = 512 << 10;

/// Keeps history within its bounds.
pub(super) struct History {
    state: State,
    propose: Arc<dyn Propose>,
    min_age_ms: u64,
    max_bytes: u64,
    /// Rows of revisions up to this one are reclaimed, so that an idle server proposes nothing.
    trimmed: Revision,
    /// From so many bytes of data on the store is nearly full.
    soft_bytes: u64,
    was_filling: bool,
}

impl History {
    pub(super) fn new(state: State, propose: Arc<dyn Propose>, limits: &Limits) -> Self {
        Self {
            state,
            propose,
            min_age_ms: u64::try_from(limits.history_min_age.as_millis()).unwrap_or(u64::MAX),
            max_bytes: limits.history_max_bytes,
            trimmed: Revision(0),
            soft_bytes: limits.soft_store_bytes(),
            was_filling: false,
        }
    }

    pub(super) async fn run(mut self, compacted: Arc<Notify>, stop: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = compacted.notified() => {}
            }
            let kept = tokio::select! {
                () = stop.cancelled() => return,
                kept = self.keep() => kept,
            };
            match kept {
                Ok(()) => {}
                // Both pass by themselves, and the next tick finds out.
                Err(DutyError::Propose(ProposeError::NoLeader | ProposeError::Busy)) => {}
                Err(error) => tracing::warn!(%error, "history could not be compacted; trying again"),
            }
        }
    }

    /// Reclaims what is compacted, and compacts until history is within its bounds.
    async fn keep(&mut self) -> Result<(), DutyError> {
        self.warn()?;
        loop {
            let standing = self.propose.standing();
            if standing.leader_id != Some(standing.member_id) {
                return Ok(());
            }
            self.trim().await?;
            self.give_up_restore().await?;
            let Some(revision) = self.excess()? else { return Ok(()) };
            tracing::info!(%revision, "compacting history, which has reached its size");
            let compact = Op::Compact(command::Compact { revision: revision.0 });
            carry_out(&*self.propose, compact).await?;
        }
    }

    /// The revision to compact to, if history is too large: from half its greatest size on what is older than
    /// the least age, and at the greatest size its older half whatever its age.
    fn excess(&self) -> Result<Option<Revision>, StateError> {
        let view = self.state.view()?;
        let bytes = view.history_bytes();
        if bytes <= self.max_bytes / 2 {
            return Ok(None);
        }
        let compacted = view.compact_revision();
        let half = Revision(compacted.0 + (view.revision().0 - compacted.0).div_ceil(2));
        let old = view.revision_at(now_ms().saturating_sub(self.min_age_ms))?;
        let to = if bytes > self.max_bytes { half } else { half.min(old) };
        Ok((to > compacted).then_some(to))
    }

    /// Says in the log that the store is filling up, and that it is no longer; once each.
    fn warn(&mut self) -> Result<(), StateError> {
        let used = self.state.view()?.used_bytes()?;
        let is_filling = used >= self.soft_bytes;
        if is_filling && !self.was_filling {
            tracing::warn!(
                used,
                "the store is nearly full: delete keys and compact, or raise limits.max_store_bytes"
            );
        } else if self.was_filling && !is_filling {
            tracing::info!(used, "the store has room again");
        }
        self.was_filling = is_filling;
        Ok(())
    }

    /// Gives up a restore that somebody has left alone: it takes space on every member.
    async fn give_up_restore(&self) -> Result<(), DutyError> {
        let restoring = self.state.view()?.restoring();
        if let Some((id, idle)) = restoring
            && idle > RESTORE_IDLE
        {
            tracing::warn!("a restore is given up: nothing came in for {RESTORE_IDLE:?}");
            carry_out(&*self.propose, Op::RestoreAbort(command::RestoreAbort { id })).await?;
        }
        Ok(())
    }

    async fn trim(&mut self) -> Result<(), DutyError> {
        let compacted = self.state.view()?.compact_revision();
        while self.trimmed < compacted {
            let began = Instant::now();
            let trim = Op::TrimHistory(command::TrimHistory { max_rows: TRIM_ROWS, max_bytes: TRIM_BYTES });
            match carry_out(&*self.propose, trim).await? {
                // As long again belongs to others.
                Some(outcome::Result::TrimHistory(done)) if done.more => sleep(began.elapsed()).await,
                _ => self.trimmed = compacted,
            }
        }
        Ok(())
    }
}
