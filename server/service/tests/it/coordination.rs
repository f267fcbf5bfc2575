//! Leases, locks and elections as their callers see them.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use konsul_proto::v1::election_client::ElectionClient;
use konsul_proto::v1::lease_client::LeaseClient;
use konsul_proto::v1::lock_client::LockClient;
use konsul_proto::v1::{self, fence::Held};
use konsul_service::Limits;
use konsul_service::duties::Duties;
use konsul_state::propose::{Propose, ProposeError, Standing};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::harness::{
    Kv, Refusal, Server, get, refusal, soon, stale, start, start_duties, start_with, watch_key, watching,
};

/// Why a call was refused.
fn reason<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> String {
    refusal(&result.unwrap_err()).reason
}

struct Coordination {
    server: Server,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
    kv: Kv,
    duties: Option<Duties>,
}

async fn with_duties() -> Coordination {
    coordination(start().await).await
}

async fn coordination(server: Server) -> Coordination {
    let channel = server.channel().await;
    let duties = Some(start_duties(&server, &server.limits));
    Coordination {
        lease: LeaseClient::new(channel.clone()),
        lock: LockClient::new(channel.clone()),
        election: ElectionClient::new(channel),
        kv: server.kv().await,
        server,
        duties,
    }
}

impl Coordination {
    async fn grant(&mut self, ttl_ms: u64) -> u64 {
        let request = v1::GrantRequest { ttl: millis(ttl_ms), ..Default::default() };
        self.lease.grant(request).await.unwrap().into_inner().id
    }

    async fn put(&mut self, key: &str, lease: u64) -> Result<(), tonic::Status> {
        let request = v1::PutRequest { key: key.into(), lease, ..Default::default() };
        self.kv.put(request).await.map(|_| ())
    }

    async fn exists(&mut self, key: &str) -> bool {
        self.kv.get(get(key)).await.is_ok()
    }

    /// Returns when a key is gone.
    async fn gone(&mut self, key: &str) {
        let target = v1::WatchTarget { initial_state: true, ..watch_key(1, key) };
        let mut stream = self.kv.watch(watching(vec![target])).await.unwrap().into_inner();
        let mut is_there = false;
        soon(async {
            while let Some(message) = stream.message().await.unwrap() {
                is_there |= !message.entries.is_empty();
                let is_deleted = message.events.iter().any(|e| e.r#type() == v1::watch_event::Type::Delete);
                if is_deleted || (message.kind() == v1::watch_response::Kind::Synced && !is_there) {
                    return;
                }
            }
        })
        .await;
    }
}

fn millis(ms: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(ms)).ok()
}

fn lock(name: &str, lease: u64) -> v1::LockRequest {
    v1::LockRequest { name: name.into(), lease, ..Default::default() }
}

fn unlock(name: &str, lease: u64) -> v1::UnlockRequest {
    v1::UnlockRequest { name: name.into(), lease, ..Default::default() }
}

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
    for id in [0, 1 << 63] {
        let get = v1::LeaseGetRequest { id, ..Default::default() };
        assert_eq!(refusal(&c.lease.get(get).await.unwrap_err()).fields, ["id"]);
    }
}

