//! A check that asks a gRPC server's health service (`grpc.health.v1.Health/Check`): one call over a connection of its own, with
//! HTTP/2 bare. A channel would keep the connection, and a task for it.

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use prost::Message;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::dial::{Dialer, Phase, Progress, beside};
use crate::failure::Failure;
use crate::limits::{ANSWER_HEAD_BYTES, OUTPUT_BYTES};
use crate::probe::Grpc;
use crate::tls::Protocol;
use crate::verdict::{Status, Verdict};

const PATH: &str = "/grpc.health.v1.Health/Check";
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// A message's length stands before it, behind a byte that says whether it is compressed.
const PREFIX_BYTES: usize = 5;
/// What may be sent to us before we read it.
const WINDOW_BYTES: u32 = 16 << 10;

/// The codes that mean something to a health check.
const OK: &[u8] = b"0";
const NOT_FOUND: &[u8] = b"5";
const UNIMPLEMENTED: &[u8] = b"12";

/// What came back.
struct Answer {
    status: StatusCode,
    /// Of the answer's head and its end.
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Carries it out.
///
/// # Errors
/// [`Failure`] when there is no answer.
pub(crate) async fn check(dialer: &Dialer, grpc: &Grpc, progress: &Progress) -> Result<Verdict, Failure> {
    let stream = dialer.stream(&grpc.target, grpc.tls.as_ref(), Protocol::Http2, progress).await?;
    progress.at(Phase::Answer);
    let (sender, connection) = h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(ANSWER_HEAD_BYTES as u32)
        .handshake::<_, Bytes>(stream)
        .await?;
    let request = request(grpc).ok_or(Failure::Unfit)?;
    let answer = beside(connection, exchange(sender, request, message(&grpc.service))).await?;
    let (status, words) = judge(&answer);
    let service = if grpc.service.is_empty() { String::new() } else { format!(" {}", grpc.service) };
    Ok(Verdict::new(status, &format!("gRPC {}{service}: {words}", grpc.target)))
}

fn request(grpc: &Grpc) -> Option<Request<()>> {
    let scheme = if grpc.tls.is_some() { "https" } else { "http" };
    let uri =
        Uri::builder().scheme(scheme).authority(grpc.target.to_string()).path_and_query(PATH).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("konsul-check"));
    Some(request)
}

/// The message, with its length before it.
fn message(service: &str) -> Bytes {
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    // A name is far shorter than what this would cut.
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    framed.freeze()
}

async fn exchange(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    message: Bytes,
) -> Result<Answer, Failure> {
    let mut sender = sender.ready().await?;
    let (answer, mut sending) = sender.send_request(request, false)?;
    sending.send_data(message, true)?;
    let (head, body) = answer.await?.into_parts();
    let mut headers = head.headers;
    let (body, trailers) = read(body).await?;
    headers.extend(trailers);
    Ok(Answer { status: head.status, headers, body })
}

/// A body and what stands behind it. One that is longer than any answer of a health service is not read to its end.
async fn read(mut stream: RecvStream) -> Result<(Vec<u8>, HeaderMap), Failure> {
    let mut body = Vec::new();
    while let Some(bytes) = stream.data().await {
        let bytes = bytes?;
        if body.len() + bytes.len() > OUTPUT_BYTES {
            return Err(Failure::TooMuch);
        }
        stream.flow_control().release_capacity(bytes.len())?;
        body.extend_from_slice(&bytes);
    }
    Ok((body, stream.trailers().await?.unwrap_or_default()))
}

fn judge(answer: &Answer) -> (Status, String) {
    if answer.status != StatusCode::OK {
        return (Status::Critical, format!("{}: this is no gRPC server", answer.status));
    }
    let message = answer.headers.get(GRPC_MESSAGE).map(|text| String::from_utf8_lossy(text.as_bytes()));
    let said = message.filter(|text| !text.is_empty()).map(|text| format!(": {text}")).unwrap_or_default();
    let words = match answer.headers.get(GRPC_STATUS).map(HeaderValue::as_bytes) {
        Some(OK) => return serving(&answer.body),
        Some(NOT_FOUND) => format!("the service is unknown there{said}"),
        Some(UNIMPLEMENTED) => format!("the server has no health service (grpc.health.v1){said}"),
        Some(code) => format!("the call failed with code {}{said}", String::from_utf8_lossy(code)),
        None => "the answer has no grpc-status: this is no gRPC server".into(),
    };
    (Status::Critical, words)
}

/// What an answer says of the service.
fn serving(body: &[u8]) -> (Status, String) {
    let message = match body {
        [0, length @ ..] if length.len() >= PREFIX_BYTES - 1 => &body[PREFIX_BYTES..],
        _ => return (Status::Critical, "the answer has no message".into()),
    };
    let Ok(answer) = HealthCheckResponse::decode(message) else {
        return (Status::Critical, "the answer is no HealthCheckResponse".into());
    };
    match ServingStatus::try_from(answer.status) {
        Ok(ServingStatus::Serving) => (Status::Passing, "SERVING".into()),
        Ok(ServingStatus::NotServing) => (Status::Critical, "NOT_SERVING".into()),
        Ok(ServingStatus::ServiceUnknown) => (Status::Critical, "the service is unknown there".into()),
        Ok(ServingStatus::Unknown) => (Status::Critical, "UNKNOWN".into()),
        Err(_) => (Status::Critical, format!("an unknown status ({})", answer.status)),
    }
}
