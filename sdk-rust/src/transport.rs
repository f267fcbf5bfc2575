//! The connection: dials the addresses in turn, adds the token to each call, and says UNAVAILABLE for whatever
//! fails beneath gRPC. Knows nothing of Konsul's messages, retries or deadlines.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::Service;

use crate::address::Address;
use crate::error::{Answer, Error, Unreachable};

/// Flow control windows: the default of 64 KiB makes a stream of values wait for round trips.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How long a server may take to show that it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// To accept a connection.
    pub(crate) connect_timeout: Duration,
    /// How long a connection may be silent before it is probed. A dead peer is noticed after this and the next at most,
    /// which is what ends a watch whose server hangs, or vanished without closing the connection.
    pub(crate) keep_alive_interval: Duration,
    /// To answer a probe.
    pub(crate) keep_alive_timeout: Duration,
}

/// A channel to whichever address accepts the connection. After a connection broke it connects on the next call, to the
/// next address.
#[derive(Debug, Clone)]
pub(crate) struct Transport {
    channel: Channel,
    dialer: Dialer,
    /// How many transports there were before this one.
    number: u64,
    authorization: Option<HeaderValue>,
}

/// Where new calls go: the present transport, and how to get another one.
#[derive(Debug)]
pub(crate) struct Route {
    present: Mutex<Transport>,
    endpoint: Endpoint,
    addresses: u32,
}

impl Route {
    /// A route that connects on its first call. Must be called within a tokio runtime.
    pub(crate) fn lazy(
        addresses: Vec<Address>,
        user_agent: &str,
        token: Option<&str>,
        timing: Timing,
    ) -> Result<Self, Error> {
        let authorization = token.map(bearer).transpose()?;
        let origin = addresses.first().ok_or(Error::NoAddress)?.to_string();
        let invalid = |error: tonic::transport::Error| Error::InvalidAddress {
            address: origin.clone(),
            why: root_cause(&error),
        };
        let endpoint = Endpoint::from_shared(origin.clone())
            .map_err(invalid)?
            .user_agent(user_agent)
            .map_err(|_| Error::InvalidUserAgent)?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(timing.keep_alive_interval)
            .keep_alive_timeout(timing.keep_alive_timeout)
            .keep_alive_while_idle(true);
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let dialer = Dialer {
            addresses: addresses.into(),
            dialled: Arc::default(),
            connect_timeout: timing.connect_timeout,
        };
        let channel = dialer.channel(&endpoint);
        let present = Mutex::new(Transport { channel, dialer, number: 0, authorization });
        Ok(Self { present, endpoint, addresses: count })
    }

    /// How many addresses there are.
    pub(crate) fn addresses(&self) -> u32 {
        self.addresses
    }

    /// The transport for a new call.
    pub(crate) fn transport(&self) -> Transport {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends new calls to the address after the one that this transport, if it is still the present one, is connected to. Calls
    /// and streams that use it already keep it.
    pub(crate) fn leave(&self, transport: &Transport) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if self.addresses > 1 && present.number == transport.number {
            present.dialer = present.dialer.apart();
            present.channel = present.dialer.channel(&self.endpoint);
            present.number += 1;
        }
    }
}

impl Transport {
    /// What is said of a call that was given up because the server kept silent. UNAVAILABLE, so that it is made again.
    pub(crate) fn unanswered(&self) -> Error {
        let message = format!("no answer from {}", self.dialer.last());
        Error::Rpc(Box::new(Answer::local(Code::Unavailable, message)))
    }
}

/// The `authorization` header of a token, kept out of debug output.
fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::InvalidToken)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx).map_err(broken)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(value) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.clone());
        }
        let response = self.channel.call(request);
        Box::pin(async move {
            let response = response.await.map_err(broken)?;
            Ok(response.map(|body| Body::new(body.map_err(broken))))
        })
    }
}

/// What a failure beneath gRPC means to a caller. tonic says UNKNOWN, INTERNAL, CANCELLED or UNAVAILABLE for a
/// connection that broke, depending on where it broke; here it is UNAVAILABLE, always. A server's own statuses
/// are in headers and trailers and do not come this way.
fn broken(error: impl StdError + Send + Sync + 'static) -> Status {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(unreachable) = current.downcast_ref::<Unreachable>() {
            let mut status = Status::unavailable(unreachable.to_string());
            status.set_source(Arc::new(unreachable.clone()));
            return status;
        }
        if current.is::<tonic::TimeoutExpired>() {
            return Status::deadline_exceeded("the deadline passed before the server answered");
        }
        cause = current.source();
    }
    Status::unavailable(format!("the connection broke: {}", root_cause(&error)))
}

/// The innermost error of a chain, which is the one that says what happened.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// Dials the addresses of one channel in turn.
#[derive(Debug, Clone)]
struct Dialer {
    addresses: Arc<[Address]>,
    /// How many addresses were dialled. Each dial goes on with the next one, also after a connection that broke: a
    /// member that hangs still accepts connections.
    dialled: Arc<AtomicUsize>,
    connect_timeout: Duration,
}

impl Dialer {
    /// A dialer that begins after the address that this one dialled last, and goes on independently of it.
    fn apart(&self) -> Self {
        let dialled = Arc::new(AtomicUsize::new(self.dialled.load(Ordering::Relaxed)));
        Self { dialled, ..self.clone() }
    }

    /// A channel that connects on its first call.
    fn channel(&self, endpoint: &Endpoint) -> Channel {
        let dialer = self.clone();
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| dialer.clone().dial()))
    }

    async fn dial(self) -> Result<TokioIo<TcpStream>, Unreachable> {
        let mut attempts = Vec::with_capacity(self.addresses.len());
        for _ in 0..self.addresses.len() {
            let number = self.dialled.fetch_add(1, Ordering::Relaxed);
            let address = &self.addresses[number % self.addresses.len()];
            match self.dial_one(address).await {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => attempts.push((address.to_string(), plain_words(&error))),
            }
        }
        Err(Unreachable { attempts: attempts.into() })
    }

    /// The address that was dialled last; before that, the one that will be dialled first.
    fn last(&self) -> &Address {
        let dialled = self.dialled.load(Ordering::Relaxed);
        &self.addresses[dialled.saturating_sub(1) % self.addresses.len()]
    }

    async fn dial_one(&self, address: &Address) -> io::Result<TcpStream> {
        let connect = TcpStream::connect((address.host(), address.port()));
        let stream = tokio::time::timeout(self.connect_timeout, connect)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// An I/O error without the operating system's number where Rust has words for its kind.
fn plain_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => "timed out".into(),
        _ => error.to_string(),
    }
}
