//! Giving space back: the store's file shrinks while everything goes on, by command and by itself, and a server that dies meanwhile
//! has lost nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use konsul_client::{Client, DeleteOperation, Error, PutOperation};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::durability::seed;
use crate::konsul::{LIMIT, Run};
use crate::server::{Launch, Server};

fn client(server: &Server) -> Client {
    Client::builder().addresses([format!("http://{}", server.address)]).build().unwrap()
}

/// A server whose file is mostly unused, and a hash of what is in it.
async fn full_of_holes(launch: Launch) -> Server {
    let server = launch.set("KONSUL_RAFT_SNAPSHOT_LOG_BYTES", "1GiB").start();
    let client = client(&server);
    for n in 0..60 {
        let puts = (0..10).map(|i| PutOperation::new(format!("much/{n:03}/{i}"), "x".repeat(100_000)));
        client.kv().batch_put(puts).await.unwrap();
    }
    for n in 0..60 {
        let deletes = (0..10).map(|i| DeleteOperation::new(format!("much/{n:03}/{i}")));
        client.kv().batch_delete(deletes).await.unwrap();
    }
    client.kv().put("kept", "1").await.unwrap();
    let revision = client.admin().status().await.unwrap().revision;
    client.admin().compact(revision).await.unwrap();
    let began = Instant::now();
    while server.status().await.store_used_bytes > 4 << 20 {
        assert!(began.elapsed() < LIMIT, "history is not reclaimed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_shrinks_while_writes_go_on() {
    let server = full_of_holes(Server::launch()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (client, stop) = (client(&server), stop.clone());
        async move {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                client.kv().put("counter", n.to_string()).await?;
                n += 1;
            }
            Ok::<u64, Error>(n)
        }
    });
    let told = server.json(&["--timeout", "60s", "defrag"]);
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap().unwrap();
    let bytes = |name: &str| told[name].as_str().unwrap().parse::<u64>().unwrap();
    assert!(bytes("bytesBefore") > 60 << 20 && bytes("bytesAfter") < 40 << 20, "{told}");
    assert!(written > 2, "only {written} writes went on meanwhile");
    assert_eq!(server.ok(&["kv", "get", "counter"]), (written - 1).to_string());
    assert_eq!(server.ok(&["kv", "get", "kept"]), "1");
    // What was applied to the copy is what was applied to the store, and a restart takes it as it is.
    let hash = server.json(&["status"])["stateHash"].clone();
    let mut server = server;
    server.restart();
    assert_eq!(server.json(&["status"])["stateHash"], hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_meanwhile_has_lost_nothing() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut server = full_of_holes(Server::launch().set("KONSUL_STORE_MAX_UNUSED_BYTES", "0B")).await;
    let began = Instant::now();
    server.ok(&["--timeout", "60s", "defrag"]);
    let whole = began.elapsed();
    for round in 0..6 {
        server.put("round", &round.to_string());
        let hash = server.json(&["status"])["stateHash"].clone();
        let mut command = server.command(&["--timeout", "60s", "defrag"]);
        let defrag = tokio::task::spawn_blocking(move || Run::of(&mut command, b""));
        tokio::time::sleep(whole.mul_f64(rng.random_range(0.0..1.2))).await;
        server.kill_and_restart();
        defrag.await.unwrap();
        assert_eq!(server.json(&["status"])["stateHash"], hash, "round {round}");
    }
    server.ok(&["--timeout", "60s", "defrag"]);
    server.terminate();
    server.wait();
    let run = Run::of(crate::konsul::konsul().arg("verify").arg(server.data_dir()), b"");
    assert!(run.success().ends_with("nothing is wrong\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_mostly_unused_shrinks_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let launch = |bytes: &str| {
        Server::launch().data_dir(folder.path().join("data")).set("KONSUL_STORE_MAX_UNUSED_BYTES", bytes)
    };
    let mut server = full_of_holes(launch("0B")).await;
    let before = server.status().await.store_file_bytes;
    assert!(before > 60 << 20, "{before}");
    server.terminate();
    server.wait();
    drop(server);
    // It looks at its start, and every minute from then on.
    let server = launch("8MiB").start();
    let began = Instant::now();
    while !server.log().contains("gave space back to the file system") {
        assert!(began.elapsed() < LIMIT, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(server.status().await.store_file_bytes < 40 << 20);
    assert_eq!(server.ok(&["kv", "get", "kept"]), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_deleting_compacting_and_shrinking_work_and_it_clears_by_itself() {
    let server = Server::launch().set("KONSUL_LIMITS_MAX_STORE_BYTES", "8MiB").start();
    let nearly_full = || {
        let (_, page) = server.page("/metrics").unwrap();
        page.lines().any(|line| line == "konsul_store_nearly_full 1")
    };
    let warnings = || server.json(&["status"])["warnings"].as_array().map_or(0, Vec::len);
    assert!(!nearly_full() && warnings() == 0);
    // It warns while there still is room.
    let kv = client(&server).kv();
    let mut count = 0;
    while warnings() == 0 {
        kv.put(format!("k/{count}"), "x".repeat(50_000)).await.unwrap();
        count += 1;
    }
    assert!(nearly_full());
    let fill = |writer: usize| {
        let kv = client(&server).kv();
        tokio::spawn(async move {
            for count in 0..200 {
                if let Err(error) = kv.put(format!("k{writer}/{count}"), "x".repeat(50_000)).await {
                    return Some(error);
                }
            }
            None
        })
    };
    let writers: Vec<_> = (0..8).map(fill).collect();
    for writer in writers {
        let refused = writer.await.unwrap().expect("there is a limit");
        assert_eq!(refused.reason(), Some("STORE_FULL"));
    }
    let told = server.ok(&["status"]);
    assert!(told.starts_with("warning: the store has"), "{told}");
    // At the limit everything goes on that makes room, and a read.
    assert_eq!(server.ok(&["kv", "get", "k0/0"]).len(), 50_000);
    server.ok(&["defrag"]);
    server.ok(&["kv", "delete", "--prefix", "k"]);
    let revision = server.json(&["status"])["revision"].as_str().unwrap().to_owned();
    server.ok(&["compact", &revision]);
    let began = Instant::now();
    while kv.put("again", "1").await.is_err()
        || warnings() > 0
        || !server.log().contains("the store is nearly full")
    {
        assert!(began.elapsed() < LIMIT, "the limit does not clear");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!nearly_full());
}
