//! Power losses: what was not synced is gone, and what was acknowledged is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use konsul_state::propose::{Propose, ProposeError};
use rand::Rng;
use tempfile::TempDir;

use crate::faults::FaultyDisk;
use crate::fixture::{Member, history, put, put_operation, random, settings, txn};
use crate::trio::until;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    PowerLoss,
}

/// What callers know: the number each last had acknowledged, and the greatest it tried.
#[derive(Default, Clone, Copy)]
struct Known {
    acknowledged: u64,
    tried: u64,
}

const CALLERS: u64 = 8;

#[tokio::test]
async fn every_acknowledged_write_survives_power_losses() {
    let mut random = random("power losses");
    let dir = tempfile::tempdir().unwrap();
    let mut known = vec![Known::default(); CALLERS as usize];
    let mut boot = 0;
    for round in 0..60 {
        let end = if random.random_bool(0.8) { End::PowerLoss } else { End::Clean };
        let disk = FaultyDisk::new();
        let member = open(&dir, &disk, boot).await;
        check(&member, &known, &format!("round {round}"));
        let goal = random.random_range(1..150);
        known = write(&member, &disk, known, goal, end).await;
        member.node.shutdown().await;
        drop(member);
        if end == End::PowerLoss {
            disk.settle(&mut random);
            boot += 1;
        } else if random.random() {
            boot += 1;
        }
    }
    let member = open(&dir, &FaultyDisk::new(), boot).await;
    check(&member, &known, "the end");
    assert!(member.revision() > 100, "the test wrote next to nothing");
    member.node.shutdown().await;
}

async fn open(dir: &TempDir, disk: &Arc<FaultyDisk>, boot: u32) -> Member {
    let mut settings = settings(dir.path());
    settings.boot_id = format!("boot {boot}");
    settings.log_file_bytes = 128 << 10;
    settings.log_keep_bytes = 32 << 10;
    settings.snapshot_min_bytes = 256 << 10;
    settings.disk = disk.clone();
    Member::open(settings).await.unwrap()
}

/// Has several callers write, each counting up under two keys of its own, until so many writes are
/// acknowledged; then ends it.
async fn write(
    member: &Member,
    disk: &Arc<FaultyDisk>,
    known: Vec<Known>,
    goal: u64,
    end: End,
) -> Vec<Known> {
    let total = Arc::new(AtomicU64::new(0));
    let callers = known.into_iter().enumerate().map(|(caller, mut known)| {
        let (node, disk, total) = (member.node.clone(), disk.clone(), total.clone());
        tokio::spawn(async move {
            while total.load(Ordering::SeqCst) < goal {
                known.tried += 1;
                let number = format!("{}{}", known.tried, "-".repeat(700));
                let both = ["a", "b"].map(|side| put_operation(&format!("{caller}/{side}"), &number));
                match node.propose(txn(both)).await {
                    Ok(_) => known.acknowledged = known.tried,
                    Err(ProposeError::Broken(_) | ProposeError::ShuttingDown) => return known,
                    Err(error) => panic!("{error}"),
                }
                if total.fetch_add(1, Ordering::SeqCst) + 1 == goal && end == End::PowerLoss {
                    disk.power_off();
                }
            }
            known
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut known = Vec::new();
    for caller in callers {
        known.push(caller.await.unwrap());
    }
    known
}

/// Checks that each caller's keys are at a number that it had acknowledged or a later one that it tried, both
/// at the same, and that they went up one by one.
fn check(member: &Member, known: &[Known], when: &str) {
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for batch in history(&member.state) {
        assert_eq!(batch.changes.len(), 2, "{when}: half a transaction");
        for change in batch.changes.iter().filter_map(|change| change.kv()) {
            let value = crate::fixture::text(&change.after.as_ref().unwrap().value);
            let number: u64 = value.trim_end_matches('-').parse().unwrap();
            let before = numbers.insert(change.key.as_str().to_owned(), number).unwrap_or(0);
            assert!(number > before, "{when}: {} went from {before} to {number}", change.key);
        }
    }
    for (caller, known) in known.iter().enumerate() {
        let number = |side| numbers.get(&format!("{caller}/{side}")).copied().unwrap_or(0);
        assert_eq!(number("a"), number("b"), "{when}: caller {caller}");
        let is_possible = (known.acknowledged..=known.tried).contains(&number("a"));
        let (acknowledged, tried) = (known.acknowledged, known.tried);
        assert!(is_possible, "{when}: caller {caller} has {}, not {acknowledged} to {tried}", number("a"));
    }
}

#[tokio::test]
async fn a_failed_sync_is_never_retried_and_stops_the_member() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let member = open(&dir, &disk, 0).await;
    assert_eq!(member.put("key", "before").await, Ok(1));
    let syncs = disk.syncs();
    disk.fail_syncs();
    for _ in 0..2 {
        assert!(matches!(member.put("key", "lost").await, Err(ProposeError::Broken(_))));
        assert!(matches!(member.node.read_barrier().await, Err(ProposeError::Broken(_))));
    }
    member.node.shutdown().await;
    assert_eq!(disk.syncs(), syncs);
    drop(member);
    let member = open(&dir, &FaultyDisk::new(), 1).await;
    let found = member.get("key").await.unwrap();
    assert!(found == "before" || found == "lost", "{found}");
    member.node.shutdown().await;
}

#[tokio::test]
async fn whoever_waits_when_a_sync_fails_is_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new();
    let member = open(&dir, &disk, 0).await;
    disk.hold_syncs(true);
    let stats = member.node.stats();
    let mut answers = Vec::new();
    for n in 1..=8 {
        let node = member.node.clone();
        answers.push(tokio::spawn(async move { node.propose(put("key", &n.to_string())).await }));
        until(|| stats.waiting.load(Ordering::SeqCst) == n).await;
    }
    disk.fail_syncs();
    disk.hold_syncs(false);
    for answer in answers {
        let answer = answer.await.unwrap();
        assert!(matches!(answer, Err(ProposeError::Broken(_))), "{answer:?}");
    }
    member.node.shutdown().await;
}
