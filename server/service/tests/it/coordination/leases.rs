//! What lives as long as it is refreshed.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use konsul_proto::v1;
use konsul_service::Limits;
use konsul_state::propose::{Propose, ProposeError, Standing};
use konsul_state::{LeaseId, Namespace};
use tonic::{Code, Request};

use super::{coordination, millis, reason, with_duties};
use crate::harness::{Refusal, get, refusal, soon, stale, start_with};

#[tokio::test]
async fn a_lease_takes_its_keys_along() {
    let mut c = with_duties().await;
    let id = c.grant(60_000).await;
    c.put("a", id).await.unwrap();
    c.put("b", id).await.unwrap();
    let request = v1::LeaseGetRequest { id, keys: true, ..Default::default() };
    let found = c.lease.get(request).await.unwrap().into_inner();
    assert_eq!((found.key_count, found.keys), (2, vec!["a".to_owned(), "b".to_owned()]));
    let left = Duration::try_from(found.remaining.unwrap()).unwrap();
    assert!(left > Duration::from_secs(30) && left <= Duration::from_secs(60), "{left:?}");
    assert_eq!(c.kv.get(get("a")).await.unwrap().into_inner().entry.unwrap().lease, id);
    // Written without the lease, it stays.
    c.put("b", 0).await.unwrap();
    let revoked = c.lease.revoke(v1::RevokeRequest { id, ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(revoked.deleted, 1);
    assert!(!c.exists("a").await && c.exists("b").await);
    let not_found = Refusal { code: Code::NotFound, reason: "LEASE_NOT_FOUND".into(), fields: vec![] };
    let again = c.lease.revoke(v1::RevokeRequest { id, ..Default::default() }).await.unwrap_err();
    assert_eq!(refusal(&again), not_found);
    assert_eq!(refusal(&c.put("c", id).await.unwrap_err()), not_found);
    let get = v1::LeaseGetRequest { id, read: Some(stale()), ..Default::default() };
    assert_eq!(refusal(&c.lease.get(get).await.unwrap_err()), not_found);
}

#[tokio::test]
async fn a_lease_that_nobody_refreshes_ends_and_not_before_its_time() {
    let mut c = with_duties().await;
    let (kept, left) = (c.grant(1_000).await, c.grant(1_000).await);
    c.put("kept", kept).await.unwrap();
    c.put("left", left).await.unwrap();
    let refreshed = Instant::now();
    let ids = vec![left];
    c.lease.refresh(v1::RefreshRequest { ids, ..Default::default() }).await.unwrap();
    let ticks =
        tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(Duration::from_millis(300)));
    let requests = ticks.map(move |_| v1::KeepAliveRequest { ids: vec![kept], ..Default::default() });
    let mut answers = c.lease.keep_alive(requests).await.unwrap().into_inner();
    let keeping = tokio::spawn(async move {
        while let Some(answer) = answers.message().await.unwrap() {
            assert_eq!(answer.results[0].ttl, millis(1_000));
        }
    });
    c.gone("left").await;
    assert!(refreshed.elapsed() >= Duration::from_secs(1), "{:?}", refreshed.elapsed());
    assert!(c.exists("kept").await && !keeping.is_finished());
    let answer = c.lease.refresh(v1::RefreshRequest { ids: vec![left, kept], ..Default::default() });
    let results = answer.await.unwrap().into_inner().results;
    assert_eq!(
        results.iter().map(|r| (r.id, r.ttl)).collect::<Vec<_>>(),
        [(left, None), (kept, millis(1_000))]
    );
    keeping.abort();
}

#[tokio::test]
async fn a_key_with_a_time_to_live_needs_no_lease() {
    let mut c = with_duties().await;
    let put = |ttl| v1::PutRequest { key: "k".into(), ttl, ..Default::default() };
    c.kv.put(put(millis(1_000))).await.unwrap();
    let leases = c.lease.list(v1::LeaseListRequest::default()).await.unwrap().into_inner().leases;
    assert!(leases.len() == 1 && leases[0].implicit);
    // Its lease is not to be used for anything else.
    assert_eq!(reason(c.put("other", leases[0].id).await), "LEASE_NOT_FOUND");
    c.gone("k").await;
    // Written anew it begins anew; written without, it stays, and the lease is gone.
    c.kv.put(put(millis(60_000))).await.unwrap();
    c.kv.put(put(None)).await.unwrap();
    assert!(c.lease.list(v1::LeaseListRequest::default()).await.unwrap().into_inner().leases.is_empty());
    let both = v1::PutRequest { lease: 1, ..put(millis(1_000)) };
    assert_eq!(refusal(&c.kv.put(both).await.unwrap_err()).fields, ["ttl"]);
}

#[tokio::test]
async fn a_retried_put_with_a_time_to_live_is_one() {
    let mut c = with_duties().await;
    let put = || {
        let mut request =
            Request::new(v1::PutRequest { key: "k".into(), ttl: millis(60_000), ..Default::default() });
        request.metadata_mut().insert("idempotency-key", "one".parse().unwrap());
        request
    };
    let first = c.kv.put(put()).await.unwrap().into_inner();
    assert_eq!(c.kv.put(put()).await.unwrap().into_inner(), first);
}

#[tokio::test]
async fn after_a_change_of_leader_every_lease_has_its_time_again() {
    let mut c = with_duties().await;
    let id = c.grant(1_500).await;
    c.put("k", id).await.unwrap();
    let here = c.server.consensus.standing();
    let away = Standing { leader_id: Some(2), ..here };
    c.server.consensus.stand(away);
    // Nobody counts here while another member leads: for longer than the lease lives, nothing must happen.
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    assert!(c.exists("k").await);
    let led = Instant::now();
    c.server.consensus.stand(here);
    c.gone("k").await;
    assert!(led.elapsed() >= Duration::from_millis(1_500), "{:?}", led.elapsed());
}

#[tokio::test]
async fn a_refresh_is_acknowledged_by_a_leader_or_not_at_all() {
    let mut c = with_duties().await;
    let id = c.grant(60_000).await;
    c.server.consensus.fail(Some(ProposeError::NoLeader));
    let refresh = v1::RefreshRequest { ids: vec![id], ..Default::default() };
    assert_eq!(reason(c.lease.refresh(refresh.clone()).await), "NO_LEADER");
    c.server.consensus.fail(None);
    c.lease.refresh(refresh).await.unwrap();
}

#[tokio::test]
async fn a_lease_whose_end_cannot_be_proposed_ends_when_it_can() {
    let mut c = with_duties().await;
    let lease = c.grant(1_000).await;
    c.put("bound", lease).await.unwrap();
    c.server.consensus.fail(Some(ProposeError::NoLeader));
    // Again and again: it is not forgotten.
    c.server.consensus.failing(3).await;
    assert!(
        c.server
            .state
            .view()
            .unwrap()
            .lease(&Namespace::parse("default").unwrap(), LeaseId(lease))
            .unwrap()
            .is_some()
    );
    c.server.consensus.fail(None);
    c.gone("bound").await;
}

#[tokio::test]
async fn so_many_streams_of_refreshes_are_open_at_a_time() {
    let limits = Limits { max_keep_alive_streams: 1, ..Limits::default() };
    let mut c = coordination(start_with(limits).await).await;
    let lease = c.grant(60_000).await;
    let refresh = || stream::iter([v1::KeepAliveRequest { ids: vec![lease], ..Default::default() }]);
    let (hold, held) = tokio::sync::oneshot::channel::<()>();
    let requests = refresh().chain(stream::pending().take_until(held));
    let mut open = c.lease.keep_alive(requests).await.unwrap().into_inner();
    assert_eq!(open.message().await.unwrap().unwrap().results.len(), 1);
    assert_eq!(reason(c.lease.keep_alive(refresh()).await), "TOO_MANY_KEEP_ALIVES");
    drop((open, hold));
    soon(async { while c.lease.keep_alive(refresh()).await.is_err() {} }).await;
}

#[tokio::test]
async fn bad_lease_requests_name_their_field() {
    let mut c = with_duties().await;
    let grant = |ttl, id, holder: usize| v1::GrantRequest {
        ttl,
        id,
        holder: "h".repeat(holder),
        ..Default::default()
    };
    for (request, field) in [
        (grant(None, 0, 0), "ttl"),
        (grant(millis(999), 0, 0), "ttl"),
        (grant(millis(86_400_001), 0, 0), "ttl"),
        (grant(millis(1_000), 1 << 63, 0), "id"),
        (grant(millis(1_000), 0, 257), "holder"),
        (v1::GrantRequest { namespace: "Bad".into(), ..grant(millis(1_000), 0, 0) }, "namespace"),
    ] {
        assert_eq!(refusal(&c.lease.grant(request).await.unwrap_err()).fields, [field]);
    }
    c.lease.grant(grant(millis(1_000), 7, 256)).await.unwrap();
    assert_eq!(reason(c.lease.grant(grant(millis(1_000), 7, 0)).await), "LEASE_EXISTS");
    for ids in [vec![], vec![7; 10_001]] {
        let refresh = v1::RefreshRequest { ids: ids.clone(), ..Default::default() };
        assert_eq!(refusal(&c.lease.refresh(refresh).await.unwrap_err()).fields, ["ids"]);
        let requests = stream::iter([v1::KeepAliveRequest { ids, ..Default::default() }]);
        let mut answers = c.lease.keep_alive(requests).await.unwrap().into_inner();
        assert_eq!(refusal(&answers.message().await.unwrap_err()).fields, ["ids"]);
    }
    // What came before a bad request is answered.
    let requests =
        [vec![7], vec![7, 7], vec![]].map(|ids| v1::KeepAliveRequest { ids, ..Default::default() });
    let mut answers = c.lease.keep_alive(stream::iter(requests)).await.unwrap().into_inner();
    for count in [1, 2] {
        assert_eq!(answers.message().await.unwrap().unwrap().results.len(), count);
    }
    assert_eq!(refusal(&answers.message().await.unwrap_err()).fields, ["ids"]);
    for id in [0, 1 << 63] {
        let get = v1::LeaseGetRequest { id, ..Default::default() };
        assert_eq!(refusal(&c.lease.get(get).await.unwrap_err()).fields, ["id"]);
    }
}
