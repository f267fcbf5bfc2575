//! kill -9: a process of its own writes until it is killed; what it acknowledged is there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use konsul_state::Change;
use konsul_state::propose::Propose;
use rand::Rng;

use crate::fixture::{Member, history, put_operation, random, settings, text, txn};

const DIR: &str = "KONSUL_TEST_CRASH_DIR";
const BOOT: &str = "KONSUL_TEST_CRASH_BOOT";
const CALLERS: u64 = 16;

/// Not a test, but the process that is killed: it writes, and prints what was acknowledged.
#[tokio::test]
async fn process_to_be_killed() {
    let (Ok(dir), Ok(boot)) = (std::env::var(DIR), std::env::var(BOOT)) else { return };
    let mut settings = settings(dir.as_ref());
    settings.boot_id = boot;
    settings.log_file_bytes = 256 << 10;
    settings.log_keep_bytes = 64 << 10;
    settings.snapshot_min_bytes = 512 << 10;
    let member = Arc::new(Member::open(settings).await.unwrap());
    say("ready");
    let callers = (0..CALLERS).map(|caller| {
        let member = member.clone();
        tokio::spawn(async move {
            let run = member.revision();
            for n in 0.. {
                let name = format!("{caller}-{run}-{n}");
                let both = ["a", "b"].map(|side| put_operation(&format!("{side}/{caller}"), &name));
                let revision = member.node.propose(txn(both)).await.unwrap().revision;
                say(&format!("{revision} {name}"));
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}

/// One line in one write, past the test harness's capture.
fn say(line: &str) {
    std::io::stderr().write_all(format!("@{line}\n").as_bytes()).unwrap();
}

fn start(dir: &std::path::Path, boot: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::process_to_be_killed", "--nocapture"])
        .envs([(DIR, dir.to_str().unwrap()), (BOOT, boot)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn every_acknowledged_write_survives_kill_9() {
    let mut random = random("kill -9");
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u64, String> = BTreeMap::new();
    let mut boot = 0;
    for round in 0..50 {
        let mut child = start(dir.path(), &format!("boot {boot}"));
        let goal = random.random_range(1..300);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut seen = 0;
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let Some(line) = line.strip_prefix('@') else { continue };
            said.push(line.to_owned());
            seen += 1;
            if seen == goal {
                break;
            }
        }
        // At any point of what it does, and not only right after an answer.
        std::thread::sleep(Duration::from_micros(random.random_range(0..3_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had said when it died, without a line that it did not finish.
        said.extend(lines.filter_map(|line| line.strip_prefix('@').map(str::to_owned)));
        assert!(seen == goal, "round {round}: the process ended by itself: {said:?}");
        for line in said.iter().filter(|line| *line != "ready") {
            let (revision, name) = line.split_once(' ').unwrap();
            let before = acknowledged.insert(revision.parse().unwrap(), name.to_owned());
            assert_eq!(before, None, "round {round}: revision {revision} was acknowledged twice");
        }
        // A new boot has the state made again from snapshot and log; the same one trusts it.
        boot += u32::from(random.random_bool(0.3));
        if round % 5 == 4 {
            check(dir.path(), &format!("boot {boot}"), &acknowledged).await;
        }
    }
}

async fn check(dir: &std::path::Path, boot: &str, acknowledged: &BTreeMap<u64, String>) {
    let mut settings = settings(dir);
    settings.boot_id = boot.to_owned();
    let member = Member::open(settings).await.unwrap();
    let history = history(&member.state);
    let mut names = BTreeSet::new();
    for batch in &history {
        let changes: Vec<_> = batch.changes.iter().filter_map(Change::kv).collect();
        assert_eq!(changes.len(), 2, "half a transaction at revision {}", batch.revision);
        let name = text(&changes[0].after.as_ref().unwrap().value);
        assert_eq!(name, text(&changes[1].after.as_ref().unwrap().value));
        assert!(names.insert(name.clone()), "{name} was written twice");
        if let Some(told) = acknowledged.get(&batch.revision.0) {
            assert_eq!(&name, told, "revision {}", batch.revision);
        }
    }
    let last = acknowledged.keys().last().copied().unwrap_or(0);
    assert!(history.len() as u64 >= last, "{} revisions, and {last} was acknowledged", history.len());
    member.node.shutdown().await;
}
