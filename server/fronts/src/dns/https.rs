//! DNS over HTTPS (RFC 8484): `GET /dns-query?dns=…` and `POST /dns-query`, over HTTP/2 or HTTP/1.1.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hickory_proto::op::Message;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::handler::Transport;
use super::stream::{Answer, Desk};
use super::wire::MAX_MESSAGE;

const PATH: &str = "/dns-query";
const MEDIA_TYPE: &str = "application/dns-message";
/// Requests at a time on one connection, and bytes of a request's headers.
const MAX_STREAMS: u32 = 128;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Serves a connection until its client ends it or is silent for too long. After `stop` it takes no new requests.
pub(super) async fn serve<S>(stream: S, source: IpAddr, desk: Desk, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let idle = desk.bounds.idle_timeout;
    let requests = Arc::new(Requests::default());
    let service = service_fn(|request| {
        let (desk, requests) = (desk.clone(), requests.clone());
        async move {
            let _one = requests.begin();
            Ok::<_, Infallible>(respond(request, source, &desk).await)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut is_ending = false;
    loop {
        let begun = requests.begun.load(Ordering::Relaxed);
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a DNS over HTTPS connection ended with an error");
                }
                return;
            }
            () = stop.cancelled(), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep(idle) => {
                let is_idle = requests.begun.load(Ordering::Relaxed) == begun
                    && requests.open.load(Ordering::Relaxed) == 0;
                // Once to say goodbye, and then without.
                if is_idle && is_ending {
                    return;
                }
                if is_idle {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Requests of one connection: how many there were, and how many are open.
#[derive(Default)]
struct Requests {
    begun: AtomicUsize,
    open: AtomicUsize,
}

struct Open(Arc<Requests>);

impl Requests {
    fn begin(self: &Arc<Self>) -> Open {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn respond(request: Request<Incoming>, source: IpAddr, desk: &Desk) -> Response<Full<Bytes>> {
    let message = match read(request, desk).await {
        Ok(message) => message,
        Err(status) => return plain(status),
    };
    let answer = match desk.answer(&message, source, Transport::Https) {
        Answer::Silent => return plain(StatusCode::BAD_REQUEST),
        Answer::Ready(answer) => answer,
        Answer::Later(recursor, place) => {
            let answer = recursor.answer(&message, source, Transport::Https).await;
            drop(place);
            match answer {
                Some(answer) => answer,
                None => return plain(StatusCode::BAD_REQUEST),
            }
        }
    };
    let fresh = HeaderValue::try_from(format!("max-age={}", freshness_s(&answer)));
    let mut response = Response::new(Full::new(Bytes::from(answer)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, fresh.unwrap_or(HeaderValue::from_static("no-cache")));
    response
}

/// The DNS message of a request (RFC 8484 §4.1).
async fn read(request: Request<Incoming>, desk: &Desk) -> Result<Vec<u8>, StatusCode> {
    if request.uri().path() != PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *request.method() {
        Method::GET => {
            let query = request.uri().query().unwrap_or_default();
            let dns = query.split('&').find_map(|pair| pair.strip_prefix("dns="));
            let dns = dns.ok_or(StatusCode::BAD_REQUEST)?;
            // Padding is not allowed and harmless.
            URL_SAFE_NO_PAD.decode(dns.trim_end_matches('=')).map_err(|_| StatusCode::BAD_REQUEST)
        }
        Method::POST => {
            let media_type = request.headers().get(header::CONTENT_TYPE);
            if media_type.is_none_or(|media_type| media_type != MEDIA_TYPE) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let body = Limited::new(request.into_body(), MAX_MESSAGE).collect();
            let body = tokio::time::timeout(desk.bounds.idle_timeout, body).await;
            let body =
                body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
            Ok(body.to_bytes().into())
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

/// An HTTP cache may keep an answer no longer than its shortest record (RFC 8484 §5.1), in seconds.
fn freshness_s(answer: &[u8]) -> u32 {
    let Ok(message) = Message::from_vec(answer) else { return 0 };
    message.answers.iter().chain(&message.authorities).map(|record| record.ttl).min().unwrap_or(0)
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