#[tokio::test]
async fn leases_and_locks_are_listed_in_pages() {
    let mut c = with_duties().await;
    for id in 1..=5 {
        let request = v1::GrantRequest { ttl: millis(60_000), id, ..Default::default() };
        c.lease.grant(request).await.unwrap();
        c.lock.lock(lock(&format!("l{id}"), id)).await.unwrap();
    }
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::LeaseListRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = c.lease.list(request).await.unwrap().into_inner();
        ids.extend(page.leases.iter().map(|lease| lease.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::LockListRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = c.lock.list(request).await.unwrap().into_inner();
        names.extend(page.locks.iter().map(|lock| lock.name.clone()));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["l1", "l2", "l3", "l4", "l5"]);
}

#[tokio::test]
async fn a_lock_goes_from_hand_to_hand_in_the_order_of_asking() {
    let mut c = with_duties().await;
    let mut leases = Vec::new();
    for _ in 0..5 {
        leases.push(c.grant(60_000).await);
    }
    let first = c.lock.lock(lock("l", leases[0])).await.unwrap().into_inner().token;
    let (told, mut order) = tokio::sync::mpsc::unbounded_channel();
    for (i, lease) in leases.iter().copied().enumerate().skip(1) {
        let (mut client, told) = (c.lock.clone(), told.clone());
        tokio::spawn(async move {
            let token = client.lock(lock("l", lease)).await.unwrap().into_inner().token;
            told.send((i, token)).unwrap();
            client.unlock(unlock("l", lease)).await.unwrap();
        });
        // In line before the next one asks.
        soon(async {
            loop {
                let request = v1::LockGetRequest { name: "l".into(), ..Default::default() };
                let waiting = c.lock.get(request).await.unwrap().into_inner().lock.unwrap().waiting;
                if waiting == i as u64 {
                    break;
                }
            }
        })
        .await;
    }
    assert!(order.try_recv().is_err());
    let claims = v1::LockGetRequest { name: "l".into(), ..Default::default() };
    let claims = c.lock.get(claims).await.unwrap().into_inner().claims;
    assert_eq!(claims.iter().map(|claim| claim.lease).collect::<Vec<_>>(), leases);
    let try_lock = v1::TryLockRequest { name: "l".into(), lease: leases[0], ..Default::default() };
    assert_eq!(c.lock.try_lock(try_lock.clone()).await.unwrap().into_inner().token, first);
    let stranger = c.grant(60_000).await;
    let tried = c.lock.try_lock(v1::TryLockRequest { lease: stranger, ..try_lock }).await.unwrap();
    assert!(!tried.into_inner().acquired);
    c.lock.unlock(unlock("l", leases[0])).await.unwrap();
    let mut last = first;
    for i in 1..5 {
        let (who, token) = soon(order.recv()).await.unwrap();
        assert_eq!(who, i);
        assert!(token > last, "{token} after {last}");
        last = token;
    }
}

#[tokio::test]
async fn whoever_goes_away_leaves_the_line() {
    let mut c = with_duties().await;
    let (holder, gone, next) = (c.grant(60_000).await, c.grant(60_000).await, c.grant(60_000).await);
    c.lock.lock(lock("l", holder)).await.unwrap();
    let mut short = Request::new(lock("l", gone));
    short.set_timeout(Duration::from_millis(50));
    // The client's own clock, or the server's.
    let code = c.lock.lock(short).await.unwrap_err().code();
    assert!(matches!(code, Code::Cancelled | Code::DeadlineExceeded), "{code:?}");
    let mut client = c.lock.clone();
    let waiting = tokio::spawn(async move { client.lock(lock("l", next)).await });
    c.lock.unlock(unlock("l", holder)).await.unwrap();
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_repeated_call_keeps_the_place_and_the_earlier_one_ends() {
    let mut c = with_duties().await;
    let (holder, waiter) = (c.grant(60_000).await, c.grant(60_000).await);
    let granted = c.lock.lock(lock("l", holder)).await.unwrap().into_inner();
    assert_eq!(c.lock.lock(lock("l", holder)).await.unwrap().into_inner().token, granted.token);
    let mut client = c.lock.clone();
    let first = tokio::spawn(async move { client.lock(lock("l", waiter)).await });
    let mut client = c.lock.clone();
    soon(async {
        let get = || v1::LockGetRequest { name: "l".into(), ..Default::default() };
        while c.lock.get(get()).await.unwrap().into_inner().lock.unwrap().waiting == 0 {}
    })
    .await;
    let second = tokio::spawn(async move { client.lock(lock("l", waiter)).await });
    assert_eq!(reason(soon(first).await.unwrap()), "CLAIM_TAKEN_OVER");
    let shared = v1::LockRequest { mode: v1::LockMode::Shared.into(), ..lock("l", holder) };
    assert_eq!(reason(c.lock.lock(shared).await), "LOCK_MODE_DIFFERS");
    c.lock.unlock(unlock("l", holder)).await.unwrap();
    soon(second).await.unwrap().unwrap();
    // A lease that ends takes its claims along.
    let loser = c.grant(60_000).await;
    let mut client = c.lock.clone();
    let lost = tokio::spawn(async move { client.lock(lock("l", loser)).await });
    soon(async {
        let get = || v1::LockGetRequest { name: "l".into(), ..Default::default() };
        while c.lock.get(get()).await.unwrap().into_inner().lock.unwrap().waiting == 0 {}
    })
    .await;
    c.lease.revoke(v1::RevokeRequest { id: loser, ..Default::default() }).await.unwrap();
    assert_eq!(reason(soon(lost).await.unwrap()), "CLAIM_LOST");
}

#[tokio::test]
async fn a_lock_of_a_lost_holder_rests_for_its_delay_and_of_a_clean_one_does_not() {
    let mut c = with_duties().await;
    let delay = millis(1_200);
    let (lost, next) = (c.grant(1_000).await, c.grant(60_000).await);
    let request = v1::LockRequest { lock_delay: delay, ..lock("l", lost) };
    c.put("with it", lost).await.unwrap();
    c.lock.lock(request.clone()).await.unwrap();
    let mut client = c.lock.clone();
    let waiting = tokio::spawn(async move { client.lock(lock("l", next)).await });
    c.gone("with it").await;
    let began = Instant::now();
    soon(waiting).await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_000), "{:?}", began.elapsed());
    c.lock.unlock(unlock("l", next)).await.unwrap();
    // Given up, by an Unlock or the end of the lease by its holder's own will: at once.
    let clean = c.grant(60_000).await;
    c.lock.lock(v1::LockRequest { lease: clean, ..request.clone() }).await.unwrap();
    c.lease.revoke(v1::RevokeRequest { id: clean, ..Default::default() }).await.unwrap();
    let try_lock = v1::TryLockRequest { name: "l".into(), lease: next, ..Default::default() };
    assert!(c.lock.try_lock(try_lock).await.unwrap().into_inner().acquired);
}

