//! Several keys in one call, at one revision.

use konsul_proto::v1::{
    BatchDeleteRequest, BatchDeleteResponse, BatchGetRequest, BatchGetResponse, BatchPutRequest,
    BatchPutResponse,
};

use super::options::{awaitable, idempotency_key, read_options};
use super::{DeleteOperation, Kv, PutOperation};
use crate::error::Error;

/// A read of up to 256 keys at one revision.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct BatchGet {
    kv: Kv,
    request: BatchGetRequest,
}

impl BatchGet {
    pub(super) fn new(kv: &Kv, keys: Vec<String>) -> Self {
        let request = BatchGetRequest { namespace: kv.scope.namespace.clone(), keys, ..Default::default() };
        Self { kv: kv.clone(), request }
    }

    /// Reads the keys as they were at this revision. 0: now.
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.request.revision = revision;
        self
    }

    read_options!();

    async fn send(self) -> Result<BatchGetResponse, Error> {
        self.kv
            .scope
            .read()
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).batch_get(request).await
            })
            .await
    }
}

awaitable!(BatchGet => BatchGetResponse);

/// A write of up to 256 keys at one revision, all or none.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct BatchPut {
    kv: Kv,
    request: BatchPutRequest,
    idempotency_key: Option<String>,
}

impl BatchPut {
    pub(super) fn new(kv: &Kv, puts: Vec<PutOperation>) -> Self {
        let puts = puts.into_iter().map(Into::into).collect();
        let request = BatchPutRequest { namespace: kv.scope.namespace.clone(), puts };
        Self { kv: kv.clone(), request, idempotency_key: None }
    }

    idempotency_key!();

    async fn send(self) -> Result<BatchPutResponse, Error> {
        self.kv
            .scope
            .write(self.idempotency_key.as_deref())?
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).batch_put(request).await
            })
            .await
    }
}

awaitable!(BatchPut => BatchPutResponse);

/// A delete of up to 256 keys at one revision, all or none.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct BatchDelete {
    kv: Kv,
    request: BatchDeleteRequest,
    idempotency_key: Option<String>,
}

impl BatchDelete {
    pub(super) fn new(kv: &Kv, deletes: Vec<DeleteOperation>) -> Self {
        let deletes = deletes.into_iter().map(Into::into).collect();
        let request = BatchDeleteRequest { namespace: kv.scope.namespace.clone(), deletes };
        Self { kv: kv.clone(), request, idempotency_key: None }
    }

    idempotency_key!();

    async fn send(self) -> Result<BatchDeleteResponse, Error> {
        self.kv
            .scope
            .write(self.idempotency_key.as_deref())?
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).batch_delete(request).await
            })
            .await
    }
}

awaitable!(BatchDelete => BatchDeleteResponse);
