//! Directories that can't be used: one clear error each, and they are left as they were.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use konsul_raft::RaftError;
use konsul_state::Command;
use konsul_state::command::FORMAT;
use konsul_state::propose::{Propose, ProposeError};
use tempfile::TempDir;

use crate::fixture::{Member, image, put, settings};

/// How long an opening may take, which reads a log of some entries.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory that a member wrote to and closed.
async fn written() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    for n in 0..50 {
        member.put("key", &format!("{n}{}", "-".repeat(200))).await.unwrap();
    }
    member.node.shutdown().await;
    dir
}

async fn refusal(dir: &TempDir) -> RaftError {
    let before = image(dir.path());
    let error = Member::open(settings(dir.path())).await.err().expect("it must not open");
    let after = image(dir.path());
    let changed = after.iter().filter(|(path, content)| before.get(*path) != Some(content));
    let changed: Vec<_> = changed.map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{error}, and {changed:?} changed");
    assert!(before.keys().all(|path| after.contains_key(path)), "{error}, and files are gone");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    let error = Member::open(settings(dir.path())).await.err().unwrap();
    assert!(matches!(error, RaftError::InUse { .. }), "{error}");
    assert_eq!(member.put("key", "value").await, Ok(1));
    member.node.shutdown().await;
    drop(member);
    let member = Member::open(settings(dir.path())).await.unwrap();
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_newer_or_a_foreign_directory_is_refused() {
    let dir = written().await;
    let version = dir.path().join("VERSION");
    let ours = fs::read_to_string(&version).unwrap();
    fs::write(&version, ours.replace("konsul data 2", "konsul data 3")).unwrap();
    assert!(matches!(refusal(&dir).await, RaftError::Newer { found: 3, known: 2, .. }));
    fs::write(&version, ours.replace("konsul data 2", "konsul data 1")).unwrap();
    assert!(matches!(refusal(&dir).await, RaftError::Unreleased { found: 1, .. }));
    fs::write(&version, "something else").unwrap();
    assert!(matches!(refusal(&dir).await, RaftError::Damaged { .. }));
    fs::write(&version, ours).unwrap();
    let named = konsul_raft::Settings { member_name: Some("other".to_owned()), ..settings(dir.path()) };
    let refused = Member::open(named).await.err().unwrap();
    assert!(
        matches!(&refused, RaftError::OtherMember { configured, .. } if configured == "other"),
        "{refused}"
    );

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear diary").unwrap();
    assert!(matches!(refusal(&dir).await, RaftError::NotOurs { .. }));
}

#[tokio::test]
async fn a_directory_that_is_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Member::open(settings(&path)).await.err().unwrap();
    assert!(matches!(error, RaftError::File { .. }), "{error}");
}

fn log_file(dir: &TempDir) -> PathBuf {
    let files = fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|e| e == "raftlog")).max().unwrap()
}

#[tokio::test]
async fn a_log_damaged_before_its_end_is_refused() {
    let dir = written().await;
    let path = log_file(&dir);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 300].fill(0);
    fs::write(&path, bytes).unwrap();
    let error = refusal(&dir).await;
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_refused() {
    let dir = written().await;
    let path = log_file(&dir);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 10]).unwrap();
    let error = refusal(&dir).await;
    assert!(error.to_string().contains("ends at entry"), "{error}");
    // A second look finds the same, so the first one did not paper over it.
    assert!(refusal(&dir).await.to_string().contains("ends at entry"));
    fs::write(&path, bytes).unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    assert_eq!(member.revision(), 50);
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_torn_record_at_the_end_is_cut() {
    let dir = written().await;
    let path = log_file(&dir);
    let mut bytes = fs::read(&path).unwrap();
    // Half of a record that was being written when the power went.
    let torn = bytes[bytes.len() - 400..bytes.len() - 150].to_vec();
    bytes.extend(torn);
    bytes.extend([0; 1000]);
    fs::write(&path, bytes).unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    assert_eq!(member.revision(), 50);
    assert_eq!(member.put("key", "value").await, Ok(51));
    member.node.shutdown().await;
    drop(member);
    let member = Member::open(settings(dir.path())).await.unwrap();
    assert_eq!(member.revision(), 51);
    member.node.shutdown().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_applied_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(settings(dir.path())).await.unwrap();
    let newer = Command { format: FORMAT + 1, ..put("key", "value") };
    let error = member.node.propose(newer).await.unwrap_err();
    assert!(matches!(error, ProposeError::Broken(_)), "{error}");
    member.node.shutdown().await;
    drop(member);
    for _ in 0..2 {
        let opening = Member::open(settings(dir.path()));
        let opened = tokio::time::timeout(LIMIT, opening).await.expect("it hangs");
        let error = opened.err().expect("it must not open").to_string();
        assert!(error.contains(&format!("format {}", FORMAT + 1)), "{error}");
    }
}
