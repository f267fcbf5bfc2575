//! Reads one key.

use konsul_proto::v1::{Entry, GetRequest, GetResponse};

use super::Kv;
use super::options::{awaitable, read_options};
use crate::error::Error;

/// A read of one key; `None` when it is not there.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Get {
    kv: Kv,
    request: GetRequest,
}

impl Get {
    pub(super) fn new(kv: &Kv, key: String) -> Self {
        Self {
            kv: kv.clone(),
            request: GetRequest { namespace: kv.scope.namespace.clone(), key, ..Default::default() },
        }
    }

    /// Reads the key as it was at this revision. 0: now.
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.request.revision = revision;
        self
    }

    read_options!();

    /// The whole answer, with the revision it was served at.
    ///
    /// # Errors
    /// NOT_FOUND when the key is not there; [`Error::Compacted`] when the revision is compacted.
    pub async fn response(self) -> Result<GetResponse, Error> {
        self.kv
            .scope
            .read()
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).get(request).await
            })
            .await
    }

    async fn send(self) -> Result<Option<Entry>, Error> {
        match self.response().await {
            Ok(response) => Ok(response.entry),
            Err(error) if error.reason() == Some("KEY_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }
}

awaitable!(Get => Option<Entry>);
