//! The Health service.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use konsul_proto::v1::{self, health_server::Health};
use tonic::{Request, Response, Status, Streaming};

use crate::core::Core;
use crate::watch::{DecodedStream, Watches};

/// Checks over the state.
#[derive(Clone)]
pub(crate) struct HealthService {
    core: Arc<Core>,
    watches: Watches,
}

impl HealthService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { watches: Watches::new(Arc::clone(&core)), core }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn list_checks(
        &self,
        _: Request<v1::ListChecksRequest>,
    ) -> Result<Response<v1::ListChecksResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_check(
        &self,
        _: Request<v1::UpdateCheckRequest>,
    ) -> Result<Response<v1::UpdateCheckResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<v1::HeartbeatResponse, Status>> + Send>>;

    async fn heartbeat(
        &self,
        _: Request<Streaming<v1::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_transitions(
        &self,
        _: Request<v1::ListTransitionsRequest>,
    ) -> Result<Response<v1::ListTransitionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type WatchStream = DecodedStream<v1::HealthWatchResponse>;

    /// The Door's own way to it leaves out the decoding.
    async fn watch(
        &self,
        request: Request<v1::HealthWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(self.watches.open(request).await?.map(DecodedStream::new))
    }
}
