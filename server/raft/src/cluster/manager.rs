//! Changes of the membership. The leader carries them out, one at a time; other members pass them on.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use konsul_state::cluster::{Change, ChangeError};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::Mutex;
use tonic::{Code, Status};

use super::format_of;
use crate::forward::is_unreached;
use crate::identity::Identity;
use crate::leadership::{Leader, Leadership};
use crate::peer::pb::change_request;
use crate::peer::{Lane, Links, pb};
use crate::proposer::Raft;
use crate::types::{Member, Membership};

/// Members a request may pass on its way to the leader.
const MAX_HOPS: u32 = 3;
/// How long a change may take, and how long to wait for a leader.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a leader may take to hand over.
const HAND_OVER: Duration = Duration::from_secs(3);
/// Names and addresses are no longer than names in DNS are.
const MAX_NAME: usize = 63;
const MAX_ADDRESS: usize = 260;
/// Most members of a cluster.
const MAX_MEMBERS: usize = 64;

/// Changes the membership.
pub(crate) struct Manager {
    pub(crate) identity: Arc<Identity>,
    pub(crate) raft: Raft,
    pub(crate) leadership: Leadership,
    pub(crate) links: Arc<Links>,
    pub(crate) cluster_name: String,
    pub(crate) token: String,
    /// Held during a change.
    pub(crate) changing: Mutex<()>,
}

impl Manager {
    /// Refuses whoever does not know the token, or means another cluster. Both are told the same.
    pub(crate) fn check(&self, token: &str, cluster_name: &str) -> Result<(), Status> {
        if same(token.as_bytes(), self.token.as_bytes()) && cluster_name == self.cluster_name {
            return Ok(());
        }
        Err(Status::permission_denied("the join token or the cluster's name is not this cluster's"))
    }

    pub(crate) fn membership(&self) -> Membership {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().clone()
    }

    /// Takes a server in, or learns what has changed about a member.
    pub(crate) async fn join(&self, request: pb::JoinRequest) -> Result<pb::JoinResponse, Status> {
        self.check(&request.token, &request.cluster_name)?;
        if let Leader::Other(leader) = self.leadership.now() {
            if request.hops >= MAX_HOPS {
                return Err(no_leader());
            }
            let mut peer = self.links.to(&leader.peer_address, Lane::Forward)?;
            let passed_on = pb::JoinRequest { hops: request.hops + 1, ..request };
            return Ok(peer.join(passed_on).await?.into_inner());
        }
        let cluster = self.identity.cluster_id().ok_or_else(no_leader)?;
        let member = valid(request.member)?;
        if !request.cluster_id.is_empty() && request.cluster_id != cluster.to_string() {
            let theirs = request.cluster_id;
            return Err(Status::failed_precondition(format!(
                "the server belongs to another cluster ({theirs}): it needs a new data directory to join this one"
            )));
        }
        let _changing = self.changing.lock().await;
        let membership = self.membership();
        if let Some((_, other)) =
            membership.nodes().find(|(id, other)| **id != member.id && other.name == member.name)
        {
            return Err(Status::already_exists(format!(
                "the cluster has a member {:?} with another data directory: remove it first (konsul cluster remove {0}), or \
                 name this one differently",
                other.name
            )));
        }
        let format = format_of(&membership);
        if member.format < format {
            let (theirs, version) = (member.format, &member.version);
            return Err(Status::failed_precondition(format!(
                "the cluster writes format {format}, and konsul {version} knows up to {theirs}: use a newer konsul"
            )));
        }
        let known = membership.get_node(&member.id);
        if known.is_none() && membership.nodes().count() >= MAX_MEMBERS {
            return Err(Status::resource_exhausted(format!("a cluster has at most {MAX_MEMBERS} members")));
        }
        let (id, name) = (member.id, member.name.clone());
        match known {
            Some(known) if *known == member => {}
            Some(_) => {
                self.links.learn(id, &member.peer_address);
                self.change_members(ChangeMembers::SetNodes(BTreeMap::from([(id, member)]))).await?;
            }
            None => {
                self.change_members(ChangeMembers::AddNodes(BTreeMap::from([(id, member)]))).await?;
                tracing::info!(name, id, "a server joins the cluster");
            }
        }
        Ok(pb::JoinResponse { cluster_id: cluster.to_string() })
    }

