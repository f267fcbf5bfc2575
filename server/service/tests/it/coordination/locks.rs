//! Who holds a lock, who is next, and what a holder may write.

use std::time::{Duration, Instant};

use konsul_proto::v1::{self, fence::Held};
use konsul_service::Limits;
use konsul_state::propose::ProposeError;
use tonic::{Code, Request};

use super::{coordination, lock, millis, reason, unlock, with_duties};
use crate::harness::{refusal, soon, start_with};

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
        c.in_line("l", i as u64).await;
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
async fn whoever_goes_away_during_an_election_leaves_the_line_after_it() {
    let mut c = with_duties().await;
    let (holder, gone) = (c.grant(60_000).await, c.grant(60_000).await);
    c.lock.lock(lock("l", holder)).await.unwrap();
    let mut client = c.lock.clone();
    let waiting = tokio::spawn(async move { client.lock(lock("l", gone)).await });
    c.in_line("l", 1).await;
    c.server.consensus.fail(Some(ProposeError::NoLeader));
    waiting.abort();
    c.server.consensus.failing(1).await;
    c.server.consensus.fail(None);
    let get = || v1::LockGetRequest { name: "l".into(), ..Default::default() };
    soon(async { while c.lock.get(get()).await.unwrap().into_inner().lock.unwrap().waiting > 0 {} }).await;
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
    c.in_line("l", 1).await;
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
    c.in_line("l", 1).await;
    c.lease.revoke(v1::RevokeRequest { id: loser, ..Default::default() }).await.unwrap();
    assert_eq!(reason(soon(lost).await.unwrap()), "CLAIM_LOST");
}

#[tokio::test]
async fn locks_are_claimed_and_given_up_together_with_writes() {
    use v1::operation::Operation as Op;
    let mut c = with_duties().await;
    let (a, b) = (c.grant(60_000).await, c.grant(60_000).await);
    let claim = |lease| Op::Lock(v1::LockOperation { name: "l".into(), lease, ..Default::default() });
    let give_up = |lease| Op::Unlock(v1::UnlockOperation { name: "l".into(), lease, token: 0 });
    let put = |value: &str, token| {
        let fence = v1::Fence { held: Some(v1::fence::Held::Lock("l".into())), token };
        let fence = (token > 0).then_some(fence);
        let precondition = Some(v1::Precondition { fence, ..Default::default() });
        let value = value.to_owned().into();
        Op::Put(v1::PutOperation { key: "k".into(), value, precondition, ..Default::default() })
    };
    let txn = |operations: Vec<Op>| {
        let operation = |op| v1::Operation { operation: Some(op) };
        v1::TxnRequest { then: operations.into_iter().map(operation).collect(), ..Default::default() }
    };
    let taken = c.kv.txn(txn(vec![claim(a), put("a", 0)])).await.unwrap().into_inner();
    let token = |done: &v1::TxnResponse, at: usize| match &done.results[at].result {
        Some(v1::operation_result::Result::Lock(lock)) => lock.token,
        other => panic!("{other:?}"),
    };
    assert_eq!(token(&taken, 0), taken.revision);
    // Again it is the same claim. Another lease gets nothing, and nothing is written.
    let again = c.kv.txn(txn(vec![claim(a)])).await.unwrap().into_inner();
    assert_eq!(token(&again, 0), taken.revision);
    let before = c.server.fingerprint();
    assert_eq!(reason(c.kv.txn(txn(vec![put("b", 0), claim(b)])).await), "LOCK_TAKEN");
    assert_eq!(reason(c.kv.txn(txn(vec![put("b", 0), give_up(b)])).await), "LOCK_NOT_HELD");
    assert_eq!(reason(c.kv.txn(txn(vec![claim(7)])).await), "LEASE_NOT_FOUND");
    let shared = v1::LockOperation {
        name: "l".into(),
        lease: a,
        mode: v1::LockMode::Shared.into(),
        ..Default::default()
    };
    assert_eq!(reason(c.kv.txn(txn(vec![Op::Lock(shared)])).await), "LOCK_MODE_DIFFERS");
    for (operations, field) in [
        (vec![claim(a), give_up(a)], "then[1].unlock.name"),
        (vec![claim(0)], "then[0].lock.lease"),
        (vec![put("b", 0), give_up(0)], "then[1].unlock.lease"),
    ] {
        let refusal = refusal(&c.kv.txn(txn(operations)).await.unwrap_err());
        assert_eq!((refusal.reason.as_str(), refusal.fields), ("INVALID_FIELD", vec![field.to_owned()]));
    }
    assert_eq!(c.server.fingerprint(), before);
    // Whoever waits in line is granted the lock by the Txn that gives it up.
    let mut client = c.lock.clone();
    let waiting = tokio::spawn(async move { client.lock(lock("l", b)).await });
    c.in_line("l", 1).await;
    let last = txn(vec![put("last of a", taken.revision), give_up(a)]);
    let given_up = c.kv.txn(last.clone()).await.unwrap().into_inner();
    let granted = soon(waiting).await.unwrap().unwrap().into_inner();
    assert_eq!(granted.revision, given_up.revision);
    assert!(granted.token > taken.revision);
    assert_eq!(reason(c.kv.txn(last).await), "LOCK_NOT_HELD");
    assert_eq!(c.server.state.view().unwrap().verify().unwrap(), []);
}

