//! The Door: every call of every front comes in here. It bounds the call by its deadline, catches panics, tells
//! the observer, and hands it to its service. What a method means is not known here.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use konsul_proto::v1::{
    CatalogWatchRequest, HealthWatchRequest, WatchRequest, admin_server::AdminServer,
    catalog_server::CatalogServer, election_server::ElectionServer, health_server::HealthServer,
    kv_server::KvServer, lease_server::LeaseServer, lock_server::LockServer,
};
use konsul_state::State;
use konsul_state::propose::Propose;
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep_until};
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::server::{Grpc, ServerStreamingService};
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_health::server::HealthReporter;
use tower::Service;

use crate::admin::{About, AdminService};
use crate::catalog::CatalogService;
use crate::core::Core;
pub use crate::deadline::Deadline;
use crate::error::ServiceError;
use crate::health::HealthService;
use crate::kv::KvService;
use crate::lease::LeaseService;
use crate::limits::Limits;
use crate::lock::{ElectionService, LockService};
use crate::observe::{CallObserver, Method, method};
use crate::readers::Readers;
use crate::watch::{EncodedMessage, EncodedStream, WatchCodec, WatchQuery, Watches};

/// Compressions that are accepted, and used for answers to callers that accept them.
const ENCODINGS: [CompressionEncoding; 2] = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];

/// The status header of an answer without a body.
const GRPC_STATUS: &str = "grpc-status";

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What the Door is made of.
pub struct Parts {
    /// The state to read.
    pub state: State,
    /// Consensus, to write through.
    pub propose: Arc<dyn Propose>,
    /// The readers that consensus publishes to.
    pub readers: Arc<Readers>,
    /// The bounds of everything.
    pub limits: Limits,
    /// What the member says of itself.
    pub about: About,
    /// Told after each compaction (see [`crate::duties`]).
    pub compacted: Arc<Notify>,
    /// Told of every call.
    pub observer: Option<Arc<dyn CallObserver>>,
}

/// All gRPC services behind the common layers. Clones are the same Door.
#[derive(Clone)]
pub struct Door {
    rooms: Arc<Rooms>,
}

/// The services, and what is common to their calls.
struct Rooms {
    kv: KvServer<KvService>,
    watches: Watches,
    lease: LeaseServer<LeaseService>,
    lock: LockServer<LockService>,
    catalog: CatalogServer<CatalogService>,
    health: HealthServer<HealthService>,
    /// What is called less often, behind a router of its own.
    others: Routes,
    request_bytes: usize,
    observer: Option<Arc<dyn CallObserver>>,
}

impl Door {
    /// A Door, and what tells `grpc.health.v1` how the server is: SERVING for `""` and each service until told
    /// otherwise.
    ///
    /// # Errors
    /// When a descriptor set that is compiled in is malformed.
    pub async fn new(parts: Parts) -> Result<(Self, HealthReporter), tonic_reflection::server::Error> {
        let Parts { state, propose, readers, limits, about, compacted, observer } = parts;
        let request_bytes = limits.request_bytes();
        let core = Arc::new(Core::new(state, propose, readers, limits, compacted));
        let watches = Watches::new(Arc::clone(&core));
        let mut kv =
            KvServer::new(KvService::new(Arc::clone(&core))).max_decoding_message_size(request_bytes);
        let mut lease = LeaseServer::new(LeaseService::new(Arc::clone(&core)));
        let mut lock = LockServer::new(LockService::new(Arc::clone(&core)));
        let mut election = ElectionServer::new(ElectionService::new(Arc::clone(&core)));
        let mut catalog = CatalogServer::new(CatalogService::new(Arc::clone(&core)));
        let mut checks = HealthServer::new(HealthService::new(Arc::clone(&core)));
        let mut admin = AdminServer::new(AdminService::new(core, about));
        for encoding in ENCODINGS {
            kv = kv.accept_compressed(encoding).send_compressed(encoding);
            lease = lease.accept_compressed(encoding).send_compressed(encoding);
            lock = lock.accept_compressed(encoding).send_compressed(encoding);
            catalog = catalog.accept_compressed(encoding).send_compressed(encoding);
            checks = checks.accept_compressed(encoding).send_compressed(encoding);
            election = election.accept_compressed(encoding).send_compressed(encoding);
            admin = admin.accept_compressed(encoding).send_compressed(encoding);
        }
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<KvServer<KvService>>().await;
        health.set_serving::<LeaseServer<LeaseService>>().await;
        health.set_serving::<LockServer<LockService>>().await;
        health.set_serving::<CatalogServer<CatalogService>>().await;
        health.set_serving::<HealthServer<HealthService>>().await;
        health.set_serving::<ElectionServer<ElectionService>>().await;
        health.set_serving::<AdminServer<AdminService>>().await;
        let others = Routes::new(admin)
            .add_service(election)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        let rooms =
            Rooms { kv, watches, lease, lock, catalog, health: checks, others, request_bytes, observer };
        Ok((Self { rooms: Arc::new(rooms) }, health))
    }
}

