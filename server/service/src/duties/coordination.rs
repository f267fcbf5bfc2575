//! Ending leases whose time is over, and letting locks be granted again that were held back after a loss.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use konsul_state::command::{self, command::Op, lease_expire, outcome};
use konsul_state::propose::Propose;
use konsul_state::{LockId, State, StateError};

use super::leading::{Leading, Term};
use super::{DutyError, carry_out};
use crate::lease::{Deadlines, Due, Name};

/// Leases and locks read together, while nothing is published.
const PAGE: usize = 1_000;
/// Most leases that one Command ends, and about how much it deletes with them, so that the writes of others come between.
const EXPIRE_LEASES: usize = 200;
const EXPIRE_KEYS: u64 = 1_000;
const EXPIRE_BYTES: u64 = 1 << 20;
/// Such Commands that are under way together.
const IN_FLIGHT: usize = 2;
/// Most locks that are let go on in one look, so that leases do not wait for them.
const RESUME_LOCKS: usize = 500;

/// Looks after what has deadlines.
pub(super) struct Coordination {
    state: State,
    propose: Arc<dyn Propose>,
    deadlines: Arc<Deadlines>,
}

impl Coordination {
    pub(super) fn new(state: State, propose: Arc<dyn Propose>, deadlines: Arc<Deadlines>) -> Self {
        Self { state, propose, deadlines }
    }
}

impl Leading for Coordination {
    const WHAT: &'static str = "leases";

    fn stood_still(&self, by: Duration) {
        self.deadlines.stood_still(by);
    }

    fn rest(&self) {
        self.deadlines.rest();
    }

    fn leads(&self, term: u64) -> bool {
        self.deadlines.leads(term)
    }

    /// Begins all leases' time anew, once everything is applied that was committed under earlier leaders.
    async fn load(&self, term: u64) -> Result<(), DutyError> {
        self.propose.read_barrier().await?;
        self.deadlines.begin();
        let mut after: Option<Name> = None;
        loop {
            let last = self.deadlines.load(|| {
                let after = after.as_ref().map(|(namespace, id)| (namespace, *id));
                let leases = self.state.view()?.leases(None, after, PAGE)?;
                Ok::<_, StateError>((leases, Vec::new()))
            })?;
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
            tokio::task::yield_now().await;
        }
        let mut after: Option<LockId> = None;
        loop {
            let mut last = None;
            self.deadlines.load(|| {
                let locks = self.state.view()?.locks(None, after.as_ref(), PAGE)?;
                last = locks.last().map(|held| held.lock.clone());
                Ok::<_, StateError>((Vec::new(), locks))
            })?;
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
            tokio::task::yield_now().await;
        }
        self.deadlines.lead(term);
        Ok(())
    }

    async fn look(&self, Term { term, .. }: Term) -> Result<(), DutyError> {
        self.expire(term).await?;
        let resumable = self.deadlines.resumable(RESUME_LOCKS);
        let resumed = join_all(resumable.iter().map(|(lock, since)| self.resume(term, lock, *since))).await;
        resumed.into_iter().collect()
    }
}

impl Coordination {
    /// Ends what is due, some Commands at a time.
    async fn expire(&self, term: u64) -> Result<(), DutyError> {
        loop {
            let due = self.deadlines.due(EXPIRE_LEASES * IN_FLIGHT);
            if due.is_empty() {
                return Ok(());
            }
            let groups = self.groups(&due).inspect_err(|_| self.deadlines.again(&due))?;
            let ended = join_all(groups.into_iter().map(|group| self.end(term, group))).await;
            ended.into_iter().collect::<Result<(), DutyError>>()?;
        }
    }

    /// Leases that one Command may end, each group.
    fn groups(&self, due: &[Due]) -> Result<Vec<Vec<Due>>, StateError> {
        let view = self.state.view()?;
        let mut groups: Vec<Vec<Due>> = Vec::new();
        let (mut keys, mut bytes) = (0, 0);
        for lease in due {
            let load = view.lease_load(&lease.name.0, lease.name.1)?;
            (keys, bytes) = (keys + load.count, bytes + load.bytes);
            let fits = |group: &Vec<Due>| {
                group.len() < EXPIRE_LEASES && keys <= EXPIRE_KEYS && bytes <= EXPIRE_BYTES
            };
            match groups.last_mut().filter(|group| fits(group)) {
                Some(group) => group.push(lease.clone()),
                None => {
                    groups.push(vec![lease.clone()]);
                    (keys, bytes) = (load.count, load.bytes);
                }
            }
        }
        Ok(groups)
    }

    async fn end(&self, term: u64, group: Vec<Due>) -> Result<(), DutyError> {
        let leases = group.iter().map(|due| lease_expire::Due {
            namespace: due.name.0.as_str().to_owned(),
            id: due.name.1.0,
            create_revision: due.create_revision,
        });
        let leader = self.propose.standing().member_id;
        let expire = command::LeaseExpire { term, leader, leases: leases.collect() };
        let ended = carry_out(&*self.propose, Op::LeaseExpire(expire)).await;
        match ended {
            Ok(Some(outcome::Result::Lease(done))) => {
                tracing::debug!(leases = done.ended, keys = done.deleted, "leases expired");
                self.deadlines.ended(&group);
                Ok(())
            }
            // Refused: mostly because it was of another term, and then all is loaded anew.
            Ok(_) => {
                self.deadlines.again(&group);
                Ok(())
            }
            Err(error) => {
                self.deadlines.again(&group);
                Err(error.into())
            }
        }
    }

    async fn resume(&self, term: u64, lock: &LockId, since: u64) -> Result<(), DutyError> {
        let leader = self.propose.standing().member_id;
        let lock = Some(lock.to_name());
        let resume = command::LockResume { term, leader, lock, held_back_since: since };
        carry_out(&*self.propose, Op::LockResume(resume)).await?;
        Ok(())
    }
}
