//! The SDK against a server that is killed again and again: writes happen once, and watches miss nothing and repeat
//! nothing. (That a killed server loses no acknowledged write is the server's own test; here it is a part.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use konsul_client::{Client, Kv, Operation, PutOperation, WatchEvent, WatchOptions};
use tokio::task::JoinHandle;

use crate::server::Server;

const KILLS: u32 = 6;
const WRITERS: u64 = 4;
/// The last write: watches end when they see it.
const END: &str = "k/end";

fn client(server: &Server) -> Client {
    Client::builder().address(&server.address).timeout(Duration::from_secs(30)).build().unwrap()
}

/// Writes until told to stop, each value once, some with other keys in a transaction. Returns the values.
async fn write(kv: Kv, writer: u64, stop: Arc<AtomicBool>, written: Arc<AtomicU64>) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("k/{writer}/{}", number % 7);
        let value = format!("{writer}-{number}");
        match number % 5 {
            0 => drop(kv.delete(key).await.unwrap()),
            1 => {
                let other = format!("k/{writer}/other");
                let second = format!("{value}-second");
                kv.txn()
                    .then(PutOperation::new(&key, value.clone()))
                    .then(Operation::put(other, second.clone()))
                    .await
                    .unwrap();
                values.extend([value, second]);
            }
            _ => {
                kv.put(key, value.clone()).await.unwrap();
                values.insert(value);
            }
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
    values
}

/// All changes of the prefix, until the last write.
async fn follow_changes(kv: Kv) -> Vec<(u64, String, Option<Bytes>)> {
    let mut watch = kv.watch(WatchOptions::prefix("k/").from_revision(1));
    let mut changes = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Put { entry, .. } if entry.key == END => return changes,
            WatchEvent::Put { revision, entry, .. } => changes.push((revision, entry.key, Some(entry.value))),
            WatchEvent::Delete { revision, entry, .. } => changes.push((revision, entry.key, None)),
            _ => {}
        }
    }
}

/// A copy of the prefix, kept from its state on, until the last write.
async fn follow_state(kv: Kv) -> BTreeMap<String, Bytes> {
    let mut watch = kv.watch(WatchOptions::key(END).and_keys("k/").initial_state());
    let mut copy = BTreeMap::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Reset { target: 1, .. } => copy.clear(),
            WatchEvent::State { target: 1, entry, .. } => drop(copy.insert(entry.key, entry.value)),
            WatchEvent::Put { target: 1, entry, .. } => {
                let end = entry.key == END;
                copy.insert(entry.key, entry.value);
                if end {
                    return copy;
                }
            }
            WatchEvent::Delete { target: 1, entry, .. } => drop(copy.remove(&entry.key)),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_happen_once_and_watches_are_exact_however_often_the_server_dies() {
    let mut server = Server::start();
    let changes: JoinHandle<_> = tokio::spawn(follow_changes(client(&server).kv()));
    let mut copies = Vec::new();
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<JoinHandle<_>> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(client(&server).kv(), writer, stop.clone(), written.clone())))
        .collect();
    for kill in 1..=KILLS {
        // Each life of the server sees some writes, and a watch that begins in it.
        copies.push(tokio::spawn(follow_state(client(&server).kv())));
        let enough = written.load(Ordering::Relaxed) + 50;
        while written.load(Ordering::Relaxed) < enough {
            assert!(writers.iter().all(|writer| !writer.is_finished()), "a writer failed in life {kill}");
            tokio::task::yield_now().await;
        }
        server.kill_and_restart();
    }
    stop.store(true, Ordering::Relaxed);
    let mut values = BTreeSet::new();
    for writer in writers {
        values.extend(writer.await.unwrap());
    }
    let kv = client(&server).kv();
    let last = kv.put(END, "").await.unwrap().revision;

    let changes = changes.await.unwrap();
    let revisions: BTreeSet<u64> = changes.iter().map(|(revision, ..)| *revision).collect();
    assert_eq!(revisions, (1..last).collect(), "every revision was seen");
    assert!(changes.is_sorted_by_key(|(revision, ..)| *revision), "in their order");
    let seen: Vec<String> = changes
        .iter()
        .filter_map(|(.., value)| Some(String::from_utf8(value.clone()?.to_vec()).unwrap()))
        .collect();
    assert_eq!(seen.len(), values.len(), "no write happened twice, and no change came twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), values, "every acknowledged write was seen");

    let state: BTreeMap<String, Bytes> =
        kv.list("k/").all().await.unwrap().into_iter().map(|entry| (entry.key, entry.value)).collect();
    let mut replayed = BTreeMap::from([(END.to_string(), Bytes::new())]);
    for (_, key, value) in changes {
        match value {
            Some(value) => drop(replayed.insert(key, value)),
            None => drop(replayed.remove(&key)),
        }
    }
    assert_eq!(replayed, state, "the changes replay to the state");
    for copy in copies {
        assert_eq!(copy.await.unwrap(), state, "a copy kept from the initial state on equals it");
    }
}
