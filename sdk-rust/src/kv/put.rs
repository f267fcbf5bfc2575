//! Writes one key.

use std::time::Duration;

use bytes::Bytes;
use konsul_proto::v1::{PutRequest, PutResponse};

use super::Kv;
use super::options::{awaitable, idempotency_key, preconditions, proto_duration};
use crate::error::Error;

/// A write of one key. [`Error::PreconditionFailed`] when a condition does not hold.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Put {
    kv: Kv,
    request: PutRequest,
    idempotency_key: Option<String>,
}

impl Put {
    pub(super) fn new(kv: &Kv, key: String, value: Bytes) -> Self {
        let request = PutRequest { namespace: kv.scope.namespace.clone(), key, value, ..Default::default() };
        Self { kv: kv.clone(), request, idempotency_key: None }
    }

    /// A number that is stored and returned with the entry.
    pub fn flags(mut self, flags: u64) -> Self {
        self.request.flags = flags;
        self
    }

    /// The value's media type, up to 128 bytes.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.request.content_type = content_type.into();
        self
    }

    /// Returns the entry that was overwritten.
    pub fn previous(mut self) -> Self {
        self.request.previous = true;
        self
    }

    /// Binds the key to a lease: it is deleted when the lease ends.
    pub fn lease(mut self, id: u64) -> Self {
        self.request.lease = id;
        self
    }

    /// Deletes the key when it was not written again for this long, 1 s to 24 h.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.request.ttl = Some(proto_duration(ttl));
        self
    }

    preconditions!(request.precondition);
    idempotency_key!();

    async fn send(self) -> Result<PutResponse, Error> {
        self.kv
            .scope
            .write(self.idempotency_key.as_deref())?
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).put(request).await
            })
            .await
    }
}

awaitable!(Put => PutResponse);
