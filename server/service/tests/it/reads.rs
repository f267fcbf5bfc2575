//! Get, BatchGet, List and History: what they return, how they page, and how fresh they are.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use konsul_proto::v1::{self, list_request::Selector};
use konsul_state::propose::{ProposeError, Standing};
use tonic::{Code, Request};

use crate::harness::*;

fn list(prefix: &str) -> v1::ListRequest {
    v1::ListRequest { selector: Some(Selector::Prefix(prefix.into())), ..Default::default() }
}

async fn keys(kv: &mut Kv, request: v1::ListRequest) -> Vec<String> {
    kv.list(request).await.unwrap().into_inner().entries.into_iter().map(|e| e.key).collect()
}

#[tokio::test]
async fn get_returns_everything_of_an_entry_now_and_then() {
    let server = start().await;
    let mut kv = server.kv().await;
    let request = v1::PutRequest {
        key: "a".into(),
        value: "one".into(),
        flags: 7,
        content_type: "text/plain".into(),
        ..Default::default()
    };
    kv.put(request).await.unwrap();
    assert_eq!(put(&mut kv, "a", "two").await, 2);
    let now = kv.get(get("a")).await.unwrap().into_inner();
    assert_eq!(now.revision, 2);
    let entry = now.entry.unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version, entry.flags), (1, 2, 2, 0));
    assert_eq!(entry.value, "two");
    let then = kv.get(v1::GetRequest { revision: 1, ..get("a") }).await.unwrap().into_inner();
    assert_eq!(then.revision, 1);
    let entry = then.entry.unwrap();
    assert_eq!((entry.value, entry.flags, entry.content_type.as_str()), ("one".into(), 7, "text/plain"));
    assert!(entry.update_time.unwrap().seconds > 1_600_000_000);
}

#[tokio::test]
async fn namespaces_are_apart_and_empty_means_default() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "here").await;
    let there = |namespace: &str| v1::GetRequest { namespace: namespace.into(), ..get("a") };
    assert_eq!(kv.get(there("default")).await.unwrap().into_inner().entry.unwrap().value, "here");
    let status = kv.get(there("other")).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::NotFound, "KEY_NOT_FOUND"));
}

