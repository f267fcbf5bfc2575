//! `konsul kv watch`: what it prints, what it runs, and that it survives its server.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::konsul::LIMIT;
use crate::server::Server;

/// A watch that runs, and what it prints line by line.
struct Watching {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watching {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut command = server.command(&[&["kv", "watch"], arguments].concat());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().unwrap_or_else(|| panic!("the watch ended")).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for the end: exit code and stderr.
    fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < LIMIT, "the watch did not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let stderr = std::io::read_to_string(self.process.stderr.take().unwrap()).unwrap();
        (self.process.wait().unwrap().code(), stderr)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn changes_are_printed_one_a_line() {
    let server = Server::start();
    server.put("app/a", "1");
    server.put("other", "x");
    server.put("app/b", "two\nlines");
    server.ok(&["kv", "delete", "app/a"]);

    let mut watch = Watching::start(&server, &["app/", "--from-revision", "1"]);
    assert_eq!(watch.line(), "1 put app/a 1");
    assert_eq!(watch.line(), "3 put app/b two\\nlines");
    assert_eq!(watch.line(), "4 delete app/a");
    server.put("app/c", "live");
    assert_eq!(watch.line(), "5 put app/c live");

    let mut key = Watching::start(&server, &["app/a", "--from-revision", "1", "-o", "json", "--previous"]);
    let put: Value = serde_json::from_str(&key.line()).unwrap();
    assert_eq!((&put["type"], &put["entry"]["value"]), (&"TYPE_PUT".into(), &"MQ==".into()));
    let delete: Value = serde_json::from_str(&key.line()).unwrap();
    assert_eq!((&delete["type"], &delete["previous"]["value"]), (&"TYPE_DELETE".into(), &"MQ==".into()));

    let mut initial = Watching::start(&server, &["app", "--prefix", "--initial"]);
    assert_eq!(initial.line(), "3 put app/b two\\nlines");
    assert_eq!(initial.line(), "5 put app/c live");
    server.put("app/b", "three");
    assert_eq!(initial.line(), "6 put app/b three");
}

#[test]
fn once_ends_after_one_event() {
    let server = Server::start();
    server.put("k", "1");
    server.put("k", "2");
    assert_eq!(server.ok(&["kv", "watch", "k", "--from-revision", "1", "--once"]), "1 put k 1\n");
    assert_eq!(server.ok(&["kv", "watch", "k", "--initial", "--once"]), "2 put k 2\n");
}

#[test]
fn without_a_start_it_tells_what_comes() {
    let server = Server::start();
    server.put("k", "before");
    let mut watch = Watching::start(&server, &["k", "--once"]);
    // Nothing tells that the watch is open; so write until it saw one.
    let mut number = 0;
    while watch.process.try_wait().unwrap().is_none() {
        number += 1;
        server.put("k", &format!("after-{number}"));
    }
    let line = watch.line();
    assert!(line.contains("put k after-"), "{line}");
    assert_eq!(watch.end(), (Some(0), String::new()));
}

#[test]
fn a_compacted_start_is_an_error() {
    let server = Server::start();
    for value in ["1", "2", "3"] {
        server.put("k", value);
    }
    server.ok(&["compact", "2"]);
    let line = server.run(&["kv", "watch", "k", "--from-revision", "1"]).failure(1);
    assert!(line.contains("compacted"), "{line}");
    assert_eq!(server.ok(&["kv", "watch", "k", "--from-revision", "3", "--once"]), "3 put k 3\n");
}

#[test]
fn signals_end_it_silently() {
    let server = Server::start();
    server.put("k", "1");
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut watch = Watching::start(&server, &["k", "--initial"]);
        watch.line();
        watch.signal(signal);
        assert_eq!(watch.end(), (Some(code), String::new()));
    }
}

#[test]
fn a_command_runs_for_each_change_in_order() {
    let server = Server::start();
    server.put("app/a", "1");
    server.put("app/b", "2");
    // The JSON is one line.
    let script = r#"read -r json; echo "$KONSUL_EVENT $KONSUL_KEY $KONSUL_REVISION $json""#;
    let mut watch = Watching::start(&server, &["app/", "--initial", "--exec", script]);
    let first = watch.line();
    let (head, json) = first.split_once('{').unwrap();
    assert_eq!(head, "put app/a 1 ");
    let event: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
    assert_eq!((&event["type"], &event["entry"]["value"]), (&"TYPE_PUT".into(), &"MQ==".into()));
    assert!(watch.line().starts_with("put app/b 2 {"));
    server.ok(&["kv", "delete", "app/a"]);
    assert!(watch.line().starts_with("delete app/a 3 {"));

    // A slow command delays the next one rather than run beside it.
    let script = r#"echo "begin $KONSUL_REVISION"; sleep 0.1; echo "end $KONSUL_REVISION""#;
    let mut watch = Watching::start(&server, &["app/", "--from-revision", "1", "--exec", script]);
    let lines: Vec<String> = (0..6).map(|_| watch.line()).collect();
    assert_eq!(lines, ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]);
}

