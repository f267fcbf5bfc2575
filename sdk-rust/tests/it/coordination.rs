//! Leases, locks and elections: when a lease counts as lost, and what is given up when answers are lost or guards go.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use konsul_client::{Code, HeldLease};
use konsul_proto::v1::*;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tonic::{Request, Status};

use crate::calls::refusal;
use crate::fake::{Fake, Running};

/// Longer than any test lasts.
const LONG: Duration = Duration::from_secs(60);

/// A server of leases that live, which tells what else it was asked.
fn leases() -> (Fake, UnboundedReceiver<String>) {
    let (tell, told) = unbounded_channel();
    let refresh = |request: Request<RefreshRequest>| {
        let ttl = Some(prost_types::Duration { seconds: 60, nanos: 0 });
        let results = request.get_ref().ids.iter().map(|id| Refreshed { id: *id, ttl }).collect();
        Ok(RefreshResponse { results })
    };
    let (unlocked, resigned) = (tell.clone(), tell);
    let unlock = move |request: Request<UnlockRequest>| {
        unlocked.send(format!("unlock {}", request.get_ref().token)).unwrap();
        Ok(UnlockResponse::default())
    };
    let resign = move |request: Request<ResignRequest>| {
        resigned.send(format!("resign {}", request.get_ref().token)).unwrap();
        Ok(ResignResponse::default())
    };
    let fake = Fake {
        grant: Some(Box::new(|_| Ok(GrantResponse { id: 7, ..Default::default() }))),
        refresh: Some(Box::new(refresh)),
        revoke: Some(Box::new(|_| Ok(RevokeResponse::default()))),
        unlock: Some(Box::new(unlock)),
        resign: Some(Box::new(resign)),
        ..Fake::default()
    };
    (fake, told)
}

async fn held(server: &Running) -> HeldLease {
    server.client().leases().hold(LONG).await.unwrap()
}

#[tokio::test]
async fn a_lease_that_nobody_had_time_to_refresh_is_lost() {
    let server = leases().0.start().await;
    let ttl = Duration::from_secs(1);
    let lease = server.client().leases().hold(ttl).await.unwrap();
    assert!(!lease.is_lost());
    // Nothing else runs meanwhile: this runtime has one thread.
    std::thread::sleep(ttl);
    assert!(lease.is_lost());
    lease.lost().await;
    // An answer that comes now does not bring it back.
    drop(server.client().leases().refresh(&[7]).await);
    assert!(lease.is_lost());
}

#[tokio::test]
async fn a_lease_that_is_left_or_revoked_is_lost_for_all() {
    let server = leases().0.start().await;
    let lease = held(&server).await;
    lease.clone().leave();
    assert!(lease.is_lost());
    lease.lost().await;
    let lease = held(&server).await;
    let other = lease.clone();
    let mut revoking = Box::pin(lease.revoke());
    tokio::select! {
        biased;
        _ = &mut revoking => panic!("it asks a server"),
        () = async {} => assert!(other.is_lost()),
    }
    revoking.await.unwrap();
    other.lost().await;
}

#[tokio::test]
async fn a_lease_that_ends_before_it_is_refreshed_is_not_kept() {
    let found =
        LeaseInfo { ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }), ..Default::default() };
    let gone = |_| Ok(RefreshResponse { results: vec![Refreshed { id: 7, ttl: None }] });
    let lease = move |_| Ok(LeaseGetResponse { lease: Some(found.clone()), ..Default::default() });
    let fake = Fake { lease: Some(Box::new(lease)), refresh: Some(Box::new(gone)), ..Fake::default() };
    let server = fake.start().await;
    let error = server.client().leases().keep(7).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("LEASE_NOT_FOUND")));
}

#[tokio::test]
async fn what_a_guard_held_under_a_lease_of_others_goes_with_it() {
    let (mut fake, mut told) = leases();
    fake.campaign = Some(Box::new(|_| Ok(CampaignResponse { token: 3, ..Default::default() })));
    fake.lock = Some(Box::new(|_| Ok(Some(LockResponse { token: 4, ..Default::default() }))));
    let server = fake.start().await;
    let (client, lease) = (server.client(), held(&server).await);
    drop(client.elections().campaign("e", "me").lease(&lease).await.unwrap());
    assert_eq!(told.recv().await.unwrap(), "resign 3");
    drop(client.locks().lock("l").lease(&lease).await.unwrap());
    assert_eq!(told.recv().await.unwrap(), "unlock 4");
    client.elections().campaign("e", "me").lease(&lease).await.unwrap().resign().await.unwrap();
    client.locks().lock("l").lease(&lease).await.unwrap().unlock().await.unwrap();
    assert_eq!(
        (told.recv().await.unwrap(), told.recv().await.unwrap()),
        ("resign 3".into(), "unlock 4".into())
    );
    assert!(told.try_recv().is_err(), "nothing is given up twice");
    assert!(!lease.is_lost());
}

