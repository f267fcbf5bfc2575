//! The Admin service: Status, Compact, backups, and the members of the cluster.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use konsul_proto::v1::{self, admin_server::Admin};
use konsul_state::cluster::{Change, Member, MemberRole};
use konsul_state::command::{self, command::Op, outcome};
use tonic::{Request, Response, Status, Streaming};

use crate::backup;
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits;

/// What a member says of itself that the state does not know.
#[derive(Debug, Clone)]
pub struct About {
    /// The server's version.
    pub version: String,
    /// Where the store is kept: `lmdb` or `memory`.
    pub persistence: &'static str,
}

/// Admin over the state.
pub(crate) struct AdminService {
    core: Arc<Core>,
    about: About,
    started_at: SystemTime,
    started: Instant,
}

impl AdminService {
    pub(crate) fn new(core: Arc<Core>, about: About) -> Self {
        Self { core, about, started_at: SystemTime::now(), started: Instant::now() }
    }

    fn describe(&self) -> Result<v1::StatusResponse, ServiceError> {
        let core = &self.core;
        let standing = core.propose.standing();
        let (_, store_file_bytes) = core.state.size_bytes()?;
        let view = core.state.view()?;
        let used = view.used_bytes()?;
        let started_at = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(v1::StatusResponse {
            revision: view.revision().0,
            compact_revision: view.compact_revision().0,
            version: self.about.version.clone(),
            cluster_id: core.propose.cluster_id(),
            member_id: standing.member_id,
            leader_id: standing.leader_id.unwrap_or_default(),
            term: standing.term,
            applied_index: view.applied().index,
            store_used_bytes: used,
            store_file_bytes,
            store_max_bytes: core.limits.max_store_bytes,
            log_bytes: standing.log_bytes,
            entries: view.entries()?,
            watch_streams: core.readers.hub.stats().streams as u64,
            start_time: Some(convert::timestamp(u64::try_from(started_at.as_millis()).unwrap_or(u64::MAX))),
            uptime: prost_types::Duration::try_from(self.started.elapsed()).ok(),
            persistence: self.about.persistence.to_owned(),
            state_hash: view.hash().to_string(),
            store_soft_bytes: core.limits.soft_store_bytes(),
            warnings: core.warnings(used),
        })
    }

    fn list_members(&self) -> v1::ListMembersResponse {
        let propose = &self.core.propose;
        let mut members: Vec<_> = propose.members().into_iter().map(member).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let member_id = propose.standing().member_id;
        v1::ListMembersResponse { cluster_id: propose.cluster_id(), member_id, members }
    }

    async fn change(&self, change: Change) -> Result<(), ServiceError> {
        Ok(self.core.propose.change(change).await?)
    }

    async fn carry_out_compact(
        &self,
        writer: Writer,
        revision: u64,
    ) -> Result<v1::CompactResponse, ServiceError> {
        if revision == 0 {
            return Err(ServiceError::field("revision", "must be at least 1"));
        }
        let outcome = self.core.write(writer, Op::Compact(command::Compact { revision })).await?;
        let Some(outcome::Result::Compact(compacted)) = outcome.result else {
            return Err(ServiceError::UnexpectedOutcome);
        };
        self.core.compacted.notify_one();
        Ok(v1::CompactResponse { revision: outcome.revision, compact_revision: compacted.compact_revision })
    }
}

fn member(member: Member) -> v1::Member {
    let role = match member.role {
        MemberRole::Voter => v1::MemberRole::Voter,
        MemberRole::Learner => v1::MemberRole::Learner,
        MemberRole::Standby => v1::MemberRole::Standby,
        MemberRole::Replica => v1::MemberRole::Replica,
    };
    v1::Member {
        id: member.id,
        name: member.name,
        peer_address: member.peer_address,
        client_address: member.client_address,
        role: role.into(),
        leader: member.is_leader,
        version: member.version,
        matching_index: member.matching_index,
        last_contact: member.last_contact_ms.and_then(|ms| Duration::from_millis(ms).try_into().ok()),
    }
}

/// The name of a member that a change is about.
fn named(name: String) -> Result<String, ServiceError> {
    match name.is_empty() {
        true => Err(ServiceError::field("name", "must be the name of a member")),
        false => Ok(name),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        _request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(self.describe()?))
    }

    async fn compact(
        &self,
        request: Request<v1::CompactRequest>,
    ) -> Result<Response<v1::CompactResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.carry_out_compact(writer, request.into_inner().revision).await?))
    }

    async fn list_members(
        &self,
        _request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        match self.core.propose.unfit() {
            Some(error) => Err(ServiceError::from(error).into()),
            None => Ok(Response::new(self.list_members())),
        }
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinClusterRequest>,
    ) -> Result<Response<v1::JoinClusterResponse>, Status> {
        let addresses = request.into_inner().addresses;
        if addresses.is_empty() || addresses.len() > limits::JOIN_ADDRESSES {
            let problem = format!("must be 1 to {} addresses", limits::JOIN_ADDRESSES);
            return Err(ServiceError::field("addresses", problem).into());
        }
        self.change(Change::Join(addresses)).await?;
        Ok(Response::new(v1::JoinClusterResponse {}))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        self.change(Change::Remove(named(request.into_inner().name)?)).await?;
        Ok(Response::new(v1::RemoveMemberResponse {}))
    }

    async fn promote_member(
        &self,
        request: Request<v1::PromoteMemberRequest>,
    ) -> Result<Response<v1::PromoteMemberResponse>, Status> {
        self.change(Change::Promote(named(request.into_inner().name)?)).await?;
        Ok(Response::new(v1::PromoteMemberResponse {}))
    }

    async fn demote_member(
        &self,
        request: Request<v1::DemoteMemberRequest>,
    ) -> Result<Response<v1::DemoteMemberResponse>, Status> {
        self.change(Change::Demote(named(request.into_inner().name)?)).await?;
        Ok(Response::new(v1::DemoteMemberResponse {}))
    }

    async fn defragment(
        &self,
        _request: Request<v1::DefragmentRequest>,
    ) -> Result<Response<v1::DefragmentResponse>, Status> {
        let size = || self.core.state.size_bytes().map_err(ServiceError::from);
        let (_, bytes_before) = size()?;
        self.core.propose.shrink().await.map_err(ServiceError::from)?;
        let (_, bytes_after) = size()?;
        Ok(Response::new(v1::DefragmentResponse { bytes_before, bytes_after }))
    }

    type SnapshotStream = backup::Pieces;

    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<backup::Pieces>, Status> {
        let pieces = backup::save(&self.core, &self.about.version, request.into_inner()).await?;
        Ok(Response::new(pieces))
    }

    async fn restore(
        &self,
        request: Request<Streaming<v1::RestoreRequest>>,
    ) -> Result<Response<v1::RestoreResponse>, Status> {
        Ok(Response::new(backup::restore(&self.core, request.into_inner()).await?))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let to = Some(request.into_inner().name).filter(|name| !name.is_empty());
        self.change(Change::Transfer(to)).await?;
        Ok(Response::new(v1::TransferLeadershipResponse {}))
    }
}
