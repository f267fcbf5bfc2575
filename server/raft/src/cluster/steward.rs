//! What the leader changes by itself: a member that has caught up becomes a voter, and takes the place of a voter that has
//! been dead for long. One change at a time, and never one that a quorum of the voters has not the strength for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, Instant};
use tokio::sync::watch;

use super::manager::Manager;
use crate::leadership::Leader;
use crate::peer::pb;
use crate::types::Types;

/// How often to look.
const EVERY: Duration = Duration::from_millis(500);
/// A member that lacks no more entries than these has caught up.
const CAUGHT_UP: u64 = 256;
/// A member that answered within this time is alive.
const ALIVE: Duration = Duration::from_secs(2);

type Metrics = openraft::RaftMetrics<Types>;

/// The leader's own changes.
pub(crate) struct Steward {
    pub(crate) manager: Arc<Manager>,
    pub(crate) replace_dead_after: Option<Duration>,
}

impl Steward {
    /// Works until `stop` turns true.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut silent = BTreeSet::new();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if self.manager.leadership.now() != Leader::Me {
                silent.clear();
                continue;
            }
            let change = {
                let metrics = self.manager.raft.metrics();
                let metrics = metrics.borrow_watched();
                tell_changes(&metrics, &mut silent);
                next_change(&metrics, self.replace_dead_after)
            };
            if let Some(change) = change {
                tracing::info!(?change, "changing the voters");
                let _changing = self.manager.changing.lock().await;
                if let Err(status) = self.manager.change_members(change).await {
                    tracing::warn!(error = status.message(), "the voters could not be changed; trying again");
                }
            }
        }
    }
}

/// Says in the log which members fell silent and which answer again.
fn tell_changes(metrics: &Metrics, silent: &mut BTreeSet<u64>) {
    for (id, member) in metrics.membership_config.membership().nodes().filter(|(id, _)| **id != metrics.id) {
        let name = &member.name;
        let is_silent = silence(metrics, *id).is_some_and(|silence| silence > ALIVE);
        if is_silent && silent.insert(*id) {
            tracing::warn!(name, address = member.peer_address, "a member does not answer");
        } else if !is_silent && silent.remove(id) {
            tracing::info!(name, "a member answers again");
        }
    }
}

/// What is to be changed next, if anything.
fn next_change(
    metrics: &Metrics,
    replace_dead_after: Option<Duration>,
) -> Option<ChangeMembers<u64, pb::Member>> {
    let membership = metrics.membership_config.membership();
    // A change that is under way comes first.
    if membership.get_joint_config().len() > 1 {
        return None;
    }
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let ready = membership
        .learner_ids()
        .filter(|id| membership.get_node(id).is_some_and(|member| member.role() == pb::Role::Voter))
        .find(|id| has_caught_up(metrics, *id) && silence(metrics, *id).is_some_and(|s| s < ALIVE))?;
    let dead = replace_dead_after.and_then(|after| {
        let is_alive = |id: &u64| *id == metrics.id || silence(metrics, *id).is_some_and(|s| s < ALIVE);
        let alive = voters.iter().filter(|id| is_alive(id)).count();
        // The change needs a quorum of the voters there are and of those there will be.
        let is_safe = alive > voters.len() / 2;
        let is_dead = |id: &&u64| **id != metrics.id && silence(metrics, **id).is_none_or(|s| s > after);
        voters.iter().find(is_dead).copied().filter(|_| is_safe)
    });
    let mut changes = vec![ChangeMembers::AddVoterIds(BTreeSet::from([ready]))];
    if let Some(dead) = dead {
        changes.push(ChangeMembers::RemoveVoters(BTreeSet::from([dead])));
    }
    Some(ChangeMembers::Batch(changes))
}

fn has_caught_up(metrics: &Metrics, id: u64) -> bool {
    let matching = metrics.replication.as_ref().and_then(|r| r.get(&id).copied().flatten());
    let last = metrics.last_log_index.unwrap_or_default();
    matching.is_some_and(|at| at.index + CAUGHT_UP >= last)
}

/// How long a member has not answered the leader; `None` if it never has.
fn silence(metrics: &Metrics, id: u64) -> Option<Duration> {
    let at = metrics.heartbeat.as_ref()?.get(&id).copied().flatten()?;
    Some(at.elapsed())
}