impl Rooms {
    fn answer<B>(&self, request: Request<B>) -> Answer
    where
        B: HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send + 'static,
    {
        match request.uri().path() {
            "/konsul.v1.KV/Watch" => self.watch::<WatchRequest, B>(request),
            "/konsul.v1.Catalog/Watch" => self.watch::<CatalogWatchRequest, B>(request),
            "/konsul.v1.Health/Watch" => self.watch::<HealthWatchRequest, B>(request),
            path if path.starts_with("/konsul.v1.KV/") => self.kv.clone().call(request),
            path if path.starts_with("/konsul.v1.Lease/") => self.lease.clone().call(request),
            path if path.starts_with("/konsul.v1.Lock/") => self.lock.clone().call(request),
            path if path.starts_with("/konsul.v1.Catalog/") => self.catalog.clone().call(request),
            path if path.starts_with("/konsul.v1.Health/") => self.health.clone().call(request),
            _ => {
                let answer = self.others.clone().call(request.map(Body::new));
                Box::pin(async move { answer.await.map(|response| response.map(Body::new)) })
            }
        }
    }
}

impl Rooms {
    /// A watch, whose messages come encoded.
    fn watch<Q, B>(&self, request: Request<B>) -> Answer
    where
        Q: WatchQuery,
        B: HttpBody<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send + 'static,
    {
        let watches = self.watches.clone();
        let codec = WatchCodec::<Q>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(self.request_bytes);
        for encoding in ENCODINGS {
            grpc = grpc.accept_compressed(encoding).send_compressed(encoding);
        }
        Box::pin(async move { Ok(grpc.server_streaming(Watch(watches), request).await) })
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(konsul_proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Watches with their messages encoded already.
struct Watch(Watches);

impl<Q: WatchQuery> ServerStreamingService<Q> for Watch {
    type Response = EncodedMessage;
    type ResponseStream = EncodedStream;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<EncodedStream>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let watches = self.0.clone();
        Box::pin(async move { watches.open(request).await })
    }
}

impl<B> Service<Request<B>> for Door
where
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Call;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Call {
        let rooms = &self.rooms;
        let observed = rooms.observer.as_ref().map(|observer| {
            let method = method(request.uri().path());
            observer.started(method);
            Observed { observer: Arc::clone(observer), method, began: Instant::now(), code: Code::Cancelled }
        });
        let request_bytes = rooms.request_bytes;
        let (answer, deadline) = match Deadline::parse(request.headers()) {
            Err(error) => (Err(error), None),
            Ok(deadline) => {
                if let Some(deadline) = deadline {
                    request.extensions_mut().insert(deadline);
                }
                (Ok(rooms.answer(request)), deadline)
            }
        };
        Call { answer: Some(answer), deadline, sleep: None, observed, request_bytes }
    }
}

/// A call on its way to its answer.
pub struct Call {
    /// `None` once it is answered.
    answer: Option<Result<Answer, ServiceError>>,
    deadline: Option<Deadline>,
    /// Set up when the answer is not there at once.
    sleep: Option<Pin<Box<Sleep>>>,
    observed: Option<Observed>,
    request_bytes: usize,
}

impl Call {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Body>, ServiceError>> {
        let answer = match &mut self.answer {
            Some(Ok(answer)) => answer,
            refused => {
                // A call that is polled after its answer has none to give.
                let refusal = refused.take().and_then(Result::err).unwrap_or(ServiceError::Panicked);
                return Poll::Ready(Err(refusal));
            }
        };
        match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
            Err(_) => return Poll::Ready(Err(ServiceError::Panicked)),
            Ok(Poll::Ready(Ok(response))) => return Poll::Ready(Ok(response)),
            Ok(Poll::Ready(Err(never))) => match never {},
            Ok(Poll::Pending) => {}
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline.instant())));
        sleep.as_mut().poll(cx).map(|()| Err(ServiceError::DeadlineExceeded))
    }
}

impl Future for Call {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = match self.poll_answer(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(answered) => answered,
        };
        // What the call still holds goes before its caller hears of it.
        self.answer = None;
        let limit = self.request_bytes;
        let response = match answered {
            Ok(response) => match refused_by_codec(response.headers(), limit) {
                Some(error) => refuse(error),
                None => response,
            },
            Err(error) => refuse(error),
        };
        let Some(mut observed) = self.observed.take() else { return Poll::Ready(Ok(response)) };
        let status = Status::from_header_map(response.headers());
        observed.code = status.as_ref().map_or(Code::Ok, Status::code);
        if status.is_some() || !observed.method.streaming {
            return Poll::Ready(Ok(response));
        }
        observed.code = Code::Cancelled;
        Poll::Ready(Ok(response.map(|body| Body::new(ObservedBody { body, observed }))))
    }
}

fn refuse(error: ServiceError) -> Response<Body> {
    Status::from(error).into_http()
}

/// Why a message was refused before it was read: tonic says that it is over the limit in two codes of its own, and the
/// codec that it is malformed, both without details. Ours always have some.
fn refused_by_codec(headers: &HeaderMap, limit: usize) -> Option<ServiceError> {
    let code = headers.get(GRPC_STATUS)?.as_bytes();
    if headers.contains_key("grpc-status-details-bin") {
        return None;
    }
    match code {
        b"3" => {
            let status = Status::from_header_map(headers)?;
            Some(ServiceError::MalformedMessage(status.message().to_owned()))
        }
        b"8" | b"11" => Some(ServiceError::RequestTooLarge { limit }),
        _ => None,
    }
}

/// Tells the observer that the call ended, when it is dropped.
struct Observed {
    observer: Arc<dyn CallObserver>,
    method: &'static Method,
    began: Instant,
    code: Code,
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.observer.ended(self.method, self.code, self.began.elapsed());
    }
}

/// The body of a streaming answer, whose trailers tell how the call ended.
struct ObservedBody {
    body: Body,
    observed: Observed,
}

impl HttpBody for ObservedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.observed.code = Status::from_header_map(trailers).map_or(Code::Ok, |s| s.code());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