#[tokio::test]
async fn reads_refuse_what_they_cannot_serve() {
    let server = start().await;
    let mut kv = server.kv().await;
    let mut admin = server.admin().await;
    for i in 1..=5 {
        put(&mut kv, "a", &i.to_string()).await;
    }
    compact(&mut admin, 3).await;
    let before = server.fingerprint();
    let long = "k".repeat(1025);
    let staleness = |ms: i64, consistency: v1::Consistency| v1::ReadOptions {
        consistency: consistency.into(),
        max_staleness: Some(prost_types::Duration {
            seconds: ms / 1000,
            nanos: (ms % 1000) as i32 * 1_000_000,
        }),
        min_revision: 0,
    };
    let read = |read: v1::ReadOptions| v1::GetRequest { read: Some(read), ..get("a") };
    let gets = [
        (get(""), invalid("key")),
        (get(&long), invalid("key")),
        (get("a\0b"), invalid("key")),
        (get("missing"), refused(Code::NotFound, "KEY_NOT_FOUND")),
        (v1::GetRequest { namespace: "-x".into(), ..get("a") }, invalid("namespace")),
        (v1::GetRequest { namespace: "X".into(), ..get("a") }, invalid("namespace")),
        (v1::GetRequest { revision: 2, ..get("a") }, refused(Code::OutOfRange, "REVISION_COMPACTED")),
        (v1::GetRequest { revision: 6, ..get("a") }, refused(Code::OutOfRange, "REVISION_IN_FUTURE")),
        (v1::GetRequest { revision: u64::MAX, ..get("a") }, refused(Code::OutOfRange, "REVISION_IN_FUTURE")),
        (read(v1::ReadOptions { consistency: 9, ..Default::default() }), invalid("read.consistency")),
        (read(staleness(5, v1::Consistency::Linearizable)), invalid("read.max_staleness")),
        (read(staleness(5, v1::Consistency::Unspecified)), invalid("read.max_staleness")),
        (read(staleness(0, v1::Consistency::Stale)), invalid("read.max_staleness")),
        (read(staleness(-5, v1::Consistency::Stale)), invalid("read.max_staleness")),
        (read(staleness(24 * 3600 * 1000 + 1, v1::Consistency::Stale)), invalid("read.max_staleness")),
        (read(min_revision(5 + 1_000_001)), refused(Code::OutOfRange, "REVISION_IN_FUTURE")),
        (read(min_revision(u64::MAX)), refused(Code::OutOfRange, "REVISION_IN_FUTURE")),
    ];
    for (request, expected) in gets {
        let status = kv.get(request.clone()).await.expect_err(&format!("{request:?}"));
        assert_eq!(refusal(&status), expected, "{request:?}");
        if expected.reason == "REVISION_COMPACTED" {
            assert_eq!(metadata(&status, "compact_revision").as_deref(), Some("3"));
        }
        if expected.reason == "REVISION_IN_FUTURE" {
            assert_eq!(metadata(&status, "current_revision").as_deref(), Some("5"));
        }
    }
    let ranged =
        |start, end| v1::ListRequest { selector: Some(Selector::Range(range(start, end))), ..list("") };
    let counted = |request| v1::ListRequest { count_only: true, ..request };
    let lists = [
        (ranged("b", "a"), invalid("range.end")),
        (ranged("a", "a"), invalid("range.end")),
        (ranged("", &"k".repeat(1026)), invalid("range.end")),
        (ranged(&"k".repeat(1026), ""), invalid("range.start")),
        (list(&"k".repeat(1026)), invalid("prefix")),
        (v1::ListRequest { page_size: 10_001, ..list("") }, invalid("page_size")),
        (v1::ListRequest { order: 7, ..list("") }, invalid("order")),
        (v1::ListRequest { order: 7, ..counted(list("")) }, invalid("order")),
        (v1::ListRequest { separator: "/".repeat(17), ..list("") }, invalid("separator")),
        (v1::ListRequest { separator: "/".into(), ..counted(list("")) }, invalid("separator")),
        (v1::ListRequest { page_size: 1, ..counted(list("")) }, invalid("page_size")),
        (v1::ListRequest { page_token: "x".into(), ..counted(list("")) }, invalid("page_token")),
        (v1::ListRequest { page_token: "x".into(), revision: 4, ..list("") }, invalid("revision")),
        (v1::ListRequest { namespace: "é".into(), ..list("") }, invalid("namespace")),
        (v1::ListRequest { revision: 2, ..list("") }, refused(Code::OutOfRange, "REVISION_COMPACTED")),
        (
            v1::ListRequest { revision: 2, ..counted(list("")) },
            refused(Code::OutOfRange, "REVISION_COMPACTED"),
        ),
        (v1::ListRequest { revision: 9, ..list("") }, refused(Code::OutOfRange, "REVISION_IN_FUTURE")),
    ];
    for (request, expected) in lists {
        let status = kv.list(request.clone()).await.expect_err(&format!("{request:?}"));
        assert_eq!(refusal(&status), expected, "{request:?}");
    }
    let batch = |keys: Vec<String>| v1::BatchGetRequest { keys, ..Default::default() };
    let batches = [
        (batch(vec![]), invalid("keys")),
        (batch(vec!["a".into(); 257]), invalid("keys")),
        (batch(vec!["a".into(), String::new()]), invalid("keys[1]")),
        (
            v1::BatchGetRequest { revision: 1, ..batch(vec!["a".into()]) },
            refused(Code::OutOfRange, "REVISION_COMPACTED"),
        ),
    ];
    for (request, expected) in batches {
        let status = kv.batch_get(request).await.unwrap_err();
        assert_eq!(refusal(&status), expected);
    }
    let history = |key: &str| v1::HistoryRequest { key: key.into(), ..Default::default() };
    let histories = [
        (history(""), invalid("key")),
        (v1::HistoryRequest { order: -1, ..history("a") }, invalid("order")),
        (v1::HistoryRequest { page_size: 1001, ..history("a") }, invalid("page_size")),
    ];
    for (request, expected) in histories {
        let status = kv.history(request).await.unwrap_err();
        assert_eq!(refusal(&status), expected);
    }
    assert_eq!(server.fingerprint(), before);
}

#[tokio::test]
async fn batch_get_answers_in_order_and_names_what_is_missing() {
    let server = start().await;
    let mut kv = server.kv().await;
    for key in ["a", "b", "c"] {
        put(&mut kv, key, key).await;
    }
    let keys = ["c", "x", "a", "y", "c"].map(String::from).to_vec();
    let request = v1::BatchGetRequest { keys, ..Default::default() };
    let answer = kv.batch_get(request.clone()).await.unwrap().into_inner();
    let found: Vec<_> = answer.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(
        (answer.revision, found, answer.missing),
        (3, vec!["c", "a", "c"], vec!["x".into(), "y".into()])
    );
    let past = kv.batch_get(v1::BatchGetRequest { revision: 1, ..request }).await.unwrap().into_inner();
    assert_eq!((past.revision, past.entries.len(), past.missing.len()), (1, 1, 4));
}

