//! The Admin service: Status and Compact.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use konsul_proto::v1::{self, admin_server::Admin};
use konsul_state::command::{self, command::Op, outcome};
use tonic::{Request, Response, Status};

use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;

/// What a member says of itself that the state does not know.
#[derive(Debug, Clone)]
pub struct About {
    /// The server's version.
    pub version: String,
    /// Id of the cluster's storage.
    pub cluster_id: String,
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
        let started_at = self.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(v1::StatusResponse {
            revision: view.revision().0,
            compact_revision: view.compact_revision().0,
            version: self.about.version.clone(),
            cluster_id: self.about.cluster_id.clone(),
            member_id: standing.member_id,
            leader_id: standing.leader_id.unwrap_or_default(),
            term: standing.term,
            applied_index: view.applied().index,
            store_used_bytes: view.used_bytes()?,
            store_file_bytes,
            store_max_bytes: core.limits.max_store_bytes,
            log_bytes: standing.log_bytes,
            entries: view.entries()?,
            watch_streams: core.hub.stats().streams as u64,
            start_time: Some(convert::timestamp(u64::try_from(started_at.as_millis()).unwrap_or(u64::MAX))),
            uptime: prost_types::Duration::try_from(self.started.elapsed()).ok(),
            persistence: self.about.persistence.to_owned(),
            state_hash: view.hash().to_string(),
        })
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
}
