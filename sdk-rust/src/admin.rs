//! The Admin service.

use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::{CompactRequest, CompactResponse, StatusRequest, StatusResponse};

use crate::call::Call;
use crate::client::Client;
use crate::error::Error;

/// Looks after a server and its store.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// How the server that answers is doing.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        Call::read(&self.client, self.client.shared.timeout)
            .send(StatusRequest {}, |transport, _, request| async move {
                AdminClient::new(transport).status(request).await
            })
            .await
    }

    /// Drops the history up to and including a revision. Present entries stay.
    ///
    /// # Errors
    /// OUT_OF_RANGE when the revision is in the future.
    pub async fn compact(&self, revision: u64) -> Result<CompactResponse, Error> {
        Call::write(&self.client, self.client.shared.timeout, None)?
            .send(CompactRequest { revision }, |transport, _, request| async move {
                AdminClient::new(transport).compact(request).await
            })
            .await
    }
}