#[tokio::test]
async fn what_an_attempt_may_have_got_is_given_up_before_the_next() {
    let (mut fake, mut told) = leases();
    let (tell, mut asked) = unbounded_channel();
    let calls = AtomicU32::new(0);
    let lock = move |_| {
        tell.send(()).unwrap();
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(None),
            1 => Err(refusal(Code::FailedPrecondition, "CLAIM_TAKEN_OVER", &[])),
            2 => Err(Status::internal("the answer is lost")),
            _ => Ok(Some(LockResponse { token: 4, ..Default::default() })),
        }
    };
    fake.lock = Some(Box::new(lock));
    fake.try_lock = Some(Box::new(|_| Ok(TryLockResponse::default())));
    let server = fake.start().await;
    let (client, lease) = (server.client(), held(&server).await);
    let lock = || client.locks().lock("l").lease(&lease);
    tokio::select! {
        _ = lock().into_future() => panic!("it is not answered"),
        _ = asked.recv() => {}
    }
    // The next one waits until the first has left no trace, lest it be taken along.
    assert_eq!(lock().await.unwrap_err().reason(), Some("CLAIM_TAKEN_OVER"));
    assert_eq!(told.try_recv().unwrap(), "unlock 0");
    // What is refused is another's, and one that is not free is not had.
    assert!(lock().try_now().await.unwrap().is_none());
    assert_eq!(lock().await.unwrap_err().code(), Code::Internal);
    let guard = lock().await.unwrap();
    assert_eq!((guard.token(), told.try_recv().unwrap()), (4, "unlock 0".into()));
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn who_waits_is_bounded_by_time_and_not_by_attempts() {
    let (mut fake, _told) = leases();
    let calls = AtomicU32::new(0);
    let lock = move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0..4 => Err(Status::unavailable("no leader")),
        _ => Ok(Some(LockResponse { token: 4, ..Default::default() })),
    };
    fake.lock = Some(Box::new(lock));
    let server = fake.start().await;
    let client = server.builder().max_attempts(2).build().unwrap();
    assert_eq!(client.locks().lock("l").await.unwrap().token(), 4);
}

#[tokio::test]
async fn who_waits_under_a_lease_that_is_lost_waits_for_nothing() {
    let (mut fake, _told) = leases();
    fake.lock = Some(Box::new(|_| Ok(None)));
    let server = fake.start().await;
    let lease = held(&server).await;
    let waiting = server.client().locks().lock("l").lease(&lease).into_future();
    let (error, ()) = tokio::join!(waiting, async { lease.clone().leave() });
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("lease 7 was lost meanwhile: "), "{error}");
}

#[tokio::test]
async fn who_observes_goes_on_once_it_was_told() {
    let calls = AtomicU32::new(0);
    let leader = |token| ObserveResponse {
        leader: Some(ElectedLeader { token, ..Default::default() }),
        ..Default::default()
    };
    let observe = move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(vec![Ok(leader(1))]),
        1..5 => Err(Status::unavailable("no leader")),
        5 => Ok(vec![Ok(leader(2))]),
        _ => Err(Status::permission_denied("enough")),
    };
    let server = Fake { observe: Some(Box::new(observe)), ..Fake::default() }.start().await;
    let mut leaders = server.builder().max_attempts(2).build().unwrap().elections().observe("e");
    for token in [1, 2] {
        assert_eq!(leaders.next().await.unwrap().unwrap().unwrap().token, token);
    }
    assert_eq!(leaders.next().await.unwrap().unwrap_err().code(), Code::PermissionDenied);
    assert!(leaders.next().await.is_none());

    let nobody = |_| Err(Status::unavailable("no leader"));
    let server = Fake { observe: Some(Box::new(nobody)), ..Fake::default() }.start().await;
    let mut leaders = server.builder().max_attempts(2).build().unwrap().elections().observe("e");
    assert_eq!(leaders.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
}
