//! Put, Delete, DeleteRange, BatchPut, BatchDelete: what they do, what they refuse, and that a retry does nothing.

use konsul_proto::v1::{self, delete_range_request::Selector};
use konsul_state::propose::ProposeError;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::harness::*;

fn put_request(key: &str, value: &str) -> v1::PutRequest {
    v1::PutRequest { key: key.into(), value: value.to_owned().into(), ..Default::default() }
}

fn put_operation(key: &str, value: &str) -> v1::PutOperation {
    v1::PutOperation { key: key.into(), value: value.to_owned().into(), ..Default::default() }
}

fn delete_operation(key: &str) -> v1::DeleteOperation {
    v1::DeleteOperation { key: key.into(), ..Default::default() }
}

fn delete_prefix(prefix: &str) -> v1::DeleteRangeRequest {
    v1::DeleteRangeRequest { selector: Some(Selector::Prefix(prefix.into())), ..Default::default() }
}

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

#[tokio::test]
async fn every_write_that_changes_something_takes_one_revision() {
    let server = start().await;
    let mut kv = server.kv().await;
    assert_eq!(put(&mut kv, "a", "1").await, 1);
    assert_eq!(put(&mut kv, "a", "1").await, 2, "the same value again is a change");
    let answer =
        kv.put(v1::PutRequest { previous: true, ..put_request("a", "2") }).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.previous.unwrap().version), (3, 2));
    let answer =
        kv.put(v1::PutRequest { previous: true, ..put_request("b", "") }).await.unwrap().into_inner();
    assert!(answer.previous.is_none());
    let missing = v1::DeleteRequest { key: "missing".into(), previous: true, ..Default::default() };
    let answer = kv.delete(missing).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.deleted, answer.previous), (4, 0, None));
    let there = v1::DeleteRequest { key: "a".into(), previous: true, ..Default::default() };
    let answer = kv.delete(there).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.deleted), (5, 1));
    assert_eq!(answer.previous.unwrap().value, "2");
    let batch = v1::BatchPutRequest {
        puts: vec![put_operation("x/1", "1"), v1::PutOperation { previous: true, ..put_operation("b", "2") }],
        ..Default::default()
    };
    let answer = kv.batch_put(batch).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.results.len()), (6, 2));
    assert!(answer.results[0].previous.is_none() && answer.results[1].previous.is_some());
    let batch = v1::BatchDeleteRequest {
        deletes: vec![delete_operation("x/1"), delete_operation("none")],
        ..Default::default()
    };
    let answer = kv.batch_delete(batch).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.results[0].deleted, answer.results[1].deleted), (7, 1, 0));
    for key in ["y/1", "y/2", "z"] {
        put(&mut kv, key, key).await;
    }
    let answer = kv.delete_range(v1::DeleteRangeRequest { previous: true, ..delete_prefix("y/") }).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((answer.revision, answer.deleted, answer.previous.len()), (11, 2, 2));
    assert_eq!(answer.previous[0].key, "y/1");
    let ranged =
        v1::DeleteRangeRequest { selector: Some(Selector::Range(range("b", ""))), ..Default::default() };
    assert_eq!(kv.delete_range(ranged).await.unwrap().into_inner().deleted, 2);
    let nothing = kv.delete_range(delete_prefix("")).await.unwrap().into_inner();
    assert_eq!((nothing.revision, nothing.deleted), (12, 0));
}

