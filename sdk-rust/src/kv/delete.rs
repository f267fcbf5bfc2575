//! Deletes one key, or the keys of a prefix or range.

use konsul_proto::v1::{DeleteRangeRequest, DeleteRangeResponse, DeleteRequest, DeleteResponse};

use super::Kv;
use super::options::{awaitable, idempotency_key, preconditions};
use crate::error::Error;
use crate::keys::Keys;

/// A delete of one key. Deleting what is not there succeeds and takes no revision.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Delete {
    kv: Kv,
    request: DeleteRequest,
    idempotency_key: Option<String>,
}

impl Delete {
    pub(super) fn new(kv: &Kv, key: String) -> Self {
        let request = DeleteRequest { namespace: kv.scope.namespace.clone(), key, ..Default::default() };
        Self { kv: kv.clone(), request, idempotency_key: None }
    }

    /// Returns the entry that was deleted.
    pub fn previous(mut self) -> Self {
        self.request.previous = true;
        self
    }

    preconditions!(request.precondition);
    idempotency_key!();

    async fn send(self) -> Result<DeleteResponse, Error> {
        self.kv
            .scope
            .write(self.idempotency_key.as_deref())?
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).delete(request).await
            })
            .await
    }
}

awaitable!(Delete => DeleteResponse);

/// A delete of all keys under a prefix or in a range, at one revision.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct DeleteRange {
    kv: Kv,
    request: DeleteRangeRequest,
    idempotency_key: Option<String>,
}

impl DeleteRange {
    pub(super) fn new(kv: &Kv, keys: Keys) -> Self {
        let request = DeleteRangeRequest {
            namespace: kv.scope.namespace.clone(),
            selector: Some(keys.into()),
            ..Default::default()
        };
        Self { kv: kv.clone(), request, idempotency_key: None }
    }

    /// Only if no key of the range was written after this revision.
    pub fn if_unchanged_since(mut self, revision: u64) -> Self {
        self.request.unchanged_since = Some(revision);
        self
    }

    /// Returns the entries that were deleted, up to 1,000 entries or 2 MiB.
    pub fn previous(mut self) -> Self {
        self.request.previous = true;
        self
    }

    idempotency_key!();

    async fn send(self) -> Result<DeleteRangeResponse, Error> {
        self.kv
            .scope
            .write(self.idempotency_key.as_deref())?
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).delete_range(request).await
            })
            .await
    }
}

awaitable!(DeleteRange => DeleteRangeResponse);
