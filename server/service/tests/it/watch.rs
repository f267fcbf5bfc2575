//! Watch, promise by promise.

use std::time::Duration;

use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{self, WatchRequest, WatchResponse, WatchTarget, watch_event, watch_target};
use konsul_service::Limits;
use konsul_state::propose::{BatchSink, ProposeError};
use tonic::{Code, Status, Streaming};

use crate::harness::*;

async fn open(kv: &mut Kv, request: WatchRequest) -> Streaming<WatchResponse> {
    kv.watch(request).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    soon(stream.message()).await.unwrap().expect("the stream goes on")
}

async fn expect(stream: &mut Streaming<WatchResponse>, kind: Kind) -> WatchResponse {
    let message = next(stream).await;
    assert_eq!(message.kind(), kind, "{message:?}");
    message
}

/// Events as `+key=value` and `-key`.
fn events(message: &WatchResponse) -> Vec<String> {
    let event = |event: &v1::WatchEvent| {
        let entry = event.entry.as_ref().unwrap();
        match event.r#type() {
            watch_event::Type::Put => format!("+{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
            watch_event::Type::Delete => format!("-{}", entry.key),
            watch_event::Type::Unspecified => panic!("{event:?}"),
        }
    };
    message.events.iter().map(event).collect()
}

/// Collects a target's events until a revision.
async fn events_until(stream: &mut Streaming<WatchResponse>, revision: u64) -> Vec<String> {
    let mut all = vec![];
    loop {
        let message = expect(stream, Kind::Events).await;
        all.extend(events(&message));
        if message.revision >= revision && !message.fragment {
            return all;
        }
    }
}

fn ended(message: &WatchResponse) -> Refusal {
    let status = message.status.as_ref().unwrap();
    let details = prost::Message::encode_to_vec(status);
    refusal(&Status::with_details(Code::from(status.code), status.message.clone(), details.into()))
}

fn watch_range(id: u64, start: &str, end: &str) -> WatchTarget {
    WatchTarget { id, selector: Some(watch_target::Selector::Range(range(start, end))), ..Default::default() }
}

#[tokio::test]
async fn targets_are_sent_their_changes_and_no_others() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a/0", "early").await;
    let puts = WatchTarget { filter: watch_target::Filter::Puts.into(), ..watch_prefix(4, "") };
    let deletes = WatchTarget { filter: watch_target::Filter::Deletes.into(), ..watch_prefix(5, "") };
    let targets = vec![
        watch_key(1, "a/1"),
        watch_prefix(2, "a/"),
        watch_range(3, "a/1", "b"),
        puts,
        deletes,
        watch_key(0, "b"),
    ];
    let mut stream = open(&mut kv, watching(targets)).await;
    for id in [1, 2, 3, 4, 5, 0] {
        let opened = expect(&mut stream, Kind::Opened).await;
        assert_eq!((opened.target_id, opened.revision), (id, 1));
    }
    for key in ["a/0", "a/1", "b"] {
        put(&mut kv, key, "x").await;
    }
    delete(&mut kv, "a/1").await;
    delete(&mut kv, "a/1").await;
    put(&mut kv, "last", "").await;
    let mut seen = vec![vec![]; 6];
    while seen[4].last() != Some(&"+last=".to_owned()) || seen[5].is_empty() || seen[0].is_empty() {
        let message = expect(&mut stream, Kind::Events).await;
        assert!(!message.fragment);
        seen[message.target_id as usize].extend(events(&message));
    }
    assert_eq!(seen[1], ["+a/1=x", "-a/1"]);
    assert_eq!(seen[2], ["+a/0=x", "+a/1=x", "-a/1"]);
    assert_eq!(seen[3], ["+a/1=x", "-a/1"]);
    assert_eq!(seen[4], ["+a/0=x", "+a/1=x", "+b=x", "+last="]);
    assert_eq!(seen[5], ["-a/1"]);
    assert_eq!(seen[0], ["+b=x"]);
}

