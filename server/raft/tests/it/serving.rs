//! Writing, reading, and stopping and starting again.

use std::collections::BTreeSet;

use konsul_raft::Limits;
use konsul_state::Persistence;
use konsul_state::propose::{Propose, ProposeError};

use crate::fixture::{Member, put, settings};

#[tokio::test]
async fn what_is_written_is_read_and_published_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    for n in 1..=20 {
        assert_eq!(member.put(&format!("key-{}", n % 7), &format!("value-{n}")).await, Ok(n));
        assert_eq!(member.get(&format!("key-{}", n % 7)).await, Some(format!("value-{n}")));
    }
    assert_eq!(member.sink.published.lock().unwrap().len(), 20);
    let (hash, cluster, term) = (member.hash(), member.node.cluster_id(), member.node.standing().term);
    member.node.shutdown().await;
    drop(member);

    let member = Member::open(settings(dir.path())).await.unwrap();
    assert_eq!((member.hash(), member.node.cluster_id()), (hash, cluster));
    assert_eq!(member.get("key-6").await, Some("value-20".to_owned()));
    assert!(member.node.standing().term > term, "a restarted leader is elected anew");
    assert_eq!(member.node.standing().leader_id, Some(1));
    assert_eq!(member.put("key", "value").await, Ok(21));
    member.node.shutdown().await;
}

#[tokio::test]
async fn many_callers_share_entries_and_each_gets_its_own_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    let calls = (0..1_000).map(|n| {
        let node = member.node.clone();
        tokio::spawn(async move { node.propose(put(&format!("key-{n}"), "value")).await.unwrap().revision })
    });
    let calls: Vec<_> = calls.collect();
    let mut revisions = BTreeSet::new();
    for call in calls {
        revisions.insert(call.await.unwrap());
    }
    assert_eq!(revisions, (1..=1_000).collect());
    let groups = member.node.stats().group_commands.counts().iter().sum::<u64>();
    assert!(groups < 100, "1,000 concurrent writes took {groups} entries");
    assert_eq!(member.node.stats().group_commands.sum(), 1_000);
    member.node.shutdown().await;
}

#[tokio::test]
async fn callers_on_other_runtimes_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let node = member.node.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let calls = (0..50).map(|n| {
                        let node = node.clone();
                        tokio::spawn(async move {
                            node.propose(put(&format!("key-{thread}-{n}"), "value")).await.unwrap();
                            node.read_barrier().await.unwrap();
                        })
                    });
                    for call in calls.collect::<Vec<_>>() {
                        call.await.unwrap();
                    }
                });
            })
        })
        .collect();
    while threads.iter().any(|thread| !thread.is_finished()) {
        tokio::task::yield_now().await;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(member.revision(), 150);
    member.node.shutdown().await;
}

#[tokio::test]
async fn limits_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.limits = Limits {
        waiting_commands: 3,
        entry_commands: 2,
        entry_bytes: 1_000,
        command_bytes: 5_000,
        ..Limits::default()
    };
    let member = Member::open(settings).await.unwrap();
    let too_large = member.put("key", &"x".repeat(6_000)).await.unwrap_err();
    assert!(matches!(too_large, ProposeError::TooLarge { max_bytes: 5_000, bytes } if bytes > 6_000));
    // More than an entry should hold, and so one by itself.
    assert_eq!(member.put("key", &"x".repeat(4_000)).await, Ok(1));

    // Polled in turn on one thread, so that nothing is taken out of the queue in between.
    let calls = (0..5).map(|n| member.node.propose(put(&format!("key-{n}"), "value"))).map(Box::pin);
    let results = futures_util::future::join_all(calls).await;
    let refused = results.iter().filter(|r| **r == Err(ProposeError::Busy)).count();
    assert_eq!((refused, results.iter().filter(|r| r.is_ok()).count()), (2, 3), "{results:?}");
    assert_eq!(member.node.stats().refused.load(std::sync::atomic::Ordering::Relaxed), 3);
    assert!(member.node.stats().group_commands.counts()[2..].iter().all(|n| *n == 0), "groups of 2 at most");
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_in_flight_and_refuses_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    let calls: Vec<_> = (0..500)
        .map(|n| {
            let node = member.node.clone();
            tokio::spawn(async move { node.propose(put(&format!("key-{n}"), "value")).await })
        })
        .collect();
    // Lets the calls begin; the shutdown then meets them in every stage.
    tokio::task::yield_now().await;
    member.node.shutdown().await;
    let mut done = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => assert_eq!(error, ProposeError::ShuttingDown),
        }
    }
    assert_eq!(member.put("late", "value").await, Err(ProposeError::ShuttingDown));
    assert_eq!(member.node.read_barrier().await, Err(ProposeError::ShuttingDown));
    assert_eq!(member.revision(), done, "what was not acknowledged was not carried out either");
    assert!(done > 0);
    drop(member);
    let member = Member::open(settings(dir.path())).await.unwrap();
    assert_eq!(member.revision(), done);
    member.node.shutdown().await;
}

#[tokio::test]
async fn memory_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(&dir.path().join("unused"));
    settings.persistence = Persistence::Memory;
    let member = Member::open(settings).await.unwrap();
    assert_eq!(member.put("key", "value").await, Ok(1));
    assert_eq!(member.get("key").await, Some("value".to_owned()));
    member.node.shutdown().await;
    assert!(!dir.path().join("unused").exists());
}

#[tokio::test]
async fn the_same_writes_have_the_same_hash() {
    let mut hashes = BTreeSet::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let member = Member::open(settings(dir.path())).await.unwrap();
        for n in 0..100 {
            member.put(&format!("key-{}", n % 13), &format!("value-{n}")).await.unwrap();
        }
        hashes.insert(member.hash());
        member.node.shutdown().await;
    }
    assert_eq!(hashes.len(), 1);
}
