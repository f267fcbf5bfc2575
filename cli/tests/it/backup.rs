//! `konsul backup`, as an operator uses it: on one server and on three, under load, with damaged files and servers that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use konsul_client::{Client, WatchEvent, WatchOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::durability::seed;
use crate::konsul::{LIMIT, Run};
use crate::members::Trio;
use crate::server::Server;

/// How often a server is killed.
const ROUNDS: u32 = 12;

/// All keys with what they hold and their revisions, now or as they were.
fn entries(server: &Server, revision: &str) -> Vec<Value> {
    let page = server.json(&["kv", "list", "", "--revision", revision]);
    page["entries"].as_array().cloned().unwrap_or_default()
}

fn client(server: &Server) -> Client {
    Client::builder().addresses([format!("http://{}", server.address)]).build().unwrap()
}

fn text(path: &std::path::Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_store_is_saved_and_comes_back() {
    let server = Server::start();
    server.put("app/a", "1");
    server.put("app/b", "1");
    server.ok(&["lease", "grant", "1h", "--id", "7"]);
    let file = text(&server.path("konsul.backup"));
    let saved = server.json(&["backup", "save", &file]);
    assert_eq!(
        (saved["revision"].as_u64(), saved["entries"].as_u64(), saved["leases"].as_u64()),
        (Some(3), Some(2), Some(1))
    );
    let cluster = server.json(&["status"])["clusterId"].clone();
    assert_eq!(saved["clusterId"], cluster);
    let inspected = server.json(&["backup", "inspect", &file]);
    assert_eq!((&inspected["revision"], &inspected["hash"]), (&saved["revision"], &Value::Null));
    assert_eq!(server.json(&["backup", "verify", &file])["hash"], saved["hash"]);
    assert!(server.ok(&["backup", "verify", &file]).starts_with(&format!("whole: {file}\n")));
    let kept = entries(&server, "0");
    server.put("app/a", "2");
    server.ok(&["kv", "delete", "app/b"]);
    server.put("later", "1");
    assert!(server.run(&["backup", "restore", &file]).failure(1).contains("confirm it with --yes"));
    assert_eq!(
        server.ok(&["backup", "restore", &file, "--yes"]),
        "restored revision 3 as revision 7: 2 keys, 1 leases, 0 locks\n"
    );
    assert_eq!(entries(&server, "0"), kept);
    assert_eq!(server.json(&["status"])["stateHash"], saved["hash"]);
    assert!(server.run(&["kv", "get", "app/a", "--revision", "5"]).failure(1).contains("compacted"));
    assert_eq!(server.put("app/a", "3"), 8);
}

#[test]
fn what_is_damaged_or_foreign_is_refused_before_anything_changes() {
    let (from, to) = (Server::start(), Server::start());
    for n in 0..50 {
        from.put(&format!("k{n}"), &"x".repeat(10_000));
    }
    to.put("mine", "1");
    let before = to.json(&["status"])["stateHash"].clone();
    let file = from.path("backup");
    from.ok(&["backup", "save", &text(&file)]);
    let whole = std::fs::read(&file).unwrap();
    let damaged = |name: &str, bytes: &[u8]| {
        let path = from.path(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path)
    };
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 0x10;
    for (path, why) in [
        (damaged("cut", &whole[..whole.len() - 20]), "is cut off after"),
        (damaged("flipped", &flipped), "a checksum is wrong"),
        (damaged("empty", b""), "is cut off after 0 bytes"),
        (damaged("other", b"#!/bin/sh\nexit 0\n"), "no backup of konsul"),
        (text(&from.path("missing")), "No such file"),
    ] {
        for command in
            [&["backup", "verify", &path][..], &["backup", "restore", &path, "--yes", "--other-cluster"]]
        {
            let said = to.run(command).failure(1);
            assert!(said.contains(why), "{command:?}: {said}");
        }
    }
    let foreign = to.run(&["backup", "restore", &text(&file), "--yes"]).failure(1);
    assert!(foreign.contains("--other-cluster"), "{foreign}");
    assert_eq!(to.json(&["status"])["stateHash"], before);
    to.ok(&["backup", "restore", &text(&file), "--yes", "--other-cluster"]);
    let hash = to.json(&["backup", "verify", &text(&file)])["hash"].clone();
    assert_eq!(to.json(&["status"])["stateHash"], hash);
    assert_eq!(entries(&to, "0"), entries(&from, "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_backup_under_load_is_the_state_at_its_revision() {
    let trio = Trio::start(None).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = trio
        .servers
        .iter()
        .enumerate()
        .map(|(place, server)| {
            let client = client(server);
            let stop = stop.clone();
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("w{place}/{}", n % 100);
                    match n % 7 {
                        0 => drop(client.kv().delete(key).await),
                        _ => drop(client.kv().put(key, format!("{n}")).await.unwrap()),
                    }
                    n += 1;
                }
            })
        })
        .collect();
    let fresh = Server::start();
    let mut saved = Vec::new();
    for round in 0..2 {
        for (place, server) in trio.servers.iter().enumerate() {
            let file = text(&fresh.path(&format!("{round}-{place}")));
            saved.push((server.json(&["backup", "save", &file]), file));
        }
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    for (told, file) in &saved {
        let revision = told["revision"].as_u64().unwrap().to_string();
        fresh.ok(&["backup", "restore", file, "--yes", "--other-cluster"]);
        assert_eq!(fresh.json(&["status"])["stateHash"], told["hash"]);
        assert_eq!(entries(&fresh, "0"), entries(&trio.servers[0], &revision), "at revision {revision}");
    }
    // Put back on all members at once: each has that very state, and who watches at any of them is told.
    let mut watches = Vec::new();
    for server in &trio.servers {
        let client = client(server);
        let mut watch = client.kv().watch(WatchOptions::prefix("w1/"));
        assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Opened { .. }))));
        watches.push(watch);
    }
    let (told, file) = &saved[0];
    let restored = trio.servers[2].json(&["backup", "restore", file, "--yes"]);
    let facts = trio.facts().await;
    let hash = told["hash"].as_str().unwrap();
    assert!(facts.hashes().all(|found| found == hash), "{facts:?}");
    let expected = entries(&fresh, "0").len();
    assert!(expected > 0);
    for watch in &mut watches {
        let mut keys = 0;
        loop {
            match tokio::time::timeout(LIMIT, watch.next()).await.unwrap().unwrap().unwrap() {
                WatchEvent::Reset { .. } => keys = 0,
                WatchEvent::State { .. } => keys += 1,
                WatchEvent::Synced { revision, .. } => {
                    assert_eq!(Some(revision.to_string().as_str()), restored["revision"].as_str());
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let list = trio.servers[0].json(&["kv", "list", "w1/"]);
        assert_eq!(keys, list["entries"].as_array().unwrap().len());
    }
    trio.go_on();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_restores_has_the_old_state_or_the_new() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut server = Server::start();
    fill(&server).await;
    let file = text(&server.path("backup"));
    let new = server.json(&["backup", "save", &file])["hash"].clone();
    let began = Instant::now();
    server.ok(&["backup", "restore", &file, "--yes"]);
    let whole = began.elapsed();
    let (mut kept_old, mut got_new) = (0, 0);
    for round in 0..ROUNDS {
        server.ok(&["kv", "put", "since", &round.to_string()]);
        let old = server.json(&["status"])["stateHash"].clone();
        let mut command = server.command(&["backup", "restore", &file, "--yes"]);
        let mut restoring = tokio::task::spawn_blocking(move || Run::of(&mut command, b""));
        // At any moment from the first to the end, and in the last round after it.
        let share = (f64::from(round) + rng.random_range(0.0..1.0)) / f64::from(ROUNDS);
        let ended = match round + 1 < ROUNDS {
            true => tokio::time::timeout(whole.mul_f64(share), &mut restoring).await.ok(),
            false => Some((&mut restoring).await),
        };
        server.kill_and_restart();
        let told = match ended {
            Some(told) => told.unwrap(),
            None => restoring.await.unwrap(),
        };
        let found = server.json(&["status"])["stateHash"].clone();
        assert!(found == old || found == new, "round {round}: neither the old state nor the new");
        assert!(told.code != Some(0) || found == new, "it said that it was restored");
        kept_old += usize::from(found == old);
        got_new += usize::from(found == new);
    }
    println!("{kept_old} times the old state, {got_new} times the new");
    assert!(kept_old > 0 && got_new > 0);
    // What was left half done is no obstacle.
    server.ok(&["backup", "restore", &file, "--yes"]);
    assert_eq!(server.json(&["status"])["stateHash"], new);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_die_while_the_cluster_is_restored_agree_on_the_old_state_or_the_new() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut trio = Trio::start(None).await;
    fill(&trio.servers[0]).await;
    let file = text(&trio.servers[0].path("backup"));
    let new = trio.servers[0].json(&["backup", "save", &file])["hash"].clone();
    let began = Instant::now();
    trio.servers[0].ok(&["backup", "restore", &file, "--yes"]);
    let whole = began.elapsed();
    let mut restored = 0;
    for round in 0..6 {
        let (asked, killed) = (rng.random_range(0..3), rng.random_range(0..3));
        trio.servers[asked].ok(&["kv", "put", "since", &round.to_string()]);
        let old = trio.servers[asked].json(&["status"])["stateHash"].clone();
        let mut command = trio.servers[asked].command(&["backup", "restore", &file, "--yes"]);
        let restoring = tokio::task::spawn_blocking(move || Run::of(&mut command, b""));
        tokio::time::sleep(whole.mul_f64(rng.random_range(0.0..1.2))).await;
        trio.servers[killed].kill_and_restart();
        let told = restoring.await.unwrap();
        let facts = trio.facts().await;
        let hashes: Vec<&str> = facts.hashes().collect();
        assert!(hashes.iter().all(|hash| *hash == hashes[0]), "round {round}: {facts:?}");
        assert!(old == hashes[0] || new == hashes[0], "round {round}: neither the old state nor the new");
        // Whoever was asked and lives on goes on under the next leader.
        assert!(told.code == Some(0) || asked == killed, "round {round}: {told:?}");
        assert!(told.code != Some(0) || new == hashes[0], "round {round}: it said that it was restored");
        restored += usize::from(told.code == Some(0));
    }
    println!("{restored} of 6 were restored");
    trio.servers[0].ok(&["backup", "restore", &file, "--yes"]);
    assert!(trio.facts().await.hashes().all(|hash| new == hash));
    trio.go_on();
}

/// Writes four thousand keys.
async fn fill(server: &Server) {
    for n in 0..40 {
        let puts =
            (0..100).map(|i| konsul_client::PutOperation::new(format!("k{n:03}/{i}"), "x".repeat(1_000)));
        client(server).kv().batch_put(puts).await.unwrap();
    }
}

/// The value of a metric.
fn metric(server: &Server, name: &str) -> u64 {
    let (_, page) = server.page("/metrics").unwrap();
    let line = page.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()).unwrap().parse::<f64>().unwrap() as u64
}

/// Waits for a metric.
fn reaches(server: &Server, name: &str, least: u64) {
    let began = Instant::now();
    while metric(server, name) < least {
        assert!(began.elapsed() < LIMIT, "{name} does not reach {least}: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_backs_itself_up_and_keeps_no_more_than_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let backups = folder.path().join("backups");
    let launch = |interval: &str| {
        Server::launch()
            .data_dir(folder.path().join("data"))
            .set("KONSUL_BACKUP_FOLDER", backups.display())
            .set("KONSUL_BACKUP_INTERVAL", interval)
            .set("KONSUL_BACKUP_KEEP", 2)
    };
    // What servers left behind that were killed, and what one of them is still at.
    std::fs::create_dir(&backups).unwrap();
    let (old, young) = (backups.join(".konsul-backup-old"), backups.join(".konsul-backup-young"));
    for unfinished in [&old, &young] {
        std::fs::write(unfinished, "half").unwrap();
    }
    let days_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    std::fs::File::options().write(true).open(&old).unwrap().set_modified(days_ago).unwrap();
    let server = launch("1s").start();
    server.put("app/a", "1");
    reaches(&server, "konsul_backups_made_total", 1);
    assert!(!old.exists() && young.exists());
    std::fs::write(backups.join("mine.txt"), "not a backup").unwrap();
    reaches(&server, "konsul_backups_made_total", 4);
    drop(server);
    let mut names: Vec<String> = std::fs::read_dir(&backups)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    assert_eq!((names.len(), names[2].as_str()), (3, "mine.txt"), "{names:?}");
    let server = launch("1h").start();
    for name in &names[..2] {
        server.ok(&["backup", "verify", &text(&backups.join(name))]);
    }
    // The next one is not due for an hour, and the last one is known.
    assert_eq!(metric(&server, "konsul_backups_made_total"), 0);
    assert!(metric(&server, "konsul_backup_last_time_seconds") > 1_700_000_000);
    server.ok(&["kv", "delete", "app/a"]);
    server.ok(&["backup", "restore", &text(&backups.join(&names[1])), "--yes"]);
    assert_eq!(server.ok(&["kv", "get", "app/a"]), "1");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("file");
    std::fs::write(&taken, "").unwrap();
    let server = Server::launch().set("KONSUL_BACKUP_FOLDER", taken.display()).start();
    reaches(&server, "konsul_backups_failed_total", 1);
    assert!(server.log().contains("no backup was made"), "{}", server.log());
    server.put("app/a", "1");
}