#[tokio::test]
async fn a_watch_sees_its_own_namespace_only() {
    let server = start().await;
    let mut kv = server.kv().await;
    let request =
        WatchRequest { namespace: "mine".into(), ..watching(vec![watch_prefix(1, ""), watch_key(2, "a")]) };
    let mut stream = open(&mut kv, request).await;
    expect(&mut stream, Kind::Opened).await;
    expect(&mut stream, Kind::Opened).await;
    put(&mut kv, "a", "elsewhere").await;
    let mine = v1::PutRequest { namespace: "mine".into(), key: "a".into(), ..Default::default() };
    kv.put(mine).await.unwrap();
    for _ in 0..2 {
        let message = expect(&mut stream, Kind::Events).await;
        assert_eq!((message.revision, events(&message)), (2, vec!["+a=".to_owned()]));
    }
}

#[tokio::test]
async fn events_carry_the_entry_and_on_request_the_one_before() {
    let server = start().await;
    let mut kv = server.kv().await;
    let target = WatchTarget { previous: true, ..watch_key(9, "a") };
    let mut stream = open(&mut kv, watching(vec![target])).await;
    expect(&mut stream, Kind::Opened).await;
    put(&mut kv, "a", "1").await;
    let event = next(&mut stream).await.events.remove(0);
    let entry = event.entry.unwrap();
    assert_eq!((entry.mod_revision, entry.create_revision, entry.version), (1, 1, 1));
    assert!(event.previous.is_none() && entry.update_time.is_some());
    put(&mut kv, "a", "2").await;
    let event = next(&mut stream).await.events.remove(0);
    assert_eq!(event.previous.unwrap().value, "1");
    delete(&mut kv, "a").await;
    let event = next(&mut stream).await.events.remove(0);
    assert_eq!(event.previous.unwrap().value, "2");
    let gone = event.entry.unwrap();
    assert_eq!((gone.key.as_str(), gone.mod_revision, gone.version), ("a", 3, 0));
    assert!(gone.value.is_empty() && gone.update_time.is_some());
}