    /// Carries a change out, here or on the leader. While there is none, or the one that is known is gone, waits for the next.
    pub(crate) async fn change(&self, change: Change) -> Result<(), ChangeError> {
        let change = match change {
            Change::Join(_) => return Err(ChangeError::Refused("this server has no peers".to_owned())),
            Change::Remove(name) => change_request::Change::Remove(name),
            Change::Promote(name) => change_request::Change::Promote(name),
            Change::Demote(name) => change_request::Change::Demote(name),
            Change::Transfer(name) => change_request::Change::Transfer(name.unwrap_or_default()),
        };
        let mut leadership = self.leadership.clone();
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let leader = leadership.now();
            if leader != Leader::Nobody {
                let changed = tokio::time::timeout_at(deadline, self.change_at(leader, change.clone())).await;
                match changed.map_err(|_| ChangeError::Unknown)? {
                    Err(status) if is_not_begun(&status) => {}
                    changed => return changed.map_err(|status| refused(&status)),
                }
            }
            let changed = tokio::time::timeout_at(deadline, leadership.changed()).await;
            changed.map_err(|_| ChangeError::NoLeader)?;
        }
    }

    async fn change_at(&self, leader: Leader, change: change_request::Change) -> Result<(), Status> {
        let Leader::Other(leader) = leader else { return self.change_as_leader(change).await };
        let mut peer = self.links.to(&leader.peer_address, Lane::Forward)?;
        peer.change(pb::ChangeRequest { change: Some(change) }).await.map(|_| ())
    }

    /// Carries a change out.
    pub(crate) async fn change_as_leader(&self, change: change_request::Change) -> Result<(), Status> {
        use change_request::Change;
        if self.leadership.now() != Leader::Me {
            return Err(no_leader());
        }
        if let Change::Transfer(name) = &change {
            return self.transfer(Some(name.as_str()).filter(|name| !name.is_empty())).await;
        }
        let _changing = self.changing.lock().await;
        let membership = self.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        match change {
            Change::Remove(name) => {
                let id = find(&membership, &name)?.id;
                if voters.contains(&id) {
                    if voters.len() == 1 {
                        return Err(Status::failed_precondition(format!("{name:?} is the only voter")));
                    }
                    self.change_members(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await?;
                }
                self.change_members(ChangeMembers::RemoveNodes(BTreeSet::from([id]))).await?;
                tracing::info!(name, id, "removed a member");
            }
            Change::Promote(name) => {
                let member = find(&membership, &name)?;
                let id = member.id;
                self.set_role(member, pb::Role::Voter).await?;
                self.change_members(ChangeMembers::AddVoterIds(BTreeSet::from([id]))).await?;
            }
            Change::Demote(name) => {
                let member = find(&membership, &name)?;
                let id = member.id;
                if voters.len() == 1 && voters.contains(&id) {
                    return Err(Status::failed_precondition(format!("{name:?} is the only voter")));
                }
                self.set_role(member, pb::Role::Standby).await?;
                if voters.contains(&id) {
                    self.change_members_keeping(ChangeMembers::RemoveVoters(BTreeSet::from([id]))).await?;
                }
            }
            Change::Transfer(_) => {}
        }
        Ok(())
    }

    async fn set_role(&self, member: &Member, role: pb::Role) -> Result<(), Status> {
        if member.role() == role {
            return Ok(());
        }
        let mut changed = member.clone();
        changed.set_role(role);
        self.change_members(ChangeMembers::SetNodes(BTreeMap::from([(member.id, changed)]))).await
    }

    pub(crate) async fn change_members(&self, change: ChangeMembers<u64, Member>) -> Result<(), Status> {
        self.commit(change, false).await
    }

    /// The same; voters that are none any more stay as learners.
    async fn change_members_keeping(&self, change: ChangeMembers<u64, Member>) -> Result<(), Status> {
        self.commit(change, true).await
    }

    async fn commit(&self, change: ChangeMembers<u64, Member>, retain: bool) -> Result<(), Status> {
        use openraft::errors::{ClientWriteError, RaftError};
        match self.raft.change_membership(change, retain).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_)) => {
                Err(Status::unknown("the leader was lost"))
            }
            Err(RaftError::APIError(error)) => Err(Status::failed_precondition(error.to_string())),
        }
    }

    /// Hands leadership over, to the member of this name or to the voter that is furthest, and returns when that is done.
    pub(crate) async fn transfer(&self, to: Option<&str>) -> Result<(), Status> {
        let membership = self.membership();
        let me = self.identity.member_id;
        let id = match to {
            Some(name) => {
                let id = find(&membership, name)?.id;
                if !membership.voter_ids().any(|voter| voter == id) {
                    return Err(Status::failed_precondition(format!("{name:?} is not a voter")));
                }
                id
            }
            None => self
                .furthest(&membership)
                .ok_or_else(|| Status::failed_precondition("there is no other voter that could lead"))?,
        };
        if id == me {
            return Ok(());
        }
        let stopped = |e: &dyn std::fmt::Display| Status::unavailable(e.to_string());
        self.raft.trigger().transfer_leader(id).await.map_err(|e| stopped(&e))?;
        let mut leadership = self.leadership.clone();
        let handed_over = async {
            while !matches!(leadership.now(), Leader::Other(_)) {
                leadership.changed().await;
            }
        };
        let handed_over = tokio::time::timeout(HAND_OVER, handed_over).await;
        handed_over.map_err(|_| Status::failed_precondition("the other member did not take over in time"))
    }

    /// The other voter that has the most of the log, and answered lately.
    fn furthest(&self, membership: &Membership) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        let voters = membership.voter_ids().filter(|id| *id != self.identity.member_id);
        voters.max_by_key(|id| replication.get(id).copied().flatten().map(|at| at.index))
    }
}

