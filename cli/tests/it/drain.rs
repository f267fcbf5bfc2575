//! A server that is asked to stop: streams end, what was acknowledged is kept, and nobody waits longer than agreed.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{
    GetRequest, PutRequest, ReadOptions, WatchRequest, WatchTarget, list_request, watch_target,
};
use tokio::sync::{Mutex, Semaphore};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::konsul::LIMIT;
use crate::server::Server;

const WRITERS: usize = 8;

fn everything() -> WatchRequest {
    let selector = Some(watch_target::Selector::Prefix(String::new()));
    WatchRequest {
        targets: vec![WatchTarget { id: 1, selector, ..WatchTarget::default() }],
        ..Default::default()
    }
}

/// Writes until the server is gone; the keys that were acknowledged.
async fn write(
    server: Arc<Mutex<Vec<String>>>,
    mut kv: crate::server::Kv,
    number: usize,
    busy: Arc<Semaphore>,
) {
    for count in 0.. {
        let key = format!("writer-{number}/{count}");
        match kv
            .put(PutRequest { key: key.clone(), value: key.clone().into(), ..PutRequest::default() })
            .await
        {
            Ok(_) => server.lock().await.push(key),
            Err(status) => {
                // What the connection says has a source; a stream that came after the last is refused by it (GOAWAY).
                let gone = status.code() == Code::Unavailable || status.source().is_some();
                assert!(gone, "{status:?}");
                return;
            }
        }
        busy.add_permits(1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stops_in_order_under_load() {
    let mut server = Server::launch().set("KONSUL_SERVER_SHUTDOWN_GRACE", "20s").start();
    let mut watches = Vec::new();
    for _ in 0..4 {
        watches.push(server.kv().watch(everything()).await.unwrap().into_inner());
    }
    let health = HealthCheckRequest { service: String::new() };
    let mut health = HealthClient::new(server.channel()).watch(health).await.unwrap().into_inner();
    assert_eq!(health.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(server.page("/health/ready").unwrap().0, 200);

    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let busy = Arc::new(Semaphore::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(write(acknowledged.clone(), server.kv(), number, busy.clone())))
        .collect();
    drop(busy.acquire_many(200).await.unwrap());
    server.terminate();
    let began = Instant::now();

    let next = tokio::time::timeout(LIMIT, health.message()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(server.page("/health/ready").map_or(true, |(status, _)| status == 503));
    for watch in &mut watches {
        let end = loop {
            match tokio::time::timeout(LIMIT, watch.message()).await.expect("a watch does not end") {
                Ok(Some(message)) => assert_ne!(message.kind(), Kind::Ended),
                Ok(None) => panic!("a watch ended well"),
                Err(status) => break status,
            }
        };
        assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    }
    for writer in writers {
        tokio::time::timeout(LIMIT, writer).await.expect("a call does not end").unwrap();
    }
    let status = tokio::task::block_in_place(|| server.wait());
    assert!(status.success(), "{status}");
    // The stream of the health service is still open at this end: nobody has to close one for a server to stop.
    assert!(began.elapsed() < Duration::from_secs(10), "took {:?}", began.elapsed());
    drop(health);

    let marker = std::fs::read_to_string(server.data_dir().join("state/MARKER")).unwrap();
    assert!(marker.contains("closed"), "{marker}");
    server.restart();
    let log = server.log();
    let opened = log.lines().rfind(|line| line.contains("opened the state")).unwrap();
    assert!(opened.contains("Kept"), "{opened}");
    let selector = Some(list_request::Selector::Prefix(String::new()));
    let list = konsul_proto::v1::ListRequest { selector, page_size: 10_000, ..Default::default() };
    let found = server.kv().list(list).await.unwrap().into_inner();
    assert_eq!(found.next_page_token, "");
    for key in acknowledged.lock().await.iter() {
        assert!(found.entries.iter().any(|entry| entry.key == *key && entry.value == *key), "{key} is lost");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_is_waited_for_and_a_second_signal_is_not() {
    for signals in [1, 2] {
        let mut server = Server::launch().set("KONSUL_SERVER_SHUTDOWN_GRACE", "3s").start();
        let mut kv = server.kv();
        // Waits for a revision that never comes.
        let read = Some(ReadOptions { min_revision: 1, ..ReadOptions::default() });
        let waiting = tokio::spawn(async move {
            kv.get(GetRequest { key: "key".to_owned(), read, ..GetRequest::default() }).await
        });
        until_log(&server, "serving").await;
        until_waiting(&server).await;
        let began = Instant::now();
        server.terminate();
        until_log(&server, "stopping").await;
        if signals == 2 {
            server.terminate();
        }
        let status = tokio::task::block_in_place(|| server.wait());
        assert!(status.success(), "{status}");
        let took = began.elapsed();
        match signals {
            1 => assert!(took < Duration::from_secs(8), "the grace is 3 s, and it took {took:?}"),
            _ => assert!(took < Duration::from_millis(2_500), "ended not at once but after {took:?}"),
        }
        let answer = tokio::time::timeout(LIMIT, waiting).await.expect("the call does not end").unwrap();
        assert_ne!(answer.unwrap_err().code(), Code::Ok);
    }
}

async fn until_log(server: &Server, text: &str) {
    let began = Instant::now();
    while !server.log().contains(text) {
        assert!(began.elapsed() < LIMIT, "the log does not say {text:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Until the server has a Get in flight, as its metrics tell.
async fn until_waiting(server: &Server) {
    let began = Instant::now();
    while !server.page("/metrics").unwrap().1.contains("konsul_rpc_in_flight{method=\"/konsul.v1.KV/Get\"} 1")
    {
        assert!(began.elapsed() < LIMIT, "the call does not arrive: {}", server.page("/metrics").unwrap().1);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