#[tokio::test]
async fn preconditions_decide_and_tell_what_was_found() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    put(&mut kv, "a", "2").await;
    let when =
        |p: v1::Precondition, key: &str| v1::PutRequest { precondition: Some(p), ..put_request(key, "3") };
    let p = v1::Precondition::default();
    let cases = [
        (v1::Precondition { exists: Some(false), ..p.clone() }, "a", "EXISTS", "2"),
        (v1::Precondition { exists: Some(true), ..p.clone() }, "b", "EXISTS", "0"),
        (v1::Precondition { mod_revision: Some(1), ..p.clone() }, "a", "MOD_REVISION", "2"),
        (v1::Precondition { mod_revision: Some(0), ..p.clone() }, "a", "MOD_REVISION", "2"),
        (v1::Precondition { version: Some(3), ..p.clone() }, "a", "VERSION", "2"),
        (v1::Precondition { value: Some("1".into()), ..p.clone() }, "a", "VALUE", "2"),
        (v1::Precondition { value: Some("".into()), ..p.clone() }, "b", "VALUE", "0"),
    ];
    let before = server.fingerprint();
    for (precondition, key, kind, current) in cases {
        let delete = v1::DeleteRequest {
            key: key.into(),
            precondition: Some(precondition.clone()),
            ..Default::default()
        };
        let statuses = [
            kv.put(when(precondition.clone(), key)).await.unwrap_err(),
            kv.delete(delete).await.unwrap_err(),
        ];
        for status in statuses {
            assert_eq!(refusal(&status), refused(Code::FailedPrecondition, "PRECONDITION_FAILED"));
            assert_eq!(metadata(&status, "current_revision").as_deref(), Some(current), "{precondition:?}");
            let details = status.get_error_details();
            let violation = &details.precondition_failure().unwrap().violations[0];
            assert_eq!((violation.r#type.as_str(), violation.subject.as_str()), (kind, key));
        }
    }
    assert_eq!(server.fingerprint(), before);
    let all = v1::Precondition {
        exists: Some(true),
        mod_revision: Some(2),
        version: Some(2),
        value: Some("2".into()),
        lease: Some(0),
        fence: None,
    };
    assert_eq!(kv.put(when(all, "a")).await.unwrap().into_inner().revision, 3);
    let fresh = v1::Precondition {
        mod_revision: Some(0),
        version: Some(0),
        exists: Some(false),
        ..Default::default()
    };
    assert_eq!(kv.put(when(fresh, "b")).await.unwrap().into_inner().revision, 4);

    let changed =
        kv.delete_range(v1::DeleteRangeRequest { unchanged_since: Some(3), ..delete_prefix("") }).await;
    let status = changed.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::FailedPrecondition, "PRECONDITION_FAILED"));
    let batch = v1::BatchPutRequest {
        puts: vec![
            put_operation("c", "1"),
            v1::PutOperation {
                precondition: Some(v1::Precondition { exists: Some(false), ..p }),
                ..put_operation("a", "1")
            },
        ],
        ..Default::default()
    };
    let status = kv.batch_put(batch).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::FailedPrecondition, "PRECONDITION_FAILED"));
    assert_eq!(server.fingerprint().0, 4, "one failed precondition, and nothing of the batch happens");
    let deleted =
        kv.delete_range(v1::DeleteRangeRequest { unchanged_since: Some(4), ..delete_prefix("") }).await;
    assert_eq!(deleted.unwrap().into_inner().deleted, 2);
}

#[tokio::test]
async fn malformed_writes_are_refused_by_field_and_change_nothing() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    let before = server.fingerprint();
    let long = "k".repeat(1025);
    let puts = [
        (put_request("", ""), invalid("key")),
        (put_request(&long, ""), invalid("key")),
        (put_request("a\0", ""), invalid("key")),
        (v1::PutRequest { namespace: "a b".into(), ..put_request("a", "") }, invalid("namespace")),
        (v1::PutRequest { namespace: "n".repeat(65), ..put_request("a", "") }, invalid("namespace")),
        (v1::PutRequest { content_type: "c".repeat(129), ..put_request("a", "") }, invalid("content_type")),
    ];
    for (request, expected) in puts {
        assert_eq!(refusal(&kv.put(request).await.unwrap_err()), expected);
    }
    let delete = v1::DeleteRequest { key: long.clone(), ..Default::default() };
    assert_eq!(refusal(&kv.delete(delete).await.unwrap_err()), invalid("key"));
    let ranges = [
        (v1::DeleteRangeRequest::default(), invalid("selector")),
        (delete_prefix(&"k".repeat(1026)), invalid("prefix")),
        (
            v1::DeleteRangeRequest { selector: Some(Selector::Range(range("b", "a"))), ..Default::default() },
            invalid("range.end"),
        ),
    ];
    for (request, expected) in ranges {
        assert_eq!(refusal(&kv.delete_range(request).await.unwrap_err()), expected);
    }
    let puts = |puts| v1::BatchPutRequest { puts, ..Default::default() };
    let batches = [
        (puts(vec![]), invalid("puts")),
        (puts((0..257).map(|i| put_operation(&i.to_string(), "")).collect()), invalid("puts")),
        (puts(vec![put_operation("a", ""), put_operation("", "")]), invalid("puts[1].key")),
        (
            puts(vec![put_operation("a", ""), put_operation("b", ""), put_operation("a", "")]),
            invalid("puts[2].key"),
        ),
        (
            puts(vec![v1::PutOperation { content_type: "c".repeat(129), ..put_operation("a", "") }]),
            invalid("puts[0].content_type"),
        ),
    ];
    for (request, expected) in batches {
        assert_eq!(refusal(&kv.batch_put(request).await.unwrap_err()), expected);
    }
    let deletes = |deletes| v1::BatchDeleteRequest { deletes, ..Default::default() };
    let batches = [
        (deletes(vec![]), invalid("deletes")),
        (deletes(vec![delete_operation("a"); 257]), invalid("deletes")),
        (deletes(vec![delete_operation("a"), delete_operation("a")]), invalid("deletes[1].key")),
        (deletes(vec![delete_operation("")]), invalid("deletes[0].key")),
    ];
    for (request, expected) in batches {
        assert_eq!(refusal(&kv.batch_delete(request).await.unwrap_err()), expected);
    }
    assert_eq!(server.fingerprint(), before);
}

