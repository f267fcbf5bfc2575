//! The calls that open watch streams, the same for every service that has one.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::open::open;
use super::query::WatchQuery;
use super::stream::EncodedStream;
use crate::core::Core;
use crate::door::Deadline;

/// Opens watch streams.
#[derive(Clone)]
pub(crate) struct Watches {
    core: Arc<Core>,
}

impl Watches {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// A stream whose messages come encoded.
    pub(crate) async fn open<Q: WatchQuery>(
        &self,
        request: Request<Q>,
    ) -> Result<Response<EncodedStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let query = request.into_inner().parse()?;
        Ok(Response::new(open(&self.core, query, deadline).await?))
    }
}
