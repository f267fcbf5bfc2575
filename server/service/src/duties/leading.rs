//! What the duties have in common that only the leader does: it loads what there is when its term begins, looks at it again and again, and rests when
//! another one leads.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_state::propose::{Propose, ProposeError};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::DutyError;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(50);
/// A look that comes later than this found the member standing still. Shorter than that, a busy runtime may just be late, and
/// nothing has so short a time to live that it could not be refreshed meanwhile.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// A term, and the leader of it: this member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    pub(super) term: u64,
    pub(super) leader: u64,
}

/// What only the leader does.
pub(super) trait Leading: Send + Sync + 'static {
    /// What it is about, for the log.
    const WHAT: &'static str;

    /// Time in which this member stood still does not count.
    fn stood_still(&self, by: Duration);
    /// This member does not lead.
    fn rest(&self);
    /// Whether all is known in this term.
    fn leads(&self, term: u64) -> bool;
    /// Learns all there is.
    fn load(&self, term: u64) -> impl Future<Output = Result<(), DutyError>> + Send;
    /// Does what is due.
    fn look(&self, term: Term) -> impl Future<Output = Result<(), DutyError>> + Send;
}

/// Does a duty until it is stopped.
pub(super) async fn run<D: Leading>(duty: D, propose: Arc<dyn Propose>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let late = looked.elapsed().saturating_sub(EVERY);
        if late > STOOD_STILL {
            duty.stood_still(late);
        }
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = once(&duty, &*propose) => done,
        };
        match done {
            Ok(()) => {}
            // Both pass by themselves, and the next look finds out.
            Err(DutyError::Propose(ProposeError::NoLeader | ProposeError::Busy)) => {}
            Err(error) => tracing::warn!(%error, "{} could not be looked after; trying again", D::WHAT),
        }
        looked = Instant::now();
    }
}

async fn once<D: Leading>(duty: &D, propose: &dyn Propose) -> Result<(), DutyError> {
    let standing = propose.standing();
    if standing.leader_id != Some(standing.member_id) {
        duty.rest();
        return Ok(());
    }
    let term = Term { term: standing.term, leader: standing.member_id };
    if !duty.leads(term.term) {
        duty.load(term.term).await?;
    }
    duty.look(term).await
}
