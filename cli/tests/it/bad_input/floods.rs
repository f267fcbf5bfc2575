//! Too much of something: streams, values that nobody reads, connections, bytes that are no protocol. Memory stays
//! bounded, and others are served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{CompactRequest, GetRequest, PutRequest, WatchResponse};
use tonic::{Code, Streaming};

use super::requests::{watch, watch_key};
use super::wire::Wire;
use crate::konsul::LIMIT;
use crate::server::{Kv, Server};

const MAX_STREAMS: u64 = 4096;
const STREAMS: u32 = 10_000;
const CONNECTIONS: usize = 1_000;
/// What a server may take of memory for itself in any of these tests: much less than what is thrown at it.
const MAX_ANONYMOUS_BYTES: u64 = 160 << 20;

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.to_owned(), value: value.into(), ..PutRequest::default() }
}

async fn serves(server: &Server) {
    let mut kv = server.kv();
    kv.put(put("alive", b"yes".to_vec())).await.unwrap();
    let got = kv.get(GetRequest { key: "alive".to_owned(), ..GetRequest::default() }).await.unwrap();
    assert_eq!(got.into_inner().entry.unwrap().value, "yes");
}

async fn until_streams(server: &Server, expected: u64) {
    let began = Instant::now();
    loop {
        let open = server.status().await.watch_streams;
        if open == expected {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{open} streams are open and not {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_its_limit() {
    let server = Server::start();
    let kv = server.kv();
    let calls: Vec<_> = (0..STREAMS)
        .map(|_| {
            let mut kv = kv.clone();
            tokio::spawn(async move {
                let open = kv.watch(watch(watch_key("key"))).await;
                // Held open until the task is aborted.
                std::future::pending::<()>().await;
                drop(open);
            })
        })
        .collect();
    until_streams(&server, MAX_STREAMS).await;
    serves(&server).await;
    assert!(server.anonymous_bytes() < MAX_ANONYMOUS_BYTES, "{} bytes", server.anonymous_bytes());
    for call in calls {
        call.abort();
    }
    drop(kv);
    until_streams(&server, 0).await;
}

/// Frames of HTTP/2 (RFC 9113 §4.1) by hand: no library would go over the server's limit.
fn h2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Headers of a watch in literals and static indices of HPACK (RFC 7541 §6).
fn watch_headers() -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    let mut literal = |name: &[u8], value: &[u8]| {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value);
    };
    literal(&[0x04], b"/konsul.v1.KV/Watch");
    literal(&[0x01], b"konsul");
    literal(&[0x0f, 0x10], b"application/grpc");
    literal(&[0x00, 2, b't', b'e'], b"trailers");
    block
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_to_who_opens_them_anyway() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const REFUSED_STREAM: [u8; 4] = 7_u32.to_be_bytes();
    let server = Server::start();
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let headers = watch_headers();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(h2_frame(SETTINGS, 0, 0, &[]));
        // The message never comes, so that each stream stays open.
        (0..STREAMS).for_each(|n| bytes.extend(h2_frame(HEADERS, 4, 2 * n + 1, &headers)));
        // A server that has enough may close the connection.
        let _ = stream.write_all(&bytes);
        stream
    });
    let mut refused = 0;
    let mut is_closed = false;
    while refused < u64::from(STREAMS) - MAX_STREAMS && !is_closed {
        let mut head = [0; 9];
        if reader.read_exact(&mut head).is_err() {
            break;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        reader.read_exact(&mut payload).unwrap();
        match head[3] {
            RST_STREAM => {
                assert_eq!(payload, REFUSED_STREAM);
                refused += 1;
            }
            GOAWAY => is_closed = true,
            _ => {}
        }
    }
    assert!(is_closed || refused == u64::from(STREAMS) - MAX_STREAMS, "{refused} refused");
    assert!(server.anonymous_bytes() < MAX_ANONYMOUS_BYTES, "{} bytes", server.anonymous_bytes());
    serves(&server).await;
    drop(flood.join().unwrap());
}

/// Reads a watch up to its end or `last`: the revisions of its changes, and the status it ended with.
async fn read_on(mut watch: Streaming<WatchResponse>, last: u64) -> (Vec<u64>, Option<Code>) {
    let mut revisions = Vec::new();
    loop {
        let message = match tokio::time::timeout(LIMIT, watch.message()).await.expect("nothing comes") {
            Ok(message) => message.expect("a watch never ends well"),
            Err(status) => return (revisions, Some(status.code())),
        };
        if message.kind() == Kind::Ended {
            assert_eq!(message.status.as_ref().unwrap().code, Code::OutOfRange as i32);
        }
        revisions.extend(message.events.iter().map(|event| event.entry.as_ref().unwrap().mod_revision));
        if message.revision >= last {
            return (revisions, None);
        }
    }
}

async fn open_watch(kv: &mut Kv) -> Streaming<WatchResponse> {
    let mut watch = kv.watch(watch(watch_key("large"))).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().kind(), Kind::Opened);
    watch
}