#[tokio::test]
async fn a_retry_with_the_same_idempotency_key_changes_nothing() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "before").await;
    let request = v1::PutRequest { previous: true, ..put_request("a", "after") };
    let first = kv.put(with_key(request.clone(), "one")).await.unwrap().into_inner();
    put(&mut kv, "a", "later").await;
    let retried = kv.put(with_key(request.clone(), "one")).await.unwrap().into_inner();
    assert_eq!(retried, first);
    assert_eq!(server.fingerprint().0, 3);
    assert_eq!(kv.put(with_key(request, "two")).await.unwrap().into_inner().revision, 4);
    let status = kv.put(with_key(put_request("b", "other"), "one")).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED"));
    let delete = v1::DeleteRequest { key: "a".into(), ..Default::default() };
    for _ in 0..2 {
        let deleted = kv.delete(with_key(delete.clone(), "three")).await.unwrap().into_inner();
        assert_eq!((deleted.revision, deleted.deleted), (5, 1));
    }
}

#[tokio::test]
async fn a_malformed_idempotency_key_is_refused() {
    let server = start().await;
    let mut kv = server.kv().await;
    let before = server.fingerprint();
    let mut twice = with_key(put_request("a", ""), "one");
    twice.metadata_mut().append("idempotency-key", "two".parse().unwrap());
    let mut not_ascii = Request::new(put_request("a", ""));
    let opaque = tonic::metadata::MetadataValue::try_from(&b"caf\xc3\xa9"[..]).unwrap();
    not_ascii.metadata_mut().insert("idempotency-key", opaque);
    let requests = [
        with_key(put_request("a", ""), ""),
        with_key(put_request("a", ""), &"k".repeat(129)),
        twice,
        not_ascii,
    ];
    for request in requests {
        let status = kv.put(request).await.unwrap_err();
        assert_eq!(refusal(&status), invalid("idempotency-key"));
    }
    assert_eq!(server.fingerprint(), before);
    kv.put(with_key(put_request("a", ""), &"k".repeat(128))).await.unwrap();
}

#[tokio::test]
async fn what_consensus_says_reaches_the_caller() {
    let server = start().await;
    let mut kv = server.kv().await;
    let before = server.fingerprint();
    let cases = [
        (ProposeError::NoLeader, Code::Unavailable, "NO_LEADER", true),
        (ProposeError::ShuttingDown, Code::Unavailable, "SHUTTING_DOWN", true),
        (ProposeError::Busy, Code::ResourceExhausted, "TOO_MANY_WRITES", true),
        (
            ProposeError::TooLarge { bytes: 2, max_bytes: 1 },
            Code::ResourceExhausted,
            "WRITE_TOO_LARGE",
            false,
        ),
        (ProposeError::DiskFull, Code::ResourceExhausted, "DISK_FULL", true),
        (ProposeError::Broken("/secret/path".into()), Code::Internal, "STORAGE_FAILED", false),
    ];
    for (error, code, reason, waiting_helps) in cases {
        server.consensus.fail(Some(error));
        let status = kv.put(put_request("a", "")).await.unwrap_err();
        assert_eq!(refusal(&status), refused(code, reason));
        assert_eq!(status.get_error_details().retry_info().is_some(), waiting_helps, "{reason}");
        assert!(!status.message().contains("secret"));
    }
    server.consensus.fail(None);
    assert_eq!(server.fingerprint(), before);
    put(&mut kv, "a", "").await;
}
