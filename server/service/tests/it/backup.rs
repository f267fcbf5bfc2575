//! Backups streamed out and restored, as callers and watchers see it.

use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{self, WatchResponse, WatchTarget};
use konsul_service::Limits;
use tonic::{Code, Streaming};

use crate::harness::*;

async fn save(admin: &mut Admin) -> Vec<u8> {
    let mut stream = admin.snapshot(v1::SnapshotRequest::default()).await.unwrap().into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = soon(stream.message()).await.unwrap() {
        bytes.extend_from_slice(&message.chunk);
    }
    bytes
}

fn messages(bytes: &[u8]) -> Vec<v1::RestoreRequest> {
    let message = |chunk: &[u8]| v1::RestoreRequest { chunk: chunk.to_vec().into(), other_cluster: false };
    bytes.chunks(100_000).map(message).collect()
}

async fn restore(admin: &mut Admin, bytes: &[u8]) -> Result<v1::RestoreResponse, tonic::Status> {
    let restored = admin.restore(tokio_stream::iter(messages(bytes))).await;
    restored.map(tonic::Response::into_inner)
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    soon(stream.message()).await.unwrap().expect("the stream goes on")
}

/// Follows a stream until a RESYNC is complete, and returns its revision and the entries.
async fn resynced(stream: &mut Streaming<WatchResponse>) -> (u64, Vec<(String, String)>) {
    let (mut revision, mut entries) = (0, Vec::new());
    loop {
        let message = next(stream).await;
        match message.kind() {
            Kind::Resync => {
                revision = message.revision;
                entries.clear();
            }
            Kind::Synced if revision > 0 => {
                assert_eq!(message.revision, revision);
                return (revision, entries);
            }
            Kind::State => {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                entries.extend(message.entries.iter().map(|e| (e.key.clone(), text(&e.value))));
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_restore_brings_the_store_back_and_tells_every_watcher() {
    let server = start().await;
    let (mut kv, mut admin) = (server.kv().await, server.admin().await);
    put(&mut kv, "a", "1").await;
    put(&mut kv, "b", "1").await;
    put(&mut kv, "c/1", &"x".repeat(300_000)).await;
    let backup = save(&mut admin).await;
    let (state, before) = (server.state.clone(), server.state.view().unwrap().revision().0);
    // One that only follows, one that has the state, one behind it that reads nothing meanwhile.
    let with_state = WatchTarget { initial_state: true, ..watch_prefix(2, "") };
    let mut live = kv.watch(watching(vec![watch_prefix(1, "")])).await.unwrap().into_inner();
    let mut full = kv.watch(watching(vec![with_state])).await.unwrap().into_inner();
    let from_the_first = WatchTarget { start_revision: 1, ..watch_prefix(3, "") };
    let mut slow = kv.watch(watching(vec![from_the_first.clone()])).await.unwrap().into_inner();
    assert_eq!(next(&mut live).await.kind(), Kind::Opened);
    put(&mut kv, "a", "2").await;
    delete(&mut kv, "b").await;
    put(&mut kv, "d", "later").await;
    let restored = restore(&mut admin, &backup).await.unwrap();
    assert_eq!((restored.backup_revision, restored.revision, restored.entries), (before, before + 4, 3));
    let kept: Vec<(String, String)> =
        [("a", "1"), ("b", "1"), ("c/1", &"x".repeat(300_000))].map(|(k, v)| (k.into(), v.into())).into();
    for stream in [&mut live, &mut full, &mut slow] {
        assert_eq!(resynced(stream).await, (restored.revision, kept.clone()));
    }
    // Who comes back with a revision of before is told, too.
    let mut back = kv.watch(watching(vec![from_the_first])).await.unwrap().into_inner();
    assert_eq!(next(&mut back).await.kind(), Kind::Opened);
    assert_eq!(resynced(&mut back).await.0, restored.revision);
    // And then changes come as ever.
    let revision = put(&mut kv, "a", "3").await;
    assert_eq!(revision, restored.revision + 1);
    for stream in [&mut live, &mut full, &mut slow, &mut back] {
        let message = next(stream).await;
        assert_eq!((message.kind(), message.revision), (Kind::Events, revision));
    }
    let past = kv.get(v1::GetRequest { revision: before, ..get("a") }).await.unwrap_err();
    assert_eq!(refusal(&past), refused(Code::OutOfRange, "REVISION_COMPACTED"));
    assert_eq!(state.view().unwrap().verify().unwrap(), []);
}

#[tokio::test]
async fn what_cannot_be_restored_changes_nothing() {
    let server = start().await;
    let (mut kv, mut admin) = (server.kv().await, server.admin().await);
    for n in 0..20 {
        put(&mut kv, &format!("k{n}"), &"x".repeat(30_000)).await;
    }
    let backup = save(&mut admin).await;
    put(&mut kv, "k0", "mine").await;
    let before = server.fingerprint();
    let mut flipped = backup.clone();
    flipped[backup.len() / 2] ^= 1;
    let mut other = backup.clone();
    other.truncate(backup.len() - 1);
    for bad in [&backup[..0], &backup[..10], &other, &flipped, b"something else".as_slice()] {
        let error = restore(&mut admin, bad).await.unwrap_err();
        assert_eq!(refusal(&error), refused(Code::InvalidArgument, "BACKUP_UNREADABLE"));
        assert_eq!(server.fingerprint(), before);
        assert!(server.state.view().unwrap().restoring().is_none(), "it was given up");
    }
    // A caller who goes away in the middle has changed nothing either, and is no obstacle.
    let (send, receive) = tokio::sync::mpsc::channel(1);
    let mut client = admin.clone();
    let broken =
        tokio::spawn(
            async move { client.restore(tokio_stream::wrappers::ReceiverStream::new(receive)).await },
        );
    send.send(messages(&backup).remove(0)).await.unwrap();
    soon(async {
        while server.state.view().unwrap().restoring().is_none() {
            tokio::task::yield_now().await
        }
    })
    .await;
    broken.abort();
    soon(async {
        while server.state.view().unwrap().restoring().is_some() {
            tokio::task::yield_now().await
        }
    })
    .await;
    assert_eq!(server.fingerprint(), before);
    restore(&mut admin, &backup).await.unwrap();
    assert_eq!(kv.get(get("k0")).await.unwrap().into_inner().entry.unwrap().value.len(), 30_000);
}

#[tokio::test]
async fn a_watch_that_sees_the_restore_before_its_hub_is_told_is_resynced_too() {
    // The hub of this server is told of nothing.
    let server = start_publishing(Limits::default(), false).await;
    let (mut kv, mut admin) = (server.kv().await, server.admin().await);
    put(&mut kv, "first", "1").await;
    let backup = save(&mut admin).await;
    for n in 0..20 {
        put(&mut kv, &format!("k{n:02}"), &"x".repeat(500_000)).await;
    }
    // In the middle of its initial state.
    let with_state = WatchTarget { initial_state: true, ..watch_prefix(1, "") };
    let mut watching_kv = server.kv().await;
    let mut stream = watching_kv.watch(watching(vec![with_state])).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.kind(), Kind::Opened);
    let restored = restore(&mut admin, &backup).await.unwrap();
    let (revision, entries) = resynced(&mut stream).await;
    assert_eq!((revision, entries), (restored.revision, vec![("first".into(), "1".into())]));
}

#[tokio::test]
async fn a_full_store_is_restored_but_not_to_more_than_its_limit() {
    let limits = Limits { max_store_bytes: 2 << 20, ..Limits::default() };
    let full = start_with(limits).await;
    let (mut kv, mut admin) = (full.kv().await, full.admin().await);
    let value = "x".repeat(10_000);
    let mut count = 0;
    loop {
        let (key, value) = (format!("k{count:03}"), value.clone().into());
        match kv.put(v1::PutRequest { key, value, ..Default::default() }).await {
            Ok(_) => count += 1,
            Err(error) => break assert_eq!(refusal(&error).reason, "STORE_FULL"),
        }
        assert!(count < 1_000, "the limit is never reached");
    }
    let backup = save(&mut admin).await;
    assert_eq!(restore(&mut admin, &backup).await.unwrap().entries, count);
    // Without history there is room again.
    put(&mut kv, "again", "1").await;
    let great = start().await;
    let mut elsewhere = great.kv().await;
    for n in 0..300 {
        put(&mut elsewhere, &format!("k{n:03}"), &value).await;
    }
    let backup = save(&mut great.admin().await).await;
    let before = full.fingerprint();
    let error = restore(&mut admin, &backup).await.unwrap_err();
    assert_eq!(refusal(&error), refused(Code::ResourceExhausted, "STORE_FULL"));
    assert_eq!(full.fingerprint(), before);
    let view = full.state.view().unwrap();
    assert!(view.restoring().is_none());
    assert_eq!((view.staged_bytes().unwrap(), view.verify().unwrap()), (0, vec![]));
}

#[tokio::test]
async fn so_many_backups_are_streamed_at_a_time() {
    let server = start().await;
    let (mut kv, mut admin) = (server.kv().await, server.admin().await);
    for n in 0..200 {
        put(&mut kv, &format!("k{n}"), &"x".repeat(100_000)).await;
    }
    let mut streams = Vec::new();
    for _ in 0..4 {
        // On a connection of its own, whose window no other stream fills.
        let mut admin = server.admin().await;
        streams.push(admin.snapshot(v1::SnapshotRequest::default()).await.unwrap().into_inner());
    }
    let error = admin.snapshot(v1::SnapshotRequest::default()).await.unwrap_err();
    assert_eq!(refusal(&error).reason, "TOO_MANY_SNAPSHOTS");
    // Written meanwhile, and in none of them.
    put(&mut kv, "later", "1").await;
    let mut sizes = Vec::new();
    for mut stream in streams {
        let mut bytes = 0;
        while let Some(message) = soon(stream.message()).await.unwrap() {
            bytes += message.chunk.len();
        }
        sizes.push(bytes);
    }
    assert!(sizes.iter().all(|bytes| *bytes == sizes[0] && *bytes > 20_000_000), "{sizes:?}");
    soon(async { while admin.snapshot(v1::SnapshotRequest::default()).await.is_err() {} }).await;
}