#[tokio::test]
async fn a_start_revision_resumes_from_the_ring_and_from_history() {
    let server = start_with(Limits { watch_ring_batches: 3, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    for i in 1..=20 {
        put(&mut kv, "a", &i.to_string()).await;
        put(&mut kv, "other", "").await;
    }
    assert_eq!(server.hub.stats().ring_batches, 3);
    for start in [1, 2, 20, 37, 38, 39, 40] {
        let target = WatchTarget { start_revision: start, ..watch_key(1, "a") };
        let mut stream = open(&mut kv, watching(vec![target])).await;
        assert_eq!(expect(&mut stream, Kind::Opened).await.revision, start - 1);
        let expected: Vec<_> = (start / 2 + 1..=20).map(|i| format!("+a={i}")).collect();
        if !expected.is_empty() {
            assert_eq!(events_until(&mut stream, 39).await, expected, "from {start}");
        }
    }
    let target = WatchTarget { start_revision: 41, ..watch_key(1, "a") };
    let mut stream = open(&mut kv, watching(vec![target])).await;
    expect(&mut stream, Kind::Opened).await;
    put(&mut kv, "a", "next").await;
    assert_eq!(events_until(&mut stream, 41).await, ["+a=next"]);
}

#[tokio::test]
async fn all_changes_of_a_revision_come_in_one_message() {
    let server = start().await;
    let mut kv = server.kv().await;
    let mut stream = open(&mut kv, watching(vec![watch_prefix(1, "k")])).await;
    expect(&mut stream, Kind::Opened).await;
    let put = |i: usize| v1::PutOperation { key: format!("k{i:03}"), ..Default::default() };
    let batch = v1::BatchPutRequest { puts: (0..256).map(put).collect(), ..Default::default() };
    kv.batch_put(batch).await.unwrap();
    let message = expect(&mut stream, Kind::Events).await;
    assert_eq!((message.events.len(), message.revision, message.fragment), (256, 1, false));
}

#[tokio::test]
async fn a_revision_that_is_too_large_for_a_message_comes_in_marked_fragments() {
    let limits = Limits { watch_fragment_bytes: 10_000, watch_batch_bytes: 5_000, ..Limits::default() };
    let server = start_with(limits).await;
    let mut kv = server.kv().await;
    let batch = |value: usize| {
        let put = |i: usize| v1::PutOperation {
            key: format!("k{i:03}"),
            value: vec![b'x'; value].into(),
            ..Default::default()
        };
        v1::BatchPutRequest { puts: (0..30).map(put).collect(), ..Default::default() }
    };
    put(&mut kv, "k", "before").await;
    kv.batch_put(batch(1000)).await.unwrap();
    put(&mut kv, "k", "after").await;
    for from_history in [false, true] {
        if from_history {
            server.hub.reset(konsul_state::Revision(3));
        }
        let target = WatchTarget { start_revision: 1, ..watch_prefix(1, "k") };
        let mut stream = open(&mut kv, watching(vec![target])).await;
        expect(&mut stream, Kind::Opened).await;
        let before = expect(&mut stream, Kind::Events).await;
        assert_eq!((events(&before), before.fragment, before.revision), (vec!["+k=before".into()], false, 1));
        let mut keys = vec![];
        loop {
            let message = expect(&mut stream, Kind::Events).await;
            assert_eq!(message.revision, 2);
            assert!(prost::Message::encoded_len(&message) < 10_100);
            keys.extend(message.events.iter().map(|e| e.entry.as_ref().unwrap().key.clone()));
            if !message.fragment {
                break;
            }
            assert!(keys.len() < 30);
        }
        assert_eq!(keys, (0..30).map(|i| format!("k{i:03}")).collect::<Vec<_>>());
        assert_eq!(events_until(&mut stream, 3).await, ["+k=after"]);
    }
    // A value that is too large by itself comes alone.
    let request = v1::PutRequest { key: "k".into(), value: vec![0; 50_000].into(), ..Default::default() };
    kv.put(request).await.unwrap();
    let target = WatchTarget { start_revision: 3, ..watch_prefix(1, "k") };
    let mut stream = open(&mut kv, watching(vec![target])).await;
    expect(&mut stream, Kind::Opened).await;
    assert_eq!(expect(&mut stream, Kind::Events).await.events.len(), 1);
    let alone = expect(&mut stream, Kind::Events).await;
    assert_eq!((alone.events.len(), alone.fragment, alone.revision), (1, false, 4));
}

#[tokio::test]
async fn the_initial_state_is_followed_by_what_came_after_it() {
    let server = start_with(Limits { watch_batch_bytes: 2_000, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    for i in 0..100 {
        put(&mut kv, &format!("k{i:02}"), &"v".repeat(100)).await;
    }
    let state = |target| WatchTarget { initial_state: true, ..target };
    let targets = vec![state(watch_prefix(1, "k")), state(watch_key(2, "k07")), state(watch_key(3, "none"))];
    let mut stream = open(&mut kv, watching(targets)).await;
    // The stream's state is pinned; what happens while it is read comes as events.
    for i in 0..100 {
        put(&mut kv, &format!("k{i:02}"), "new").await;
    }
    let mut entries = vec![vec![]; 4];
    let mut synced = [false; 4];
    let mut changed = 0;
    let mut pages = 0;
    while changed < 101 || !synced[3] {
        let message = next(&mut stream).await;
        let target = message.target_id as usize;
        match message.kind() {
            Kind::Opened => assert_eq!(message.revision, 100),
            Kind::State => {
                assert!(!synced[target]);
                assert_eq!(message.revision, 100);
                pages += 1;
                entries[target].extend(message.entries);
            }
            Kind::Synced => {
                assert_eq!(message.revision, 100);
                synced[target] = true;
            }
            Kind::Events => {
                assert!(synced[target]);
                changed += message.events.len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(pages > 3, "the state came in pages");
    assert_eq!(entries[1].len(), 100);
    assert!(entries[1].iter().all(|e| e.value.len() == 100));
    assert_eq!((entries[2].len(), entries[3].len()), (1, 0));
}

#[tokio::test]
async fn an_initial_state_that_is_compacted_while_it_is_read_ends_the_target() {
    let server = start_with(Limits { watch_batch_bytes: 1_000, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    for i in 0..300 {
        put(&mut kv, &format!("k{i:03}"), &"v".repeat(10_000)).await;
    }
    let target = WatchTarget { initial_state: true, ..watch_prefix(1, "k") };
    let mut stream = open(&mut kv, watching(vec![target])).await;
    put(&mut kv, "k", "").await;
    // 3 MB don't fit into what the connection buffers for a reader that has not begun.
    compact(&mut server.admin().await, 301).await;
    let status = soon(async {
        while stream.message().await?.is_some() {}
        Ok::<_, Status>(())
    })
    .await
    .unwrap_err();
    assert_eq!(refusal(&status), refused(Code::OutOfRange, "REVISION_COMPACTED"));
}

#[tokio::test]
async fn progress_tells_how_far_a_quiet_target_is() {
    let server = start().await;
    let mut kv = server.kv().await;
    let request = WatchRequest {
        progress_interval: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
        ..watching(vec![watch_key(1, "a"), watch_key(2, "b")])
    };
    let mut stream = open(&mut kv, request).await;
    expect(&mut stream, Kind::Opened).await;
    expect(&mut stream, Kind::Opened).await;
    for _ in 0..5 {
        put(&mut kv, "quiet", "").await;
    }
    for id in [1, 2, 1, 2] {
        let progress = expect(&mut stream, Kind::Progress).await;
        assert_eq!((progress.target_id, progress.revision), (id, 5));
    }
    put(&mut kv, "b", "x").await;
    let mut told = [0; 3];
    while told[1] < 6 || told[2] < 6 {
        let message = next(&mut stream).await;
        told[message.target_id as usize] = message.revision;
        assert!(message.kind() == Kind::Progress || events(&message) == ["+b=x"]);
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_by_field() {
    let server = start().await;
    let mut kv = server.kv().await;
    let every = |ms: i32| {
        let progress_interval = Some(prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 });
        WatchRequest { progress_interval, ..watching(vec![watch_key(1, "a")]) }
    };
    let one = |target| watching(vec![target]);
    let cases = [
        (watching(vec![]), invalid("targets")),
        (watching((0..1001).map(|id| watch_key(id, "a")).collect()), invalid("targets")),
        (watching(vec![watch_key(1, "a"), watch_key(2, "b"), watch_key(1, "c")]), invalid("targets[2].id")),
        (one(WatchTarget { selector: None, ..watch_key(1, "") }), invalid("targets[0].selector")),
        (one(watch_key(1, "")), invalid("targets[0].key")),
        (one(watch_key(1, &"k".repeat(1025))), invalid("targets[0].key")),
        (one(watch_prefix(1, &"k".repeat(1026))), invalid("targets[0].prefix")),
        (one(watch_range(1, "b", "a")), invalid("targets[0].range.end")),
        (one(WatchTarget { filter: 3, ..watch_key(1, "a") }), invalid("targets[0].filter")),
        (
            one(WatchTarget { start_revision: 1, initial_state: true, ..watch_key(1, "a") }),
            invalid("targets[0].start_revision"),
        ),
        (WatchRequest { namespace: "?".into(), ..one(watch_key(1, "a")) }, invalid("namespace")),
        (every(99), invalid("progress_interval")),
        (every(-1), invalid("progress_interval")),
    ];
    for (request, expected) in cases {
        let status = kv.watch(request).await.unwrap_err();
        assert_eq!(refusal(&status), expected);
    }
    assert_eq!(server.hub.stats().streams, 0);
    kv.watch(watching((0..1000).map(|id| watch_key(id, "a")).collect())).await.unwrap();
}

#[tokio::test]
async fn a_target_that_cannot_go_on_ends_and_the_others_go_on() {
    let server = start().await;
    let mut kv = server.kv().await;
    for i in 1..=5 {
        put(&mut kv, "a", &i.to_string()).await;
    }
    compact(&mut server.admin().await, 3).await;
    let from = |id, start_revision| WatchTarget { start_revision, ..watch_key(id, "a") };
    let mut stream =
        open(&mut kv, watching(vec![from(1, 3), from(2, 7), from(3, 4), from(4, u64::MAX)])).await;
    let mut refusals = vec![];
    let mut seen = vec![];
    while refusals.len() < 3 || seen.len() < 2 {
        let message = next(&mut stream).await;
        match message.kind() {
            Kind::Opened => assert_eq!(message.target_id, 3, "what cannot be opened is not"),
            Kind::Ended => refusals.push((message.target_id, ended(&message))),
            _ => seen.extend(events(&message)),
        }
    }
    let compacted = || refused(Code::OutOfRange, "REVISION_COMPACTED");
    let future = || refused(Code::OutOfRange, "REVISION_IN_FUTURE");
    assert_eq!(refusals, [(1, compacted()), (2, future()), (4, future())]);
    assert_eq!(seen, ["+a=4", "+a=5"]);
    put(&mut kv, "a", "6").await;
    assert_eq!(events(&next(&mut stream).await), ["+a=6"]);

    let mut stream = open(&mut kv, watching(vec![from(1, 1), from(2, 2)])).await;
    expect(&mut stream, Kind::Ended).await;
    expect(&mut stream, Kind::Ended).await;
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(refusal(&status), compacted());
    assert_eq!(metadata(&status, "compact_revision").as_deref(), Some("3"));
}

#[tokio::test]
async fn what_a_new_watch_begins_with_is_linearizable_and_a_resumed_one_needs_no_leader() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    server.consensus.fail(Some(ProposeError::NoLeader));
    let state = WatchTarget { initial_state: true, ..watch_key(1, "a") };
    let ahead = WatchTarget { start_revision: 3, ..watch_key(1, "a") };
    for target in [watch_key(1, "a"), state, ahead] {
        let status = kv.watch(watching(vec![target])).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Code::Unavailable, "NO_LEADER"));
    }
    for start_revision in [1, 2] {
        let target = WatchTarget { start_revision, ..watch_key(1, "a") };
        expect(&mut open(&mut kv, watching(vec![target])).await, Kind::Opened).await;
    }
}

#[tokio::test]
async fn a_stream_that_was_let_in_before_the_stop_does_not_hold_it_up() {
    let server = start().await;
    let mut kv = server.kv().await;
    // Its runtime has no watchers yet; it waits for the barrier when the stop comes.
    server.consensus.hold(true);
    let opening = tokio::spawn(async move { kv.watch(watching(vec![watch_key(1, "k")])).await });
    soon(async {
        while server.hub.stats().streams == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.readers.stop();
    server.consensus.hold(false);
    let refused = match soon(opening).await.unwrap() {
        Ok(stream) => soon(stream.into_inner().message()).await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(refusal(&refused).reason, "SHUTTING_DOWN");
    soon(server.hub.stopped()).await;
}

#[tokio::test]
async fn a_stop_ends_streams_and_opens_no_more() {
    let server = start().await;
    let mut kv = server.kv().await;
    let mut stream = open(&mut kv, watching(vec![watch_key(1, "a")])).await;
    expect(&mut stream, Kind::Opened).await;
    server.hub.stop();
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::Unavailable, "SHUTTING_DOWN"));
    let status = kv.watch(watching(vec![watch_key(1, "a")])).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::Unavailable, "SHUTTING_DOWN"));
    soon(server.hub.stopped()).await;
    assert_eq!(server.hub.stats().streams, 0);
}

#[tokio::test]
async fn after_a_snapshot_watchers_go_on_from_history_or_end() {
    // The hub is told of nothing: the writes stand for those that came with the snapshot.
    let server = start_publishing(Limits::default(), false).await;
    let mut kv = server.kv().await;
    let mut stream = open(&mut kv, watching(vec![watch_key(1, "a"), watch_key(2, "quiet")])).await;
    expect(&mut stream, Kind::Opened).await;
    expect(&mut stream, Kind::Opened).await;
    for i in 1..=3 {
        put(&mut kv, "a", &i.to_string()).await;
    }
    server.hub.reset(konsul_state::Revision(3));
    assert_eq!(events_until(&mut stream, 3).await, ["+a=1", "+a=2", "+a=3"]);
    let read = v1::GetRequest { read: Some(min_revision(3)), ..get("a") };
    assert_eq!(kv.get(read).await.unwrap().into_inner().revision, 3);

    for i in 4..=6 {
        put(&mut kv, "a", &i.to_string()).await;
    }
    compact(&mut server.admin().await, 5).await;
    server.hub.reset(konsul_state::Revision(6));
    for _ in 0..2 {
        let message = expect(&mut stream, Kind::Ended).await;
        assert_eq!(ended(&message), refused(Code::OutOfRange, "REVISION_COMPACTED"));
    }
}

#[tokio::test]
async fn a_quiet_target_outlives_compaction_and_the_ring() {
    let server = start_with(Limits { watch_ring_batches: 2, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    let mut stream = open(&mut kv, watching(vec![watch_key(1, "a")])).await;
    expect(&mut stream, Kind::Opened).await;
    for _ in 0..50 {
        put(&mut kv, "other", "").await;
    }
    soon(async {
        while server.hub.stats().lag_revisions > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    compact(&mut server.admin().await, 50).await;
    server.hub.reset(konsul_state::Revision(50));
    put(&mut kv, "a", "1").await;
    assert_eq!(events_until(&mut stream, 51).await, ["+a=1"]);
}
