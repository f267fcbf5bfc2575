//! A server whose answers are the test's: a function for each call that the tests make.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::stream;
use konsul_client::{Client, ClientBuilder};
use konsul_proto::v1::election_server::{Election, ElectionServer};
use konsul_proto::v1::kv_server::{Kv, KvServer};
use konsul_proto::v1::lease_server::{Lease, LeaseServer};
use konsul_proto::v1::lock_server::{Lock, LockServer};
use konsul_proto::v1::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

pub(crate) type Messages = Vec<Result<WatchResponse, Status>>;
type Stream<T> = stream::Iter<std::vec::IntoIter<Result<T, Status>>>;
type Answer<Req, Res> = Box<dyn Fn(Request<Req>) -> Result<Res, Status> + Send + Sync>;

/// What the server answers. Whatever is not set is UNIMPLEMENTED.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) get: Option<Answer<GetRequest, GetResponse>>,
    pub(crate) put: Option<Answer<PutRequest, PutResponse>>,
    pub(crate) list: Option<Answer<ListRequest, ListResponse>>,
    /// The messages of one stream, which ends after them.
    pub(crate) watch: Option<Answer<WatchRequest, Messages>>,
    pub(crate) grant: Option<Answer<GrantRequest, GrantResponse>>,
    pub(crate) refresh: Option<Answer<RefreshRequest, RefreshResponse>>,
    pub(crate) lease: Option<Answer<LeaseGetRequest, LeaseGetResponse>>,
    pub(crate) revoke: Option<Answer<RevokeRequest, RevokeResponse>>,
    /// `None` is no answer, ever.
    pub(crate) lock: Option<Answer<LockRequest, Option<LockResponse>>>,
    pub(crate) try_lock: Option<Answer<TryLockRequest, TryLockResponse>>,
    pub(crate) unlock: Option<Answer<UnlockRequest, UnlockResponse>>,
    pub(crate) campaign: Option<Answer<CampaignRequest, CampaignResponse>>,
    pub(crate) resign: Option<Answer<ResignRequest, ResignResponse>>,
    /// The messages of one stream, which ends after them.
    pub(crate) observe: Option<Answer<ObserveRequest, Vec<Result<ObserveResponse, Status>>>>,
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
        let fake = Arc::new(self);
        let router = Server::builder()
            .add_service(KvServer::from_arc(fake.clone()))
            .add_service(LeaseServer::from_arc(fake.clone()))
            .add_service(LockServer::from_arc(fake.clone()))
            .add_service(ElectionServer::from_arc(fake));
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
    type WatchStream = Stream<WatchResponse>;

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

#[tonic::async_trait]
impl Lease for Fake {
    type KeepAliveStream = Stream<KeepAliveResponse>;

    async fn grant(&self, request: Request<GrantRequest>) -> Result<Response<GrantResponse>, Status> {
        answer(&self.grant, request)
    }

    async fn refresh(&self, request: Request<RefreshRequest>) -> Result<Response<RefreshResponse>, Status> {
        answer(&self.refresh, request)
    }

    async fn get(&self, request: Request<LeaseGetRequest>) -> Result<Response<LeaseGetResponse>, Status> {
        answer(&self.lease, request)
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        answer(&self.revoke, request)
    }

    unimplemented_calls!(
        keep_alive: Streaming<KeepAliveRequest> => Self::KeepAliveStream,
        list: LeaseListRequest => LeaseListResponse
    );
}

#[tonic::async_trait]
impl Lock for Fake {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        match answer(&self.lock, request)?.into_inner() {
            Some(granted) => Ok(Response::new(granted)),
            None => std::future::pending().await,
        }
    }

    async fn try_lock(&self, request: Request<TryLockRequest>) -> Result<Response<TryLockResponse>, Status> {
        answer(&self.try_lock, request)
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        answer(&self.unlock, request)
    }

    unimplemented_calls!(
        get: LockGetRequest => LockGetResponse,
        list: LockListRequest => LockListResponse
    );
}

#[tonic::async_trait]
impl Election for Fake {
    type ObserveStream = Stream<ObserveResponse>;

    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        answer(&self.campaign, request)
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        answer(&self.resign, request)
    }

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        Ok(answer(&self.observe, request)?.map(stream::iter))
    }

    unimplemented_calls!(
        proclaim: ProclaimRequest => ProclaimResponse,
        leader: LeaderRequest => LeaderResponse
    );
}