#[tokio::test]
async fn a_watcher_that_does_not_read_costs_no_memory_and_loses_nothing() {
    const VALUES: u64 = 200;
    let server = Server::start();
    let slow = open_watch(&mut server.kv()).await;
    let slower = open_watch(&mut server.kv()).await;
    let mut kv = server.kv();
    let mut most_bytes = 0;
    for _ in 0..VALUES {
        kv.put(put("large", vec![7; 1 << 20])).await.unwrap();
        most_bytes = most_bytes.max(server.anonymous_bytes());
    }
    assert!(most_bytes < MAX_ANONYMOUS_BYTES, "{most_bytes} bytes");
    let (revisions, ended) = read_on(slow, VALUES).await;
    assert_eq!((revisions, ended), ((1..=VALUES).collect(), None));

    AdminClient::new(server.channel()).compact(CompactRequest { revision: VALUES - 1 }).await.unwrap();
    let (revisions, ended) = read_on(slower, VALUES).await;
    assert_eq!(ended, Some(Code::OutOfRange), "what it has not read is compacted");
    assert!(revisions.iter().copied().eq(1..=revisions.len() as u64), "{revisions:?}");
    assert!((revisions.len() as u64) < VALUES);
    serves(&server).await;
}

#[tokio::test]
async fn idle_connections_are_only_that() {
    let server = Server::start();
    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    serves(&server).await;
    assert!(server.anonymous_bytes() < MAX_ANONYMOUS_BYTES, "{} bytes", server.anonymous_bytes());
    drop(connections);
    serves(&server).await;
}

/// Sends bytes and returns what comes back until the server closes or has nothing more to say.
fn exchange(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // The server may have closed before it has read all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[tokio::test]
async fn what_is_no_http_is_turned_away() {
    let mut server = Server::start();
    // A TLS 1.2 record with the beginning of a ClientHello.
    let mut client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    client_hello.resize(517, 0x5a);
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let half_preface = preface[..12].to_vec();
    preface.extend([0xff; 4096]);
    let garbage: Vec<Vec<u8>> = vec![
        client_hello,
        preface,
        half_preface,
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n".to_vec(),
        b"POST /metrics HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(),
        vec![0; 64 << 10],
        vec![0xff; 64 << 10],
        vec![b'a'; 1 << 20],
    ];
    for bytes in garbage {
        let answer = exchange(&server, &bytes);
        let text = String::from_utf8_lossy(&answer);
        let is_bad_request = ["HTTP/1.1 400 ", "HTTP/1.1 431 "].iter().any(|line| text.starts_with(line));
        // Frames of HTTP/2, the first being SETTINGS.
        let is_h2 = answer.get(3) == Some(&4);
        assert!(answer.is_empty() || is_bad_request || is_h2, "{text:?}");
        assert!(server.is_up());
    }
    let large = "x".repeat(1 << 20);
    let head = format!("GET /metrics HTTP/1.1\r\nhost: konsul\r\nx: {large}\r\n\r\n");
    let answer = exchange(&server, head.as_bytes());
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431 "),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    let wire = Wire::connect(&server).await;
    let key = PutRequest { key: "giant".to_owned(), ..PutRequest::default() };
    let body = super::wire::frame(&prost::Message::encode_to_vec(&key));
    let answer =
        wire.request(http::Method::POST, "/konsul.v1.KV/Put", &[("x", &large[..64 << 10])], body).await;
    assert!(!answer.is_ok_and(|answer| answer.http_status == 200), "headers of 64 KiB were taken");
    assert_eq!(server.status().await.entries, 0);
    serves(&server).await;
}