#[tokio::test]
async fn list_selects_folds_orders_and_counts() {
    let server = start().await;
    let mut kv = server.kv().await;
    for key in ["a", "app/db/host", "app/db/port", "app/name", "app0", "b"] {
        put(&mut kv, key, key).await;
    }
    assert_eq!(keys(&mut kv, v1::ListRequest::default()).await.len(), 6);
    assert_eq!(keys(&mut kv, list("app/")).await, ["app/db/host", "app/db/port", "app/name"]);
    let descending = v1::ListRequest { order: v1::Order::Descending.into(), ..list("app/") };
    assert_eq!(keys(&mut kv, descending).await, ["app/name", "app/db/port", "app/db/host"]);
    let ranged =
        v1::ListRequest { selector: Some(Selector::Range(range("app/n", "b"))), ..Default::default() };
    assert_eq!(keys(&mut kv, ranged).await, ["app/name", "app0"]);
    let after_a = v1::ListRequest { selector: Some(Selector::Range(range("a\0", ""))), ..Default::default() };
    assert_eq!(keys(&mut kv, after_a).await.len(), 5);
    let folders = v1::ListRequest { separator: "/".into(), ..list("app/") };
    let folders = kv.list(folders).await.unwrap().into_inner();
    assert_eq!((folders.common_prefixes, folders.count), (vec!["app/db/".to_owned()], 2));
    assert_eq!(folders.entries[0].key, "app/name");
    let bare = kv.list(v1::ListRequest { keys_only: true, ..list("b") }).await.unwrap().into_inner();
    assert!(bare.entries[0].value.is_empty() && bare.entries[0].mod_revision == 6);
    let counted = v1::ListRequest { count_only: true, ..list("app") };
    let counted = kv.list(counted).await.unwrap().into_inner();
    assert_eq!((counted.count, counted.entries.len(), counted.revision), (4, 0, 6));
    let past = v1::ListRequest { count_only: true, revision: 2, ..list("app") };
    assert_eq!(kv.list(past).await.unwrap().into_inner().count, 1);
}

#[tokio::test]
async fn the_pages_of_a_listing_are_one_snapshot() {
    let server = start().await;
    let mut kv = server.kv().await;
    for i in 0..25 {
        put(&mut kv, &format!("k{i:02}"), "old").await;
    }
    for order in [v1::Order::Ascending, v1::Order::Descending] {
        let mut request = v1::ListRequest { page_size: 10, order: order.into(), ..list("k") };
        let mut seen = vec![];
        let first = kv.list(request.clone()).await.unwrap().into_inner();
        let pinned = first.revision;
        let mut page = first;
        loop {
            assert_eq!(page.revision, pinned);
            seen.extend(page.entries.iter().map(|e| (e.key.clone(), e.value.clone())));
            if page.next_page_token.is_empty() {
                break;
            }
            put(&mut kv, "k07", "new").await;
            put(&mut kv, &format!("k-new-{}", seen.len()), "new").await;
            delete(&mut kv, "k12").await;
            request.page_token = page.next_page_token.clone();
            request.page_size = 7;
            page = kv.list(request.clone()).await.unwrap().into_inner();
        }
        let whole = v1::ListRequest { revision: pinned, order: order.into(), ..list("k") };
        let whole = kv.list(whole).await.unwrap().into_inner();
        let whole: Vec<_> = whole.entries.into_iter().map(|e| (e.key, e.value)).collect();
        assert!(whole.len() >= 24);
        assert_eq!(seen, whole);
    }
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_request_only() {
    let server = start().await;
    let mut kv = server.kv().await;
    for i in 0..5 {
        put(&mut kv, &format!("k{i}"), "v").await;
    }
    put(&mut kv, "k0", "again").await;
    let first = v1::ListRequest { page_size: 2, ..list("k") };
    let token = kv.list(first.clone()).await.unwrap().into_inner().next_page_token;
    let history = v1::HistoryRequest { key: "k0".into(), page_size: 1, ..Default::default() };
    let versions = kv.history(history.clone()).await.unwrap().into_inner().next_page_token;
    assert!(!token.is_empty() && !versions.is_empty());
    let bad = Refusal {
        code: Code::InvalidArgument,
        reason: "INVALID_PAGE_TOKEN".into(),
        fields: vec!["page_token".into()],
    };
    let with =
        |token: &str, request: v1::ListRequest| v1::ListRequest { page_token: token.into(), ..request };
    let mut tampered = token.clone().into_bytes();
    tampered[3] = if tampered[3] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let others = [
        with(&token, v1::ListRequest { keys_only: true, ..first.clone() }),
        with(&token, v1::ListRequest { order: v1::Order::Descending.into(), ..first.clone() }),
        with(&token, v1::ListRequest { namespace: "other".into(), ..first.clone() }),
        with(&token, v1::ListRequest { separator: "/".into(), ..first.clone() }),
        with(&token, list("k0")),
        with(&versions, first.clone()),
        with(&tampered, first.clone()),
        with(&token[..token.len() - 1], first.clone()),
        with("no token", first.clone()),
        with(&"A".repeat(3000), first.clone()),
    ];
    for request in others {
        let status = kv.list(request.clone()).await.expect_err(&format!("{request:?}"));
        assert_eq!(refusal(&status), bad, "{request:?}");
    }
    let status = kv.history(v1::HistoryRequest { page_token: token.clone(), ..history }).await.unwrap_err();
    assert_eq!(refusal(&status), bad);
    let next = with(&token, v1::ListRequest { read: Some(stale()), page_size: 9, ..first });
    assert_eq!(keys(&mut kv, next.clone()).await, ["k2", "k3", "k4"]);
    put(&mut kv, "other", "v").await;
    compact(&mut server.admin().await, 7).await;
    let status = kv.list(next).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::OutOfRange, "REVISION_COMPACTED"));
}