#[tokio::test]
async fn what_is_told_of_locks_fits_into_an_answer() {
    let mut c = with_duties().await;
    let lease = c.grant(60_000).await;
    let name = |n: usize| format!("{n:04}{}", "x".repeat(1_020));
    for first in (0..2_500).step_by(250) {
        let claim = |n| {
            v1::operation::Operation::Lock(v1::LockOperation { name: name(n), lease, ..Default::default() })
        };
        let then = (first..first + 250).map(|n| v1::Operation { operation: Some(claim(n)) }).collect();
        c.kv.txn(v1::TxnRequest { then, ..Default::default() }).await.unwrap();
    }
    let all = v1::LockListRequest { page_size: 10_000, ..Default::default() };
    let page = c.lock.list(all.clone()).await.unwrap().into_inner();
    let rest = v1::LockListRequest { page_token: page.next_page_token, ..all };
    let rest = c.lock.list(rest).await.unwrap().into_inner();
    let names: Vec<String> = page.locks.iter().chain(&rest.locks).map(|lock| lock.name.clone()).collect();
    assert_eq!(names, (0..2_500).map(name).collect::<Vec<_>>());
    assert!((1_500..2_100).contains(&page.locks.len()), "{} of 2,500", page.locks.len());
    // Six hundred claims that each say 4 KiB of themselves.
    for _ in 0..600 {
        let lease = c.grant(60_000).await;
        let claim = v1::TryLockRequest {
            name: "full".into(),
            lease,
            limit: 1_000,
            value: vec![b'x'; 4 << 10].into(),
            ..Default::default()
        };
        assert!(c.lock.try_lock(claim).await.unwrap().into_inner().acquired);
    }
    let get = v1::LockGetRequest { name: "full".into(), ..Default::default() };
    let found = c.lock.get(get).await.unwrap().into_inner();
    assert_eq!(found.lock.unwrap().holders, 600);
    assert!((400..520).contains(&found.claims.len()), "{}", found.claims.len());
}

#[tokio::test]
async fn whoever_tries_leaves_the_place_in_line_to_the_call_that_waits() {
    let mut c = with_duties().await;
    let (holder, waiter) = (c.grant(60_000).await, c.grant(60_000).await);
    c.lock.lock(lock("l", holder)).await.unwrap();
    let mut client = c.lock.clone();
    let waiting = tokio::spawn(async move { client.lock(lock("l", waiter)).await });
    c.in_line("l", 1).await;
    let try_lock = v1::TryLockRequest { name: "l".into(), lease: waiter, ..Default::default() };
    assert!(!c.lock.try_lock(try_lock.clone()).await.unwrap().into_inner().acquired);
    c.lock.unlock(unlock("l", holder)).await.unwrap();
    let granted = soon(waiting).await.unwrap().unwrap().into_inner();
    let tried = c.lock.try_lock(try_lock).await.unwrap().into_inner();
    assert_eq!((tried.acquired, tried.token), (true, granted.token), "it is held already");
}

#[tokio::test]
async fn of_several_holders_lost_at_once_the_longest_delay_counts() {
    let mut c = with_duties().await;
    let (short, long) = (c.grant(1_000).await, c.grant(1_000).await);
    c.put("with it", short).await.unwrap();
    for (lease, delay) in [(short, 100), (long, 1_500)] {
        let request = v1::LockRequest { limit: 2, lock_delay: millis(delay), ..lock("l", lease) };
        c.lock.lock(request).await.unwrap();
    }
    let next = c.grant(60_000).await;
    let mut client = c.lock.clone();
    let waiting =
        tokio::spawn(async move { client.lock(v1::LockRequest { limit: 2, ..lock("l", next) }).await });
    c.gone("with it").await;
    let began = Instant::now();
    soon(waiting).await.unwrap().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1_300), "{:?}", began.elapsed());
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
    c.in_line("l", 2).await;
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
