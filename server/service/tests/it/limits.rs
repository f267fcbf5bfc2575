//! Every limit refuses what is beyond it and lets through what is at it.

use konsul_proto::v1;
use konsul_service::Limits;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::*;

fn put_bytes(key: &str, bytes: usize) -> v1::PutRequest {
    v1::PutRequest { key: key.into(), value: vec![b'x'; bytes].into(), ..Default::default() }
}

fn too_large(field: &str) -> Refusal {
    Refusal { code: Code::ResourceExhausted, reason: "VALUE_TOO_LARGE".into(), fields: vec![field.into()] }
}

#[tokio::test]
async fn values() {
    let server = start_with(Limits { max_value_bytes: 1000, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    kv.put(put_bytes("a", 1000)).await.unwrap();
    let before = server.fingerprint();
    let status = kv.put(put_bytes("a", 1001)).await.unwrap_err();
    assert_eq!(refusal(&status), too_large("value"));
    assert_eq!(metadata(&status, "limit").as_deref(), Some("1000"));
    let value = vec![b'x'; 1001];
    let precondition = Some(v1::Precondition { value: Some(value.clone().into()), ..Default::default() });
    let status = kv.put(v1::PutRequest { precondition, ..put_bytes("a", 1) }).await.unwrap_err();
    assert_eq!(refusal(&status), too_large("precondition.value"));
    let puts = vec![v1::PutOperation { key: "a".into(), value: value.clone().into(), ..Default::default() }];
    let status = kv.batch_put(v1::BatchPutRequest { puts, ..Default::default() }).await.unwrap_err();
    assert_eq!(refusal(&status), too_large("puts[0].value"));
    let target = Some(v1::compare::Target::Value(value.into()));
    let compare = vec![v1::Compare { key: "a".into(), target, ..Default::default() }];
    let status = kv.txn(v1::TxnRequest { compare, ..Default::default() }).await.unwrap_err();
    assert_eq!(refusal(&status), too_large("compare[0].value"));
    assert_eq!(server.fingerprint(), before);
}

#[tokio::test]
async fn requests() {
    let limits = Limits { max_value_bytes: 1000, max_request_bytes: 200_000, ..Limits::default() };
    let server = start_with(limits).await;
    let kv = server.kv().await;
    let before = server.fingerprint();
    let compressing = kv.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
    for mut kv in [kv, compressing] {
        let status = kv.put(put_bytes("a", 200_001)).await.unwrap_err();
        assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "REQUEST_TOO_LARGE"));
        assert_eq!(metadata(&status, "limit").as_deref(), Some("200000"));
    }
    assert_eq!(server.fingerprint(), before);
}

#[tokio::test]
async fn answers() {
    let server = start().await;
    let mut kv = server.kv().await;
    for key in ["a", "b", "c", "d"] {
        kv.put(put_bytes(key, 1 << 20)).await.unwrap();
    }
    let batch = |keys: &[&str]| v1::BatchGetRequest {
        keys: keys.iter().map(|k| (*k).into()).collect(),
        ..Default::default()
    };
    assert_eq!(kv.batch_get(batch(&["a", "b", "c"])).await.unwrap().into_inner().entries.len(), 3);
    let status = kv.batch_get(batch(&["a", "b", "c", "d"])).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "ANSWER_TOO_LARGE"));
    let page = kv.list(v1::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((page.entries.len(), page.next_page_token.is_empty()), (2, false));
    let page =
        kv.list(v1::ListRequest { page_token: page.next_page_token, ..Default::default() }).await.unwrap();
    assert_eq!(page.into_inner().entries.len(), 2);
}

