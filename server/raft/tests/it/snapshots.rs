//! Snapshots: the log is purged behind them, and the state is made again from them.

use std::time::Duration;

use konsul_raft::{RaftError, Settings};
use konsul_state::propose::Propose;
use tempfile::TempDir;

use crate::fixture::{Member, image, put, settings};
use crate::trio::until;

fn small(dir: &TempDir, boot: &str) -> Settings {
    let mut settings = settings(dir.path());
    settings.boot_id = boot.to_owned();
    settings.log_file_bytes = 64 << 10;
    settings.log_keep_bytes = 16 << 10;
    settings.snapshot_min_bytes = 256 << 10;
    settings
}

/// Writes until so many snapshots were made since the start.
async fn write_until_snapshots(member: &Member, snapshots: u64) {
    let stats = member.node.stats();
    for n in 0..10_000 {
        let value = format!("{n}{}", "-".repeat(1_000));
        let puts = (0..20).map(|k| member.node.propose(put(&format!("key-{k}"), &value)));
        for result in futures_util::future::join_all(puts).await {
            result.unwrap();
        }
        if stats.snapshots.load(std::sync::atomic::Ordering::Relaxed) >= snapshots {
            return;
        }
    }
    panic!("no snapshot was made");
}

#[tokio::test]
async fn the_log_stays_small_and_the_state_is_made_again_from_snapshot_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(small(&dir, "boot 1")).await.unwrap();
    write_until_snapshots(&member, 3).await;
    for n in 0..20 {
        member.put("after", &format!("{n}")).await.unwrap();
    }
    let written = member.node.stats().log_written_bytes.load(std::sync::atomic::Ordering::Relaxed);
    let log = member.node.standing().log_bytes;
    assert!(log < written / 2, "{written} bytes were written, and the log still has {log}");
    assert_eq!(
        std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(),
        1,
        "only the newest is kept"
    );
    let (hash, revision) = (member.hash(), member.revision());
    member.node.shutdown().await;
    drop(member);

    // Closed cleanly: the state is used as it is.
    let member = Member::open(small(&dir, "boot 2")).await.unwrap();
    assert!(member.sink.resets.lock().unwrap().is_empty());
    assert_eq!((member.hash(), member.revision()), (hash.clone(), revision));
    member.node.shutdown().await;
    drop(member);

    // Not closed, as the marker of a crash says, and another boot: it is made again.
    mark_as_open(&dir, "boot 2");
    let member = Member::open(small(&dir, "boot 3")).await.unwrap();
    assert_eq!(member.sink.resets.lock().unwrap().len(), 1, "a snapshot was installed");
    assert!(!member.sink.published.lock().unwrap().is_empty(), "and the log after it applied");
    assert_eq!((member.hash(), member.revision()), (hash, revision));
    assert_eq!(member.put("key", "value").await, Ok(revision + 1));
    member.node.shutdown().await;
}

/// Makes the state look like that of a machine that went down.
fn mark_as_open(dir: &TempDir, boot: &str) {
    let path = dir.path().join("state/MARKER");
    let marker = std::fs::read_to_string(&path).unwrap();
    assert!(marker.contains("closed"), "{marker}");
    std::fs::write(&path, marker.replace("closed", &format!("open {boot}\nunsynced"))).unwrap();
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_when_it_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(small(&dir, "boot 1")).await.unwrap();
    write_until_snapshots(&member, 2).await;
    member.node.shutdown().await;
    drop(member);
    let snapshot = std::fs::read_dir(dir.path().join("snapshots")).unwrap().next().unwrap().unwrap().path();
    let data = snapshot.join("data.mdb");
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();

    let member = Member::open(small(&dir, "boot 2")).await.unwrap();
    member.node.shutdown().await;
    drop(member);
    mark_as_open(&dir, "boot 2");
    let before = image(dir.path());
    for _ in 0..2 {
        let error = Member::open(small(&dir, "boot 3")).await.err().unwrap();
        assert!(matches!(&error, RaftError::Damaged { path, .. } if *path == data), "{error}");
        assert!(error.to_string().contains("checksum"), "{error}");
    }
    assert!(before == image(dir.path()), "the directory was left as it was");

    // Without the snapshot the log alone does not reach back far enough.
    std::fs::remove_dir_all(&snapshot).unwrap();
    let before = image(dir.path());
    let error = Member::open(small(&dir, "boot 3")).await.err().unwrap();
    assert!(error.to_string().contains("no snapshot"), "{error}");
    assert!(before == image(dir.path()), "the directory was left as it was");
}

#[tokio::test]
async fn an_unfinished_snapshot_is_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(small(&dir, "boot 1")).await.unwrap();
    member.put("key", "value").await.unwrap();
    member.node.shutdown().await;
    drop(member);
    let unfinished = dir.path().join("snapshots/unfinished");
    std::fs::create_dir_all(&unfinished).unwrap();
    std::fs::write(unfinished.join("data.mdb"), "half a cop").unwrap();
    let member = Member::open(small(&dir, "boot 1")).await.unwrap();
    assert_eq!(member.get("key").await, Some("value".to_owned()));
    write_until_snapshots(&member, 1).await;
    assert!(!unfinished.exists());
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_keeps_to_its_pace_and_a_shutdown_does_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut slow = small(&dir, "boot 1");
    // More than one step of a copy, each of which would take longer than anybody waits for a test.
    slow.snapshot_min_bytes = 16 << 20;
    slow.snapshot_bytes_per_second = 1;
    let member = Member::open(slow).await.unwrap();
    write_until_copying(&member, dir.path()).await;
    let (hash, revision) = (member.hash(), member.revision());
    member.put("meanwhile", "writes go on").await.unwrap();
    assert_eq!(member.node.stats().snapshots.load(std::sync::atomic::Ordering::Relaxed), 0);
    member.node.shutdown().await;
    drop(member);

    assert!(!dir.path().join("snapshots").join("unfinished").exists(), "what was not complete is removed");
    let member = Member::open(small(&dir, "boot 1")).await.unwrap();
    assert!(member.revision() > revision);
    assert_ne!(member.hash(), hash);
    member.node.shutdown().await;
}

/// Writes until a snapshot is being made.
async fn write_until_copying(member: &Member, dir: &std::path::Path) {
    let copy = dir.join("snapshots").join("unfinished").join("data.mdb");
    for n in 0..10_000 {
        let value = format!("{n}{}", "-".repeat(10_000));
        let puts = (0..20).map(|k| member.node.propose(put(&format!("key-{n}-{k}"), &value)));
        for result in futures_util::future::join_all(puts).await {
            result.unwrap();
        }
        if copy.exists() {
            return;
        }
    }
    panic!("no snapshot was begun");
}

#[tokio::test]
async fn what_is_too_old_leaves_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = small(&dir, "boot 1");
    settings.snapshot_min_bytes = 1 << 30;
    settings.log_keep_bytes = 1 << 30;
    settings.log_max_age = Duration::from_millis(200);
    let member = Member::open(settings).await.unwrap();
    for n in 0..64 {
        member.put(&format!("key-{n}"), &"-".repeat(16 << 10)).await.unwrap();
    }
    let written = member.node.stats().log_written_bytes.load(std::sync::atomic::Ordering::Relaxed);
    until(|| member.node.standing().log_bytes < written / 2).await;
    let snapshots = || member.node.stats().snapshots.load(std::sync::atomic::Ordering::Relaxed);
    let made = snapshots();
    member.put("key", "new").await.unwrap();
    until(|| snapshots() > made).await;
    member.node.shutdown().await;
}