#[test]
fn a_failing_command_is_reported_and_the_watch_goes_on() {
    let server = Server::start();
    server.put("app/a", "1");
    server.put("app/b", "2");
    // A command that does not read a large event must not block the watch either.
    server.run_with_stdin(&["kv", "put", "app/large", "-"], &vec![b'x'; 500_000]).success();
    let script = r#"echo "$KONSUL_KEY"; exit 7"#;
    let mut watch = Watching::start(&server, &["app/", "--initial", "--exec", script]);
    assert_eq!([watch.line(), watch.line(), watch.line()], ["app/a", "app/b", "app/large"]);
    watch.signal("-TERM");
    let (code, stderr) = watch.end();
    assert_eq!(code, Some(143));
    assert!(stderr.lines().all(|line| line.starts_with("konsul: the command failed (exit status: 7) on")));
    assert!(stderr.lines().count() >= 2, "{stderr}");

    let arguments = ["kv", "watch", "app/", "--initial", "--exec", "exit 7", "--exec-fail-fast"];
    let line = server.run(&arguments).failure(7);
    assert_eq!(line, "the command failed (exit status: 7) on revision 1 of app/a");
}

#[test]
fn a_signal_lets_the_running_command_finish() {
    let server = Server::start();
    server.put("app/a", "1");
    let script = r#"echo begin; sleep 0.5; echo end; echo done > finished"#;
    let mut watch = Watching::start(&server, &["app/", "--initial", "--exec", script]);
    assert_eq!(watch.line(), "begin");
    watch.signal("-TERM");
    assert_eq!(watch.line(), "end");
    assert_eq!(watch.end(), (Some(143), String::new()));
    assert_eq!(std::fs::read_to_string(server.path("finished")).unwrap(), "done\n");
}

#[test]
fn a_killed_server_costs_no_change_and_repeats_none() {
    let mut server = Server::start();
    let mut watch = Watching::start(&server, &["k", "--from-revision", "1"]);
    let mut expected = 0;
    for _ in 0..3 {
        for _ in 0..5 {
            expected = server.put("k", "v");
        }
        server.kill_and_restart();
        server.put("k", "v");
        expected += 1;
    }
    let seen: Vec<String> = (0..expected).map(|_| watch.line()).collect();
    let all: Vec<String> = (1..=expected).map(|revision| format!("{revision} put k v")).collect();
    assert_eq!(seen, all);
}

#[test]
fn a_reader_that_stops_reading_is_no_error() {
    let server = Server::start();
    server.put("k", "1");
    let mut command = Command::new("sh");
    let script = format!(
        "{} kv watch k --from-revision 1 --addr http://{} | head -1; echo done >&2",
        env!("CARGO_BIN_EXE_konsul"),
        server.address
    );
    // The watch notices the closed pipe with the next event.
    let mut child =
        command.arg("-c").arg(script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < LIMIT);
        server.put("k", "2");
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1 put k 1\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "done\n");
}