fn no_leader() -> Status {
    Status::unavailable("no leader is known")
}

/// Whether nothing of a change was begun: the member that was asked does not lead, or is not there.
fn is_not_begun(status: &Status) -> bool {
    is_unreached(status) || (status.code() == Code::Unavailable && status.source().is_none())
}

fn refused(status: &Status) -> ChangeError {
    match status.code() {
        Code::NotFound => ChangeError::NoSuchMember(status.message().to_owned()),
        Code::FailedPrecondition | Code::InvalidArgument => ChangeError::Refused(status.message().to_owned()),
        _ => ChangeError::Unknown,
    }
}

fn find<'a>(membership: &'a Membership, name: &str) -> Result<&'a Member, Status> {
    let found = membership.nodes().find(|(_, member)| member.name == name).map(|(_, member)| member);
    found.ok_or_else(|| Status::not_found(format!("there is no member {name:?}")))
}

/// What a server says of itself, within bounds.
fn valid(member: Option<Member>) -> Result<Member, Status> {
    let member = member.ok_or_else(|| Status::invalid_argument("member is missing"))?;
    let is_address = |text: &str| text.len() <= MAX_ADDRESS && text.rsplit_once(':').is_some();
    let is_valid = member.id > 0
        && (1..=MAX_NAME).contains(&member.name.len())
        && is_address(&member.peer_address)
        && member.client_address.len() <= MAX_ADDRESS
        && member.version.len() <= MAX_NAME;
    if !is_valid {
        return Err(Status::invalid_argument("member has no id, or its name or address is too long or none"));
    }
    Ok(member)
}

/// Compares without telling by its time how much is right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
