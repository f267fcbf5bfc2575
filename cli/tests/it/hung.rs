//! A client with several servers, one of which hangs without closing a connection: calls and watches go on at another, writes
//! happen once, and watches miss and repeat nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use konsul_client::{Client, ClientBuilder, Watch, WatchEvent, WatchOptions};

use crate::konsul::{LIMIT, Run, konsul};
use crate::proxy::Proxy;
use crate::server::Server;

/// How long a silent server is waited for in these tests.
const PATIENCE: Duration = Duration::from_millis(300);

/// A client that leaves a silent server soon, for the first of these addresses while it can be had.
fn client<const N: usize>(addresses: [&String; N]) -> ClientBuilder {
    Client::builder()
        .addresses(addresses)
        .timeout(LIMIT)
        .attempt_timeout(PATIENCE)
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
}

/// The next change of a watch.
async fn next_put(watch: &mut Watch) -> (u64, String) {
    let put = async {
        loop {
            if let WatchEvent::Put { revision, entry, .. } = watch.next().await.unwrap().unwrap() {
                return (revision, entry.key);
            }
        }
    };
    tokio::time::timeout(LIMIT, put).await.expect("an event")
}

#[tokio::test]
async fn reads_go_on_when_a_server_is_stopped_in_its_tracks() {
    let (frozen, live) = (Server::start(), Server::start());
    for server in [&frozen, &live] {
        server.put("k", "v");
    }
    let kv = client([&frozen.address, &live.address]).build().unwrap().kv();
    assert!(kv.get("k").await.unwrap().is_some());
    frozen.freeze();
    for found in join_all((0..20).map(|_| async { kv.get("k").await })).await {
        assert_eq!(found.unwrap().unwrap().value, "v");
    }
    let fresh = client([&frozen.address, &live.address]).build().unwrap().kv();
    assert!(fresh.get("k").await.unwrap().is_some());

    // Nor does it hold a command whose time is short.
    let both = format!("{},{}", frozen.address, live.address);
    let run = Run::of(konsul().args(["kv", "get", "k", "--timeout", "4s", "--addr", &both]), b"");
    assert_eq!(run.success(), "v");
}

#[tokio::test]
async fn a_client_stays_where_it_was_answered() {
    let server = Server::start();
    let proxy = Proxy::to(&server).await;
    proxy.hold();
    let kv = client([&proxy.address, &server.address]).attempt_timeout(LIMIT / 10).build().unwrap().kv();
    kv.put("k", "v").await.unwrap();
    let answered = Instant::now();
    for _ in 0..20 {
        kv.get("k").await.unwrap();
    }
    assert!(answered.elapsed() < LIMIT / 10, "went back to the silent one: {:?}", answered.elapsed());
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn writes_whose_answers_are_lost_happen_once() {
    let server = Server::start();
    let proxy = Proxy::to(&server).await;
    let kv = client([&proxy.address, &server.address]).build().unwrap().kv();
    let before = kv.put("before", "").await.unwrap().revision;
    assert_eq!(proxy.connections(), 1);
    proxy.hold_answers();
    let puts = (0..20).map(|number| {
        let kv = &kv;
        async move { kv.put(format!("k/{number}"), "").await.unwrap().revision }
    });
    let mut revisions = join_all(puts).await;
    revisions.sort_unstable();
    let expected: Vec<u64> = (before + 1..=before + 20).collect();
    assert_eq!(revisions, expected, "each was answered with its own revision, and there are no others");
    assert_eq!(server.status().await.revision, before + 20);
}

#[tokio::test]
async fn a_watch_moves_on_and_sees_each_change_once() {
    let server = Server::start();
    let proxy = Proxy::to(&server).await;
    let writer = client([&server.address]).build().unwrap().kv();
    let kv = client([&proxy.address, &server.address]).build().unwrap().kv();
    let mut watch = kv.watch(WatchOptions::prefix("k/").from_revision(1));
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..10 {
            let key = format!("k/{round}/{number}");
            let revision = writer.put(&key, "").await.unwrap().revision;
            expected.push((revision, key));
        }
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(next_put(&mut watch).await);
        }
        assert_eq!(seen, expected[expected.len() - 10..], "in round {round}");
        if round == 0 {
            // From here on only the silence tells that there is more to see.
            proxy.hold();
        }
    }
    assert_eq!(proxy.connections(), 1, "it did not come back to the silent one");
    let revisions: Vec<u64> = expected.iter().map(|(revision, _)| *revision).collect();
    assert_eq!(revisions, (1..=30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_watch_opens_at_the_next_server_when_the_first_is_silent() {
    let server = Server::start();
    let proxy = Proxy::to(&server).await;
    proxy.hold();
    let revision = server.put("k", "v");
    let kv = client([&proxy.address, &server.address]).build().unwrap().kv();
    let mut watch = kv.watch(WatchOptions::key("k").from_revision(1));
    assert_eq!(next_put(&mut watch).await, (revision, "k".into()));
}

#[tokio::test]
async fn a_single_server_has_all_the_time_there_is() {
    let server = Server::start();
    let proxy = Proxy::to(&server).await;
    let kv = client([&proxy.address]).keep_alive_interval(LIMIT).build().unwrap().kv();
    kv.put("k", "v").await.unwrap();
    proxy.hold();
    let mut get = std::pin::pin!(async { kv.get("k").await });
    assert!(tokio::time::timeout(4 * PATIENCE, &mut get).await.is_err(), "there is no answer yet");
    proxy.release();
    assert_eq!(get.await.unwrap().unwrap().value, "v");
    assert_eq!(proxy.connections(), 1, "it was not asked again");
}