#[tokio::test]
async fn ranges() {
    use v1::delete_range_request::Selector;
    let server = start().await;
    let mut kv = server.kv().await;
    for from in (0..1001).step_by(143) {
        let put = |i: usize| v1::PutOperation { key: format!("k{:05}", from + i), ..Default::default() };
        kv.batch_put(v1::BatchPutRequest { puts: (0..143).map(put).collect(), ..Default::default() })
            .await
            .unwrap();
    }
    let before = server.fingerprint();
    let selector = Some(Selector::Prefix("k".into()));
    let request = v1::DeleteRangeRequest { selector, previous: true, ..Default::default() };
    let status = kv.delete_range(request.clone()).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "RANGE_TOO_LARGE"));
    assert_eq!(metadata(&status, "limit_keys").as_deref(), Some("1000"));
    assert_eq!(server.fingerprint(), before);
    delete(&mut kv, "k00000").await;
    assert_eq!(kv.delete_range(request).await.unwrap().into_inner().previous.len(), 1000);
}

#[tokio::test]
async fn the_store_fills_up_and_opens_again() {
    let max_store_bytes = 2 << 20;
    let server = start_with(Limits { max_store_bytes, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    let first = || {
        let mut request = tonic::Request::new(put_bytes("first", 10));
        request.metadata_mut().insert("idempotency-key", "first".parse().unwrap());
        request
    };
    let outcome = kv.put(first()).await.unwrap().into_inner();
    let mut puts = 0;
    let status = loop {
        match kv.put(put_bytes(&format!("k{puts}"), 10_000)).await {
            Ok(_) => puts += 1,
            Err(status) => break status,
        }
        assert!(puts < 1000, "the limit is never reached");
    };
    assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "STORE_FULL"));
    assert!(status.get_error_details().retry_info().is_some());
    assert_eq!(kv.put(first()).await.unwrap().into_inner(), outcome, "a retry adds nothing");
    assert!(server.state.view().unwrap().used_bytes().unwrap() < max_store_bytes + 200_000);
    let put_in_txn = v1::Operation {
        operation: Some(v1::operation::Operation::Put(v1::PutOperation {
            key: "x".into(),
            ..Default::default()
        })),
    };
    let request = v1::TxnRequest { otherwise: vec![put_in_txn], ..Default::default() };
    assert_eq!(refusal(&kv.txn(request).await.unwrap_err()).reason, "STORE_FULL");
    kv.get(get("k0")).await.unwrap();
    kv.txn(v1::TxnRequest::default()).await.unwrap();

    for i in 0..puts {
        delete(&mut kv, &format!("k{i}")).await;
    }
    let revision = server.fingerprint().0;
    compact(&mut server.admin().await, revision).await;
    let duties = start_duties(&server, &Limits::default());
    soon(async {
        while kv.put(put_bytes("back", 10_000)).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    duties.stop().await;
}

#[tokio::test]
async fn reads_that_wait() {
    let server = start_with(Limits { max_waiting_reads: 2, ..Limits::default() }).await;
    let mut kv = server.kv().await;
    let read = |revision| v1::GetRequest { read: Some(min_revision(revision)), ..get("a") };
    let mut waiting = vec![];
    for revision in [1, 2] {
        let mut kv = kv.clone();
        waiting.push(tokio::spawn(async move { kv.get(read(revision)).await }));
    }
    soon(async {
        while server.hub.stats().waiting_reads < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let status = kv.get(read(3)).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "TOO_MANY_WAITING_READS"));
    assert!(status.get_error_details().retry_info().is_some());
    put(&mut kv, "a", "1").await;
    put(&mut kv, "a", "2").await;
    for waiting in waiting {
        assert!(soon(waiting).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn watch_streams_and_targets() {
    let limits = Limits { max_watch_streams: 2, max_watch_targets: 4, ..Limits::default() };
    let server = start_with(limits).await;
    let mut kv = server.kv().await;
    let targets = |n: u64| watching((0..n).map(|id| watch_key(id, "a")).collect());
    let first = kv.watch(targets(2)).await.unwrap();
    let status = kv.watch(targets(3)).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "TOO_MANY_WATCH_TARGETS"));
    let _second = kv.watch(targets(2)).await.unwrap();
    let status = kv.watch(targets(1)).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::ResourceExhausted, "TOO_MANY_WATCH_STREAMS"));
    drop(first);
    soon(async {
        while server.hub.stats().streams > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    kv.watch(targets(2)).await.unwrap();
}