#[tokio::test]
async fn history_tells_every_version_in_pages() {
    let server = start().await;
    let mut kv = server.kv().await;
    for i in 1..=4 {
        put(&mut kv, "a", &i.to_string()).await;
        put(&mut kv, "other", "x").await;
    }
    delete(&mut kv, "a").await;
    put(&mut kv, "a", "back").await;
    let history = v1::HistoryRequest { key: "a".into(), page_size: 4, ..Default::default() };
    let first = kv.history(history.clone()).await.unwrap().into_inner();
    let revisions = |page: &v1::HistoryResponse| page.versions.iter().map(|v| v.revision).collect::<Vec<_>>();
    assert_eq!((revisions(&first), first.revision, first.compact_revision), (vec![10, 9, 7, 5], 10, 0));
    assert!(
        first.versions[1].deleted && first.versions[1].entry.is_none() && first.versions[1].time.is_some()
    );
    assert_eq!(first.versions[0].entry.as_ref().unwrap().version, 1);
    put(&mut kv, "a", "later").await;
    let rest = v1::HistoryRequest { page_token: first.next_page_token, ..history.clone() };
    let rest = kv.history(rest).await.unwrap().into_inner();
    assert_eq!((revisions(&rest), rest.revision, rest.next_page_token.as_str()), (vec![3, 1], 10, ""));
    let ascending =
        v1::HistoryRequest { order: v1::Order::Ascending.into(), page_size: 0, ..history.clone() };
    compact(&mut server.admin().await, 5).await;
    let oldest = kv.history(ascending).await.unwrap().into_inner();
    assert_eq!((revisions(&oldest), oldest.compact_revision), (vec![7, 9, 10, 11], 5));
    let nothing = v1::HistoryRequest { key: "never".into(), ..Default::default() };
    assert!(kv.history(nothing).await.unwrap().into_inner().versions.is_empty());
}

#[tokio::test]
async fn a_linearizable_read_needs_consensus_and_a_stale_one_does_not() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "v").await;
    server.consensus.fail(Some(ProposeError::NoLeader));
    let status = kv.get(get("a")).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::Unavailable, "NO_LEADER"));
    let read = |read| v1::GetRequest { read: Some(read), ..get("a") };
    kv.get(read(stale())).await.unwrap();
    let within = |ms: i64| {
        let max_staleness = Some(prost_types::Duration { seconds: 0, nanos: ms as i32 * 1_000_000 });
        read(v1::ReadOptions { max_staleness, ..stale() })
    };
    for (last_contact_ms, served) in [(Some(50), true), (Some(51), false), (None, false)] {
        server.consensus.stand(Standing { last_contact_ms, ..Default::default() });
        match kv.get(within(50)).await {
            Ok(_) => assert!(served, "{last_contact_ms:?}"),
            Err(status) => {
                assert!(!served, "{last_contact_ms:?}");
                assert_eq!(refusal(&status), refused(Code::Unavailable, "STALE_READ_TOO_OLD"));
            }
        }
    }
}

