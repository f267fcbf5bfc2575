//! The KV service: the generated trait, method by method handed to where its meaning is. Only `into_inner`
//! and the turning of a refusal into a status happen here.

mod read;
mod txn;
mod write;

use std::sync::Arc;

use konsul_proto::v1::{self, kv_server::Kv};
use tonic::{Request, Response, Status};

use crate::core::{Core, Writer};
use crate::watch::{DecodedStream, Watches};

/// KV over the state.
#[derive(Clone)]
pub(crate) struct KvService {
    core: Arc<Core>,
    watches: Watches,
}

impl KvService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { watches: Watches::new(Arc::clone(&core)), core }
    }
}

/// Hands a read on.
macro_rules! read {
    ($self:ident, $request:ident, $method:ident) => {
        Ok(Response::new(read::$method(&$self.core, $request.into_inner()).await?))
    };
}

/// Hands a write on, with who writes it.
macro_rules! write {
    ($self:ident, $request:ident, $file:ident::$method:ident) => {{
        let writer = Writer::of(&$request)?;
        Ok(Response::new($file::$method(&$self.core, writer, $request.into_inner()).await?))
    }};
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        read!(self, request, get)
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        read!(self, request, list)
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        write!(self, request, write::put)
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        write!(self, request, write::delete)
    }

    async fn delete_range(
        &self,
        request: Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::DeleteRangeResponse>, Status> {
        write!(self, request, write::delete_range)
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        read!(self, request, batch_get)
    }

    async fn batch_put(
        &self,
        request: Request<v1::BatchPutRequest>,
    ) -> Result<Response<v1::BatchPutResponse>, Status> {
        write!(self, request, write::batch_put)
    }

    async fn batch_delete(
        &self,
        request: Request<v1::BatchDeleteRequest>,
    ) -> Result<Response<v1::BatchDeleteResponse>, Status> {
        write!(self, request, write::batch_delete)
    }

    async fn txn(&self, request: Request<v1::TxnRequest>) -> Result<Response<v1::TxnResponse>, Status> {
        write!(self, request, txn::txn)
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        read!(self, request, history)
    }

    async fn find_revision(
        &self,
        request: Request<v1::FindRevisionRequest>,
    ) -> Result<Response<v1::FindRevisionResponse>, Status> {
        read!(self, request, find_revision)
    }

    type WatchStream = DecodedStream<v1::WatchResponse>;

    /// The Door's own way to it leaves out the decoding.
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(self.watches.open(request).await?.map(DecodedStream::new))
    }
}
