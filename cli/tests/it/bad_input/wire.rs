//! gRPC by hand over HTTP/2, for what no client would send.

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use prost::Message;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::konsul::LIMIT;
use crate::server::Server;

/// A connection.
#[derive(Clone)]
pub(super) struct Wire {
    send: SendRequest<Bytes>,
    authority: String,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) http_status: u16,
    /// `None` when it is no answer of gRPC.
    pub(super) code: Option<Code>,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn outcome(&self) -> (Option<Code>, &str) {
        (self.code, &self.reason)
    }
}

/// A message as gRPC frames it.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

impl Wire {
    pub(super) async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async move {
            // Its end is seen by the calls on it.
            let _ = connection.await;
        });
        Self { send, authority: server.address.clone() }
    }

    pub(super) async fn send(&self, method: &str, message: &impl Message) -> Answer {
        self.call(method, &[], frame(&message.encode_to_vec())).await
    }

    /// Calls `method` (`KV/Get`) with more or other headers and any body.
    pub(super) async fn call(&self, method: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let path = format!("/konsul.v1.{method}");
        self.request(Method::POST, &path, headers, body).await.expect("the call broke")
    }

    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, h2::Error> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("te", "trailers").body(()).unwrap();
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        // A server that refuses by the headers or the length does not wait for the rest.
        let _ = stream.send_data(body, true);
        tokio::time::timeout(LIMIT, read(response)).await.expect("a call takes forever")
    }
}

async fn read(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.await?.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    let status = status(&trailers).or_else(|| status(&head.headers));
    let reason = |status: &Status| {
        let details = status.get_error_details();
        details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
    };
    Ok(Answer {
        http_status: head.status.as_u16(),
        code: status.as_ref().map(Status::code),
        reason: status.as_ref().map(reason).unwrap_or_default(),
        message: status.as_ref().map(|s| s.message().to_owned()).unwrap_or_default(),
        body: body.freeze(),
    })
}

fn status(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers)
}