#[tokio::test]
async fn min_revision_waits_until_it_is_applied() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    let mut waiting = kv.clone();
    let read = v1::GetRequest { read: Some(min_revision(3)), ..get("a") };
    let waits = tokio::spawn(async move { waiting.get(read).await });
    put(&mut kv, "a", "2").await;
    assert!(!waits.is_finished());
    put(&mut kv, "a", "3").await;
    let answer = soon(waits).await.unwrap().unwrap().into_inner();
    assert_eq!((answer.revision, answer.entry.unwrap().value), (3, "3".into()));

    let mut late = Request::new(v1::GetRequest { read: Some(min_revision(9)), ..get("a") });
    late.set_timeout(Duration::from_millis(50));
    let status = server.in_process().get(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    server.hub.stop();
    let status = kv.get(v1::GetRequest { read: Some(min_revision(9)), ..get("a") }).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::Unavailable, "SHUTTING_DOWN"));
}

#[tokio::test]
async fn a_count_of_many_keys_goes_in_steps_at_one_revision() {
    let server = start().await;
    let mut kv = server.kv().await;
    // More than one step looks at.
    let puts = |from: usize| {
        let put = |i: usize| v1::PutOperation { key: format!("k{:06}", from + i), ..Default::default() };
        v1::BatchPutRequest { puts: (0..250).map(put).collect(), ..Default::default() }
    };
    for from in (0..50_000).step_by(250) {
        kv.batch_put(puts(from)).await.unwrap();
    }
    let counted = v1::ListRequest { count_only: true, ..list("k") };
    let answer = kv.list(counted.clone()).await.unwrap().into_inner();
    assert_eq!((answer.count, answer.revision), (50_000, 200));
    let past = kv.list(v1::ListRequest { revision: 100, ..counted }).await.unwrap().into_inner();
    assert_eq!((past.count, past.revision), (25_000, 100));
    let mut request = v1::ListRequest { page_size: 10_000, keys_only: true, ..list("k") };
    let mut listed = 0;
    loop {
        let page = kv.list(request.clone()).await.unwrap().into_inner();
        listed += page.entries.len();
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, 50_000);
}

#[tokio::test]
async fn a_time_is_found_as_a_revision_until_it_is_compacted() {
    let server = start().await;
    let (mut kv, mut admin) = (server.kv().await, server.admin().await);
    let find = |time| v1::FindRevisionRequest { time, ..Default::default() };
    let at =
        |ms: i64| Some(prost_types::Timestamp { seconds: ms / 1000, nanos: (ms % 1000) as i32 * 1_000_000 });
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let before = now() - 1;
    for n in 1..=3 {
        put(&mut kv, "k", &n.to_string()).await;
    }
    let newest = kv.get(get("k")).await.unwrap().into_inner().entry.unwrap().update_time;
    assert_eq!(kv.find_revision(find(newest)).await.unwrap().into_inner().revision, 3);
    assert_eq!(kv.find_revision(find(at(now() + 60_000))).await.unwrap().into_inner().revision, 3);
    assert_eq!(kv.find_revision(find(at(before))).await.unwrap().into_inner().revision, 0);
    for time in [None, Some(prost_types::Timestamp { seconds: -1, nanos: 0 })] {
        assert_eq!(refusal(&kv.find_revision(find(time)).await.unwrap_err()), invalid("time"));
    }
    compact(&mut admin, 2).await;
    let gone = kv.find_revision(find(at(before))).await.unwrap_err();
    assert_eq!(refusal(&gone), refused(Code::OutOfRange, "REVISION_COMPACTED"));
    assert_eq!(kv.find_revision(find(newest)).await.unwrap().into_inner().revision, 3);
    // The newest revision is known to be of now, even if its changes are not known any more.
    compact(&mut admin, 3).await;
    let now = at(now() + 60_000);
    assert_eq!(kv.find_revision(find(now)).await.unwrap().into_inner().revision, 3);
    let gone = kv.find_revision(find(at(before))).await.unwrap_err();
    assert_eq!(refusal(&gone), refused(Code::OutOfRange, "REVISION_COMPACTED"));
}
