//! Running out of space: writes are refused, reads are served, and all goes on when space returns.

use std::sync::Arc;
use std::time::Duration;

use konsul_state::Command;
use konsul_state::command::{
    self, Compact, KeySpan, KvDelete, KvOperation, TrimHistory, command::Op, kv_operation,
};
use konsul_state::propose::{Propose, ProposeError};

use crate::faults::FaultyDisk;
use crate::fixture::{Member, put, settings, txn};

fn delete(key: &str) -> Command {
    let delete = KvDelete { key: key.to_owned(), ..KvDelete::default() };
    txn([KvOperation { op: Some(kv_operation::Op::Delete(delete)) }])
}

fn command(op: Op) -> Command {
    Command { format: command::FORMAT, time_ms: 1, op: Some(op), ..Command::default() }
}

/// Longer than the space's measurements are apart.
async fn until_measured() {
    tokio::time::sleep(Duration::from_millis(120)).await;
}

#[tokio::test]
async fn the_reserve_is_kept_for_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let mut settings = settings(dir.path());
    settings.disk = disk.clone();
    let reserve = settings.reserve_bytes;
    let member = Member::open(settings).await.unwrap();
    for key in ["a", "b"] {
        member.put(key, "value").await.unwrap();
    }
    disk.set_free(reserve - 1);
    until_measured().await;
    assert_eq!(member.put("c", "value").await, Err(ProposeError::DiskFull));
    assert_eq!(member.get("a").await, Some("value".to_owned()));
    assert_eq!(member.node.propose(delete("a")).await.unwrap().revision, 3);
    assert!(member.node.propose(command(Op::Compact(Compact { revision: 1 }))).await.is_ok());

    disk.set_free(reserve / 2 - 1);
    until_measured().await;
    assert_eq!(member.node.propose(delete("b")).await, Err(ProposeError::DiskFull));
    assert_eq!(member.get("b").await, Some("value".to_owned()));

    disk.set_free(reserve);
    until_measured().await;
    assert_eq!(member.put("c", "value").await, Ok(4));
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_write_that_meets_a_full_disk_waits_for_space() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let mut settings = settings(dir.path());
    settings.disk = disk.clone();
    let member = Arc::new(Member::open(settings.clone()).await.unwrap());
    member.put("key", "before").await.unwrap();
    disk.set_full(true);
    let waiting = {
        let member = member.clone();
        tokio::spawn(async move { member.put("key", "waited").await })
    };
    // From when the log has noticed on, more is refused at once.
    let refused = async {
        while member.node.stats().out_of_space.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        member.put("key", "refused").await
    };
    assert_eq!(refused.await, Err(ProposeError::DiskFull));
    assert_eq!(member.get("key").await, Some("before".to_owned()));
    assert!(!waiting.is_finished());
    disk.set_full(false);
    assert_eq!(waiting.await.unwrap(), Ok(2));
    assert_eq!(member.put("key", "after").await, Ok(3));

    // A stop does not wait for space for ever; the write's fate is unknown to its caller, and then settled.
    disk.set_full(true);
    let waiting = {
        let member = member.clone();
        tokio::spawn(async move { member.put("key", "unknown").await })
    };
    while member.node.stats().out_of_space.load(std::sync::atomic::Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::timeout(Duration::from_secs(5), member.node.shutdown()).await.unwrap();
    assert!(waiting.await.unwrap().is_err());
    drop(member);
    disk.set_full(false);
    let member = Member::open(settings).await.unwrap();
    assert_eq!(member.get("key").await, Some("after".to_owned()));
    assert_eq!(member.put("key", "again").await, Ok(4));
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_full_map_refuses_writes_until_history_is_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.map_bytes = 16 << 20;
    settings.reserve_bytes = 4 << 20;
    let member = Member::open(settings).await.unwrap();
    let value = "x".repeat(100_000);
    let mut refused = None;
    for n in 0..1_000 {
        if let Err(error) = member.node.propose(put(&format!("key-{}", n % 10), &value)).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(ProposeError::DiskFull));
    let revision = member.revision();
    assert!(revision > 20, "{revision}");
    // Deleting and compacting still work, and make room.
    let range = command::KvDeleteRange { span: Some(KeySpan::prefix("key-")), ..Default::default() };
    let operation = KvOperation { op: Some(kv_operation::Op::DeleteRange(range)) };
    member.node.propose(txn([operation])).await.unwrap();
    let revision = member.revision();
    member.node.propose(command(Op::Compact(Compact { revision }))).await.unwrap();
    member
        .node
        .propose(command(Op::TrimHistory(TrimHistory { max_rows: 10_000, max_bytes: 0 })))
        .await
        .unwrap();
    until_measured().await;
    assert_eq!(member.put("key", "value").await, Ok(revision + 1));
    member.node.shutdown().await;
}
