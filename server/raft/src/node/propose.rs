//! What a member does for the layer above: calls are passed on to who answers them, and standing and members are read off
//! Raft's own numbers.

use bytes::Bytes;
use konsul_state::cluster::{self, MemberRole};
use konsul_state::propose::{Changing, Proposal, Propose, ProposeError, Standing};
use konsul_state::{Command, Outcome};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, RaftMetrics};
use tokio::sync::oneshot;

use super::Node;
use crate::cluster::format_of;
use crate::peer::pb;
use crate::types::{Member, Types};

impl Propose for Node {
    fn propose(&self, command: Command) -> Proposal<'_, Outcome> {
        Box::pin(self.proposer.propose(command))
    }

    fn read_barrier(&self) -> Proposal<'_, ()> {
        Box::pin(self.reads.barrier())
    }

    fn ask_leader(&self, question: Bytes) -> Proposal<'_, Bytes> {
        Box::pin(self.asks.ask(question))
    }

    fn unfit(&self) -> Option<ProposeError> {
        self.health.unfit()
    }

    fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last_contact_ms = self.last_contact_ms(&metrics);
        Standing {
            member_id: self.identity.member_id,
            leader_id: self.leader(&metrics, last_contact_ms),
            term: metrics.current_term,
            last_contact_ms,
            log_bytes: self.log.disk_bytes(),
            committed_index: metrics.cluster_committed.as_ref().map_or(0, |id| id.index),
            applied_index: *self.applied.borrow(),
        }
    }

    fn format(&self) -> u32 {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        format_of(metrics.membership_config.membership())
    }

    fn cluster_id(&self) -> String {
        self.identity.cluster_id().map_or_else(String::new, |id| id.to_string())
    }

    fn members(&self) -> Vec<cluster::Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let me = self.identity.member_id;
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let answered =
            |id| Some(metrics.heartbeat.as_ref()?.get(&id).copied().flatten()?.elapsed().as_millis() as u64);
        let matching = |id| Some(metrics.replication.as_ref()?.get(&id).copied().flatten()?.index);
        let leader = self.leader(&metrics, self.last_contact_ms(&metrics));
        let describe = |(id, member): (&u64, &Member)| cluster::Member {
            id: *id,
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            role: match member.role() {
                _ if voters.contains(id) => MemberRole::Voter,
                pb::Role::Voter => MemberRole::Learner,
                pb::Role::Standby => MemberRole::Standby,
                pb::Role::Replica => MemberRole::Replica,
            },
            is_leader: leader == Some(*id),
            version: member.version.clone(),
            matching_index: if *id == me { Some(*self.applied.borrow()) } else { matching(*id) },
            last_contact_ms: if *id == me { Some(0) } else { answered(*id) },
        };
        membership.nodes().map(describe).collect()
    }

    fn shrink(&self) -> Changing<'_> {
        Box::pin(async move {
            let stopped = || cluster::ChangeError::Refused("the server is stopping".to_owned());
            let (done, shrunk) = oneshot::channel();
            self.shrink.send(done).await.map_err(|_| stopped())?;
            shrunk.await.map_err(|_| stopped())?.map_err(cluster::ChangeError::Refused)
        })
    }

    fn change(&self, change: cluster::Change) -> Changing<'_> {
        Box::pin(async move {
            match (change, &self.forming) {
                (cluster::Change::Join(addresses), Some(forming)) => forming.join(&addresses).await,
                (change, _) => self.manager.change(change).await,
            }
        })
    }
}

impl Node {
    /// How long ago a quorum answered this leader, or a leader was heard of here.
    fn last_contact_ms(&self, metrics: &RaftMetrics<Types>) -> Option<u64> {
        let me = self.identity.member_id;
        let is_alone = metrics.membership_config.voter_ids().all(|id| id == me);
        match (metrics.current_leader == Some(me), is_alone) {
            (true, true) => Some(0),
            (true, false) => metrics.last_quorum_acked.map(|at| at.elapsed().as_millis() as u64),
            (false, _) => self.contact.age_ms(),
        }
    }

    /// Who leads. A leader that has no quorum leads nobody, and one that is not heard of any more is none.
    fn leader(&self, metrics: &RaftMetrics<Types>, last_contact_ms: Option<u64>) -> Option<u64> {
        let is_fresh = last_contact_ms.is_some_and(|ms| u128::from(ms) <= self.believe_for.as_millis());
        metrics.current_leader.filter(|_| is_fresh)
    }
}
