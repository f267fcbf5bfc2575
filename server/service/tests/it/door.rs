//! The Door: deadlines, malformed messages, compression, health, reflection, observation, and calls in process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use konsul_proto::v1;
use konsul_proto::v1::kv_client::KvClient;
use konsul_service::observe::{CallObserver, Method, methods};
use konsul_service::{About, Door, Limits, Parts};
use tokio_stream::StreamExt;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::harness::*;

fn with_timeout<T>(message: T, timeout: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

fn put_request() -> v1::PutRequest {
    v1::PutRequest { key: "a".into(), ..Default::default() }
}

#[tokio::test]
async fn a_call_without_time_does_nothing() {
    let server = start().await;
    let mut kv = server.in_process();
    let before = server.fingerprint();
    for timeout in ["0n", "0H"] {
        let status = kv.put(with_timeout(put_request(), timeout)).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    }
    for timeout in ["5", "S", "5 S", "123456789S", "x"] {
        let status = kv.put(with_timeout(put_request(), timeout)).await.unwrap_err();
        assert_eq!(refusal(&status), invalid("grpc-timeout"), "{timeout}");
    }
    assert_eq!(server.fingerprint(), before);
    kv.put(with_timeout(put_request(), "99999999H")).await.unwrap();
}

#[tokio::test]
async fn a_call_past_its_deadline_stops() {
    let server = start().await;
    let mut kv = server.in_process();
    server.consensus.hold(true);
    let status = kv.put(with_timeout(put_request(), "30m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let status = kv.get(with_timeout(get("a"), "30m")).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.consensus.hold(false);
    let request = watching(vec![watch_key(1, "a")]);
    let mut watch = kv.watch(with_timeout(request, "50m")).await.unwrap().into_inner();
    let status = soon(async {
        while watch.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    })
    .await;
    assert_eq!(status.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_malformed_message_is_the_callers_mistake() {
    let server = start().await;
    let before = server.fingerprint();
    let mut client = tonic::client::Grpc::new(server.channel().await);
    // Field 2 (the key) as a string that is no UTF-8; a cut-off length; a wrong wire type.
    for bytes in [&b"\x12\x02\xff\xfe"[..], b"\x12\x7f", b"\x10\x01"] {
        client.ready().await.unwrap();
        let path = "/konsul.v1.KV/Put".parse().unwrap();
        let raw = Raw(bytes.to_vec());
        let status = client.unary(Request::new(raw), path, RawCodec).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "MALFORMED_MESSAGE", "{status:?}");
    }
    for path in ["/konsul.v1.KV/Nothing", "/konsul.v1.Nothing/Get", "/nothing"] {
        client.ready().await.unwrap();
        let raw = Raw(vec![]);
        let status = client.unary(Request::new(raw), path.parse().unwrap(), RawCodec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    assert_eq!(server.fingerprint(), before);
}

/// Bytes sent as they are.
#[derive(Debug, Clone)]
struct Raw(Vec<u8>);

#[derive(Clone, Copy)]
struct RawCodec;

impl tonic::codec::Codec for RawCodec {
    type Encode = Raw;
    type Decode = Raw;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for RawCodec {
    type Item = Raw;
    type Error = tonic::Status;
    fn encode(&mut self, raw: Raw, into: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        use bytes::BufMut;
        into.put_slice(&raw.0);
        Ok(())
    }
}

impl tonic::codec::Decoder for RawCodec {
    type Item = Raw;
    type Error = tonic::Status;
    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Raw>, tonic::Status> {
        use bytes::Buf;
        Ok(Some(Raw(from.copy_to_bytes(from.remaining()).to_vec())))
    }
}

#[tokio::test]
async fn both_compressions_work_both_ways() {
    let server = start().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut kv = server.kv().await.send_compressed(encoding).accept_compressed(encoding);
        let value = "compressible ".repeat(10_000);
        let revision = put(&mut kv, "a", &value).await;
        let answer = kv.get(get("a")).await.unwrap();
        let name = format!("{encoding}");
        assert_eq!(answer.metadata().get("grpc-encoding").map(|v| v.to_str().unwrap()), Some(name.as_str()));
        assert_eq!(answer.into_inner().entry.unwrap().value, value);
        let target = v1::WatchTarget { start_revision: revision, ..watch_key(1, "a") };
        let answer = kv.watch(watching(vec![target])).await.unwrap();
        assert!(answer.metadata().get("grpc-encoding").is_some());
        let mut stream = answer.into_inner();
        soon(stream.message()).await.unwrap().unwrap();
        let events = soon(stream.message()).await.unwrap().unwrap();
        assert_eq!(events.events[0].entry.as_ref().unwrap().value, value);
    }
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    let server = start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "konsul.v1.KV", "konsul.v1.Admin"] {
        let request = tonic_health::pb::HealthCheckRequest { service: service.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{service}");
    }
    use tonic_reflection::pb::{v1, v1alpha};
    let ask = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.next().await.unwrap().unwrap());
    assert!(answer.contains("konsul.v1.KV") && answer.contains("grpc.health.v1.Health"), "{answer}");
    let ask = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "konsul.v1.KV".into(),
        )),
        ..Default::default()
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let mut answers = client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = format!("{:?}", answers.next().await.unwrap().unwrap());
    assert!(answer.contains("FileDescriptorResponse"), "{answer}");
}

#[tokio::test]
async fn calls_in_process_go_through_the_same_door() {
    let server = start().await;
    let mut kv = server.in_process();
    kv.put(put_request()).await.unwrap();
    assert_eq!(kv.get(get("a")).await.unwrap().into_inner().revision, 1);
    let status = kv.get(get("")).await.unwrap_err();
    assert_eq!(refusal(&status), invalid("key"));
}

#[derive(Default)]
struct Calls(Mutex<Vec<(String, Option<Code>)>>);

impl CallObserver for Calls {
    fn started(&self, method: &'static Method) {
        self.0.lock().unwrap().push((method.path.clone(), None));
    }
    fn ended(&self, method: &'static Method, code: Code, took: Duration) {
        assert!(took < Duration::from_secs(20));
        self.0.lock().unwrap().push((method.path.clone(), Some(code)));
    }
}

#[tokio::test]
async fn the_observer_sees_every_call_begin_and_end() {
    assert!(methods().iter().enumerate().all(|(i, method)| method.index == i));
    assert!(methods().iter().any(|m| m.path == "/konsul.v1.KV/Watch" && m.streaming));
    let server = start().await;
    let calls = Arc::new(Calls::default());
    let parts = Parts {
        state: server.state.clone(),
        propose: server.consensus.clone(),
        readers: server.readers.clone(),
        limits: Limits::default(),
        about: About { version: String::new(), persistence: "memory" },
        compacted: server.compacted.clone(),
        observer: Some(calls.clone()),
    };
    let (door, _health) = Door::new(parts).await.unwrap();
    let mut kv = KvClient::new(door);
    kv.put(put_request()).await.unwrap();
    kv.get(get("x")).await.unwrap_err();
    kv.get(with_timeout(get("x"), "0n")).await.unwrap_err();
    let watch = kv.watch(watching(vec![watch_key(1, "a")])).await.unwrap();
    drop(watch);
    let compacted = v1::WatchTarget { start_revision: 9, ..watch_key(1, "a") };
    let mut watch = kv.watch(watching(vec![compacted])).await.unwrap().into_inner();
    while let Ok(Some(_)) = watch.message().await {}
    drop(watch);
    let seen = std::mem::take(&mut *calls.0.lock().unwrap());
    let call = |path: &str, code| {
        [(format!("/konsul.v1.KV/{path}"), None), (format!("/konsul.v1.KV/{path}"), Some(code))]
    };
    let expected = [
        call("Put", Code::Ok),
        call("Get", Code::NotFound),
        call("Get", Code::DeadlineExceeded),
        call("Watch", Code::Cancelled),
        call("Watch", Code::OutOfRange),
    ];
    assert_eq!(seen, expected.concat());
}
