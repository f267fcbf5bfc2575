//! `konsul lease`, `lock` and `elect`, and the guards of the Rust client, against real servers: what is held is held by one,
//! is told when it is lost, and outlives the leaders of the cluster.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use konsul_client::{Client, Code};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::konsul::{LIMIT, Run, Server};
use crate::members::Trio;

/// A command that runs, and whose lines are read as they come.
struct Going {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Going {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = server.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Its exit code, and what it complained of.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

/// Waits until this many claims on a lock wait.
fn wait_for_waiting(server: &Server, name: &str, waiting: u64) {
    let began = Instant::now();
    let count = || -> u64 {
        let lock: Value = server.json(&["lock", name]);
        lock["lock"]["waiting"].as_str().map_or(0, |n| n.parse().unwrap())
    };
    while count() != waiting {
        assert!(began.elapsed() < LIMIT, "{}", server.ok(&["lock", name]));
    }
}

#[test]
fn a_command_runs_alone_and_its_exit_code_is_returned() {
    let server = Server::start();
    let run = server.run(&["lock", "l", "--", "sh", "-c", "echo $KONSUL_FENCING_TOKEN; exit 7"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(7), ""));
    let token: u64 = run.text().trim().parse().unwrap();
    assert!(token > 0);
    assert_eq!(server.ok(&["lock", "l"]), "nobody holds it\n");

    let mut holder =
        Going::start(&server, &["lock", "l", "--", "sh", "-c", "echo $KONSUL_FENCING_TOKEN; exec sleep 60"]);
    let second: u64 = holder.line().parse().unwrap();
    assert!(second > token);
    let tried = server.run(&["lock", "--try", "l", "--", "true"]).failure(1);
    assert_eq!(tried, "lock l is not free: `konsul lock l` says who holds it");
    let waited = server.run(&["lock", "--wait", "100ms", "l", "--", "true"]).failure(1);
    assert!(waited.contains("100ms"), "{waited}");
    assert!(server.ok(&["lock", "l"]).contains("holds"));
    // Who waited no longer has left the line.
    wait_for_waiting(&server, "l", 0);
    let fence = |token| format!("l={token}");
    server.ok(&["kv", "put", "k", "v", "--if-locked", &fence(second)]);
    let stale = server.run(&["kv", "put", "k", "stale", "--if-locked", &fence(token)]).failure(1);
    assert!(stale.contains("is not held"), "{stale}");
    holder.signal(Signal::TERM);
    assert_eq!(holder.end(), (Some(143), String::new()));
    assert_eq!(server.ok(&["lock", "l"]), "nobody holds it\n");
}

#[test]
fn signals_are_passed_on_and_what_the_command_makes_of_them_counts() {
    let server = Server::start();
    // The shell would say what became of its `sleep`, which gets the signal too.
    let script = "exec 2>/dev/null; trap 'echo told; exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    let mut holder = Going::start(&server, &["lock", "l", "--", "sh", "-c", script]);
    assert_eq!(holder.line(), "ready");
    holder.signal(Signal::USR1);
    assert_eq!(holder.line(), "told");
    assert_eq!(holder.end(), (Some(5), String::new()));
}

#[test]
fn a_waiting_command_that_is_interrupted_leaves_the_line() {
    let server = Server::start();
    let mut holder = Going::start(&server, &["lock", "l", "--", "sh", "-c", "echo ready; exec sleep 60"]);
    holder.line();
    for (signal, code) in [(Signal::INT, 130), (Signal::HUP, 129)] {
        let waiting = Going::start(&server, &["lock", "l", "--", "true"]);
        wait_for_waiting(&server, "l", 1);
        waiting.signal(signal);
        assert_eq!(waiting.end(), (Some(code), String::new()));
        wait_for_waiting(&server, "l", 0);
    }
    holder.signal(Signal::TERM);
    holder.end();
}

#[test]
fn a_command_whose_lock_is_lost_is_told_at_once_and_killed_after_its_grace() {
    let server = Server::start();
    let stubborn = "exec 2>/dev/null; trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done";
    let lock = ["lock", "l", "--ttl", "1s", "--grace", "300ms", "--", "sh", "-c", stubborn];
    let mut holder = Going::start(&server, &lock);
    assert_eq!(holder.line(), "ready");
    let began = Instant::now();
    server.freeze();
    assert_eq!(holder.line(), "told");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let (code, complaints) = holder.end();
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = complaints.lines().collect();
    assert_eq!(
        lines,
        [
            "konsul: lock l is lost: telling the command to end",
            "konsul: the command did not end in time and is killed",
            "konsul: lock l is lost"
        ]
    );
}

#[test]
fn what_a_command_started_does_not_outlive_a_lost_lock() {
    let server = Server::start();
    // Its parent ends at once when it is told, and leaves it behind.
    let script = "(trap '' TERM; echo ready; exec sleep 600) & wait";
    let mut holder =
        Going::start(&server, &["lock", "l", "--ttl", "1s", "--grace", "300ms", "--", "sh", "-c", script]);
    assert_eq!(holder.line(), "ready");
    let began = Instant::now();
    server.freeze();
    // It has these pipes, too: they end with it.
    assert!(holder.lines.next().is_none());
    let (code, complaints) = holder.end();
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    assert_eq!(code, Some(1));
    assert!(complaints.contains("did not end in time and is killed"), "{complaints}");
}

#[test]
fn a_waiting_command_is_interrupted_although_no_server_answers() {
    let server = Server::start();
    let mut holder = Going::start(&server, &["lock", "l", "--", "sh", "-c", "echo ready; exec sleep 60"]);
    holder.line();
    let patience = ["--timeout", "1s"];
    let commands = [&["lock", "l", "--", "true"][..], &["elect", "e", "second", "--", "true"]];
    let mut first = Going::start(&server, &["elect", "e", "first"]);
    assert!(first.line().starts_with("leading e"));
    let waiting: Vec<Going> =
        commands.iter().map(|command| Going::start(&server, &[&patience[..], command].concat())).collect();
    wait_for_waiting(&server, "l", 1);
    let began = Instant::now();
    while server.json(&["lease", "list"])["leases"].as_array().unwrap().len() < 4 {
        assert!(began.elapsed() < LIMIT);
    }
    server.freeze();
    for waiting in waiting {
        waiting.signal(Signal::TERM);
        assert_eq!(waiting.end(), (Some(143), String::new()));
    }
    server.thaw();
    for held in [holder, first] {
        held.signal(Signal::TERM);
        held.end();
    }
}

#[test]
fn leases_are_granted_kept_shown_and_revoked() {
    let server = Server::start();
    let id = server.ok(&["lease", "grant", "1s", "--holder", "a test"]).trim().to_owned();
    server.ok(&["kv", "put", "k", "v", "--lease", &id]);
    let keeper = Going::start(&server, &["lease", "keep", "--revoke", &id]);
    // For longer than it lives by itself.
    std::thread::sleep(Duration::from_millis(2_500));
    let shown = server.ok(&["lease", "get", &id]);
    assert!(shown.contains("a test") && shown.ends_with("  k\n"), "{shown}");
    assert!(server.ok(&["lease", "list"]).contains(&id));
    assert_eq!(server.ok(&["lease", "refresh", &id]), format!("{id} has 1 s\n"));
    keeper.signal(Signal::INT);
    assert_eq!(keeper.end(), (Some(130), String::new()));
    assert!(server.run(&["kv", "get", "k"]).failure(1).contains("does not exist"));
    assert!(server.run(&["lease", "get", &id]).failure(1).contains("does not exist"));
    let refreshed = server.run(&["lease", "refresh", &id]);
    assert_eq!((refreshed.code, refreshed.text()), (Some(1), format!("{id} does not exist\n")));
    assert_eq!(server.ok(&["lease", "list"]), "");
    server.ok(&["kv", "put", "short", "v", "--ttl", "1s"]);
    let began = Instant::now();
    while server.run(&["kv", "get", "short"]).code == Some(0) {
        assert!(began.elapsed() < LIMIT);
    }
}

#[test]
fn one_of_several_is_elected_and_the_next_when_it_resigns() {
    let server = Server::start();
    assert_eq!(server.ok(&["elect", "e"]), "nobody leads\n");
    let mut first = Going::start(&server, &["elect", "e", "one"]);
    assert!(first.line().starts_with("leading e under token "));
    assert_eq!(server.ok(&["elect", "e"]), "one\n");
    let mut follower = Going::start(&server, &["elect", "e", "--watch"]);
    assert_eq!(follower.line(), "one");
    let script = "echo leading; exec sleep 60";
    let mut second = Going::start(&server, &["elect", "e", "two", "--", "sh", "-c", script]);
    first.signal(Signal::TERM);
    assert_eq!(first.end().0, Some(143));
    assert_eq!(second.line(), "leading");
    assert_eq!(server.ok(&["elect", "e"]), "two\n");
    while follower.line() != "two" {}
    second.signal(Signal::TERM);
    second.end();
    follower.signal(Signal::INT);
    assert_eq!(follower.end(), (Some(130), String::new()));
}

#[tokio::test]
async fn guards_are_given_up_when_they_go_and_tell_when_they_are_lost() {
    let server = Server::start();
    let client = Client::builder().address(&server.address).timeout(LIMIT).build().unwrap();
    let guard = client.locks().lock("l").ttl(Duration::from_secs(1)).value("first").await.unwrap();
    assert!(client.locks().lock("l").try_now().await.unwrap().is_none());
    let token = guard.token();
    drop(guard);
    // The next one has it as soon as that is done.
    let guard = client.locks().lock("l").ttl(Duration::from_secs(1)).wait(LIMIT).await.unwrap();
    assert!(guard.token() > token && !guard.is_lost());
    client.kv().put("k", "v").fence(guard.fence()).await.unwrap();
    guard.unlock().await.unwrap();
    let late = client.locks().lock("l").wait(Duration::from_millis(200));
    let held = client.leases().hold(Duration::from_secs(1)).await.unwrap();
    let other = client.locks().lock("l").lease(&held).await.unwrap();
    assert_eq!(late.await.unwrap_err().code(), Code::DeadlineExceeded);
    client.kv().put("mine", "v").lease(held.id()).await.unwrap();
    server.freeze();
    let began = Instant::now();
    other.lost().await;
    assert!(held.is_lost() && began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

/// Twenty processes count together, each adding one under the lock and writing a line in two halves, while the leaders of
/// the cluster are killed.
#[tokio::test]
async fn twenty_processes_count_together_while_leaders_are_killed() {
    const PROCESSES: usize = 20;
    const TIMES: usize = 4;
    const KILLS: usize = 3;
    let mut trio = Trio::start(None).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("count"), "0\n").unwrap();
    let script = "read n < count; n=$((n + 1)); printf '%s ' $n >> lines; sleep 0.01; echo $n > count; echo $KONSUL_FENCING_TOKEN >> lines";
    let addresses: Vec<String> = trio.servers.iter().map(|server| server.address.clone()).collect();
    let workers: Vec<_> = (0..PROCESSES)
        .map(|process| {
            let mut addresses = addresses.clone();
            addresses.rotate_left(process % 3);
            let lock = ["--timeout", "30s", "lock", "counter", "--", "sh", "-c", script];
            let command = || {
                let mut command = trio.servers[0].command(&lock);
                command.env("KONSUL_ADDR", addresses.join(",")).current_dir(folder.path());
                command
            };
            let commands: Vec<_> = (0..TIMES).map(|_| command()).collect();
            std::thread::spawn(move || {
                for mut command in commands {
                    assert_eq!(Run::of(&mut command, b"").success(), "");
                }
            })
        })
        .collect();
    let count = || -> usize {
        let count = std::fs::read_to_string(folder.path().join("count")).unwrap();
        // Whoever counts is about to write it.
        count.trim().parse().unwrap_or(0)
    };
    let goals = (1..=KILLS).map(|kill| kill * PROCESSES * TIMES / (KILLS + 1));
    for goal in goals {
        while count() < goal {
            assert!(!workers.iter().all(|worker| worker.is_finished()), "they counted to {} only", count());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let leader = trio.leader().await;
        trio.servers[leader].kill_and_restart();
    }
    for worker in workers {
        worker.join().unwrap();
    }
    let lines = std::fs::read_to_string(folder.path().join("lines")).unwrap();
    let mut last = 0;
    for (number, line) in lines.lines().enumerate() {
        let (count, token) = line.split_once(' ').unwrap();
        assert_eq!(count, (number + 1).to_string(), "{lines}");
        let token: u64 = token.parse().unwrap();
        assert!(token > last, "{lines}");
        last = token;
    }
    assert_eq!(lines.lines().count(), PROCESSES * TIMES);
}