#[tokio::test]
async fn a_semaphore_has_so_many_holders_and_readers_share() {
    let mut c = with_duties().await;
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(c.grant(60_000).await);
    }
    let semaphore =
        |lease, limit| v1::TryLockRequest { name: "s".into(), lease, limit, ..Default::default() };
    for (i, lease) in leases.iter().copied().enumerate() {
        let acquired = c.lock.try_lock(semaphore(lease, 3)).await.unwrap().into_inner().acquired;
        assert_eq!(acquired, i < 3);
    }
    assert_eq!(reason(c.lock.try_lock(semaphore(leases[3], 2)).await), "LOCK_LIMIT_DIFFERS");
    let shared = |lease| v1::TryLockRequest {
        name: "r".into(),
        lease,
        mode: v1::LockMode::Shared.into(),
        ..Default::default()
    };
    for lease in &leases[..3] {
        assert!(c.lock.try_lock(shared(*lease)).await.unwrap().into_inner().acquired);
    }
    let alone = v1::TryLockRequest { name: "r".into(), lease: leases[3], ..Default::default() };
    assert!(!c.lock.try_lock(alone).await.unwrap().into_inner().acquired);
}

#[tokio::test]
async fn a_write_is_refused_unless_the_lock_is_held_under_its_token() {
    let mut c = with_duties().await;
    let (stopped, next) = (c.grant(1_000).await, c.grant(60_000).await);
    let old = c.lock.lock(lock("l", stopped)).await.unwrap().into_inner().token;
    // Its holder stands still, and the lock goes on.
    let new = soon(c.lock.lock(lock("l", next))).await.unwrap().into_inner().token;
    assert!(new > old);
    let write = |held, token| v1::PutRequest {
        key: "k".into(),
        precondition: Some(v1::Precondition { fence: Some(v1::Fence { held, token }), ..Default::default() }),
        ..Default::default()
    };
    let held = || Some(Held::Lock("l".into()));
    assert_eq!(reason(c.kv.put(write(held(), old)).await), "LOCK_NOT_HELD");
    c.kv.put(write(held(), new)).await.unwrap();
    let election = Some(Held::Election("l".into()));
    assert_eq!(reason(c.kv.put(write(election, new)).await), "LOCK_NOT_HELD");
    let none = c.kv.put(write(None, new)).await.unwrap_err();
    assert_eq!(refusal(&none).fields, ["precondition.fence.held"]);
    let other = v1::UnlockRequest { token: old, ..unlock("l", next) };
    assert_eq!(reason(c.lock.unlock(other).await), "LOCK_NOT_HELD");
}

