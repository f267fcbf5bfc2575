//! A KV server whose answers are the test's: a function for each call that the tests make.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream;
use konsul_client::{Client, ClientBuilder};
use konsul_proto::v1::kv_server::{Kv, KvServer};
use konsul_proto::v1::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub(crate) type Messages = Vec<Result<WatchResponse, Status>>;
type Answer<Req, Res> = Box<dyn Fn(Request<Req>) -> Result<Res, Status> + Send + Sync>;

/// What the server answers. Whatever is not set is UNIMPLEMENTED.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) get: Option<Answer<GetRequest, GetResponse>>,
    pub(crate) put: Option<Answer<PutRequest, PutResponse>>,
    pub(crate) list: Option<Answer<ListRequest, ListResponse>>,
    /// The messages of one stream, which ends after them.
    pub(crate) watch: Option<Answer<WatchRequest, Messages>>,
}

/// A started fake; it stops when this is dropped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start(self) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Server::builder().add_service(KvServer::from_arc(Arc::new(self)));
        let server = tokio::spawn(async move {
            router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Running { address, server }
    }
}

impl Running {
    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder().address(self.address.to_string())
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

fn answer<Req, Res>(
    answer: &Option<Answer<Req, Res>>,
    request: Request<Req>,
) -> Result<Response<Res>, Status> {
    match answer {
        Some(answer) => answer(request).map(Response::new),
        None => Err(Status::unimplemented("not part of this test")),
    }
}

macro_rules! unimplemented_calls {
    ($($name:ident: $request:ty => $response:ty),*) => {$(
        fn $name<'a: 'b, 'b>(
            &'a self,
            _: Request<$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'b>>
        where
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not part of these tests")) })
        }
    )*};
}

#[tonic::async_trait]
impl Kv for Fake {
    type WatchStream = stream::Iter<std::vec::IntoIter<Result<WatchResponse, Status>>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        answer(&self.get, request)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        answer(&self.put, request)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        answer(&self.list, request)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(answer(&self.watch, request)?.map(stream::iter))
    }

    unimplemented_calls!(
        delete: DeleteRequest => DeleteResponse,
        delete_range: DeleteRangeRequest => DeleteRangeResponse,
        batch_get: BatchGetRequest => BatchGetResponse,
        batch_put: BatchPutRequest => BatchPutResponse,
        batch_delete: BatchDeleteRequest => BatchDeleteResponse,
        txn: TxnRequest => TxnResponse,
        history: HistoryRequest => HistoryResponse,
        find_revision: FindRevisionRequest => FindRevisionResponse
    );
}