#[tokio::test]
async fn an_election_is_won_observed_and_resigned() {
    let mut c = with_duties().await;
    let (a, b) = (c.grant(60_000).await, c.grant(60_000).await);
    let campaign = |lease, value: &'static str| v1::CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
        ..Default::default()
    };
    let observe = v1::ObserveRequest { name: "e".into(), ..Default::default() };
    let mut observed = c.election.observe(observe).await.unwrap().into_inner();
    let mut next = async || {
        let told = soon(observed.message()).await.unwrap().unwrap();
        told.leader.map(|leader| String::from_utf8(leader.value.to_vec()).unwrap())
    };
    assert_eq!(next().await, None);
    let won = c.election.campaign(campaign(a, "a:1")).await.unwrap().into_inner();
    assert_eq!(next().await.as_deref(), Some("a:1"));
    let mut client = c.election.clone();
    let second = tokio::spawn(async move { client.campaign(campaign(b, "b:1")).await });
    let proclaim = |lease, token| v1::ProclaimRequest {
        name: "e".into(),
        lease,
        token,
        value: "a:2".into(),
        ..Default::default()
    };
    c.election.proclaim(proclaim(a, won.token)).await.unwrap();
    assert_eq!(next().await.as_deref(), Some("a:2"));
    assert_eq!(reason(c.election.proclaim(proclaim(b, 0)).await), "LOCK_NOT_HELD");
    let leader = v1::LeaderRequest { name: "e".into(), ..Default::default() };
    let leader = c.election.leader(leader).await.unwrap().into_inner().leader.unwrap();
    assert_eq!((leader.lease, leader.token), (a, won.token));
    let resign = v1::ResignRequest { name: "e".into(), lease: a, ..Default::default() };
    c.election.resign(resign.clone()).await.unwrap();
    assert!(soon(second).await.unwrap().unwrap().into_inner().token > won.token);
    assert_eq!(next().await.as_deref(), Some("b:1"));
    assert_eq!(reason(c.election.resign(resign).await), "LOCK_NOT_HELD");
    c.server.readers.stop();
    let end = soon(observed.message()).await.unwrap_err();
    assert_eq!(refusal(&end).reason, "SHUTTING_DOWN");
}

#[tokio::test]
async fn waiting_callers_are_limited_and_let_go_at_the_end() {
    let limits = Limits { max_waiting_locks: 2, ..Limits::default() };
    let mut c = coordination(start_with(limits).await).await;
    let holder = c.grant(60_000).await;
    c.lock.lock(lock("l", holder)).await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let (mut client, lease) = (c.lock.clone(), c.grant(60_000).await);
        waiting.push(tokio::spawn(async move { client.lock(lock("l", lease)).await }));
    }
    soon(async {
        let get = || v1::LockGetRequest { name: "l".into(), ..Default::default() };
        while c.lock.get(get()).await.unwrap().into_inner().lock.unwrap().waiting < 2 {}
    })
    .await;
    let lease = c.grant(60_000).await;
    assert_eq!(reason(c.lock.lock(lock("l", lease)).await), "TOO_MANY_WAITING_LOCKS");
    let observe = v1::ObserveRequest { name: "e".into(), ..Default::default() };
    assert_eq!(reason(c.election.observe(observe).await), "TOO_MANY_WAITING_LOCKS");
    c.server.readers.stop();
    for call in waiting {
        assert_eq!(reason(soon(call).await.unwrap()), "SHUTTING_DOWN");
    }
    c.duties.take().unwrap().stop().await;
}

#[tokio::test]
async fn bad_lock_requests_name_their_field() {
    let mut c = with_duties().await;
    let good = lock("l", 1);
    for (request, field) in [
        (v1::LockRequest { name: String::new(), ..good.clone() }, "name"),
        (v1::LockRequest { name: "n".repeat(1_025), ..good.clone() }, "name"),
        (v1::LockRequest { lease: 0, ..good.clone() }, "lease"),
        (v1::LockRequest { mode: 9, ..good.clone() }, "mode"),
        (v1::LockRequest { limit: 10_001, ..good.clone() }, "limit"),
        (v1::LockRequest { lock_delay: millis(60_001), ..good.clone() }, "lock_delay"),
        (v1::LockRequest { value: vec![0; 4_097].into(), ..good.clone() }, "value"),
    ] {
        assert_eq!(refusal(&c.lock.lock(request).await.unwrap_err()).fields, [field]);
    }
    assert_eq!(reason(c.lock.lock(good).await), "LEASE_NOT_FOUND");
    assert_eq!(reason(c.lock.unlock(unlock("l", 1)).await), "LOCK_NOT_HELD");
}
