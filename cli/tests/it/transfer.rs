//! `konsul export` and `konsul import`: what goes out comes in again, what is damaged does not, and what is there is left alone, or
//! not, as asked. The keys of a real etcd come over as they are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::konsul::{LIMIT, Run, Server};
use crate::server::free_port;

/// Keys with what an export has to carry.
fn fill(server: &Server) {
    server.ok(&["kv", "put", "app/a", "1", "--flags", "7", "--content-type", "text/plain"]);
    server.run_with_stdin(&["kv", "put", "app/bytes", "-"], &[0, 255, b'\n']).success();
    server.ok(&["kv", "put", "app/empty", ""]);
    server.ok(&["kv", "put", "app/short", "gone soon", "--ttl", "1h"]);
    server.put("other \"quoted\"", "é");
}

/// Keys and what they hold.
fn entries(server: &Server, prefix: &str) -> Vec<serde_json::Value> {
    let content = |entry: &serde_json::Value| {
        let field = |name: &str| entry[name].clone();
        serde_json::json!([field("key"), field("value"), field("flags"), field("contentType")])
    };
    let page = server.json(&["kv", "list", prefix]);
    page["entries"].as_array().map(|entries| entries.iter().map(content).collect()).unwrap_or_default()
}

#[test]
fn what_was_exported_comes_back() {
    let (from, to) = (Server::start(), Server::start());
    fill(&from);
    let file = from.path("all.jsonl");
    let file = file.to_str().unwrap();
    assert_eq!(from.ok(&["export", file]), "exported 4 keys\n");
    let lines = std::fs::read_to_string(file).unwrap();
    assert_eq!(lines.lines().count(), 6);
    let dry = to.json(&["import", file, "--dry-run"]);
    assert_eq!((dry["written"].as_u64(), dry["skipped"].as_u64()), (Some(4), Some(0)));
    assert!(entries(&to, "").is_empty());
    assert!(to.ok(&["import", file]).starts_with("wrote 4 keys in "));
    let mut expected = entries(&from, "");
    expected.retain(|entry| entry[0] != "app/short");
    assert_eq!(entries(&to, ""), expected);

    // Through a pipe, a part of it, as it was, with what is bound to a lease.
    let revision = from.put("app/a", "2") - 1;
    let part =
        from.run(&["export", "-", "--prefix", "app/", "--revision", &revision.to_string(), "--with-leased"]);
    let other = Server::start();
    other.run_with_stdin(&["import", "-", "--atomic"], &part.stdout).success();
    assert_eq!(entries(&other, "").len(), 4);
    assert_eq!(other.ok(&["kv", "get", "app/a"]), "1");
    assert_eq!(other.json(&["status"])["revision"], "1", "all at one revision");
}

#[test]
fn keys_that_are_there_are_refused_left_or_overwritten() {
    let (from, to) = (Server::start(), Server::start());
    fill(&from);
    let file = from.path("all.jsonl");
    let file = file.to_str().unwrap();
    from.ok(&["export", file]);
    to.put("app/empty", "mine");
    let before = to.json(&["status"])["revision"].clone();
    assert!(
        to.run(&["import", file, "--dry-run"]).failure(1).starts_with("1 of these keys are there already")
    );
    assert!(to.run(&["import", file]).failure(1).contains("app/empty"));
    assert_eq!(to.json(&["status"])["revision"], before, "a batch is written whole or not at all");
    let skipped = to.json(&["import", file, "--on-conflict", "skip"]);
    assert_eq!((skipped["written"].as_u64(), skipped["skipped"].as_u64()), (Some(3), Some(1)));
    assert_eq!(to.ok(&["kv", "get", "app/empty"]), "mine");
    let again = to.json(&["import", file, "--on-conflict", "skip"]);
    assert_eq!((again["written"].as_u64(), again["skipped"].as_u64()), (Some(0), Some(4)));
    let over = to.json(&["import", file, "--on-conflict", "overwrite", "--dry-run"]);
    assert_eq!((over["written"].as_u64(), over["overwritten"].as_u64()), (Some(0), Some(4)));
    to.ok(&["import", file, "--on-conflict", "overwrite"]);
    assert_eq!(to.ok(&["kv", "get", "app/empty"]), "");
    let after =
        to.json(&["import", file, "--on-conflict", "skip", "--after", "app/bytes", "--prefix", "app/"]);
    assert_eq!(after["skipped"], 1);
}

#[test]
fn what_is_cut_off_or_damaged_is_refused() {
    let server = Server::start();
    fill(&server);
    let file = server.path("all.jsonl");
    server.ok(&["export", file.to_str().unwrap()]);
    let whole = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let target = Server::start();
    for (lines, why) in [
        (lines[..5].join("\n"), "its end is missing"),
        ([&lines[..2], &lines[3..]].concat().join("\n"), "it says it has 4 keys, and has 3"),
        (lines[1..].join("\n"), "it does not begin as an export does"),
        (whole.replace("\"value\":\"", "\"value\":\"?"), "line 2: the value is not in base64"),
        (format!("{whole}{{}}\n"), "line 7 comes after its end"),
        (String::new(), "it does not begin as an export does"),
    ] {
        let refused = target.run_with_stdin(&["import", "-", "--atomic"], format!("{lines}\n").as_bytes());
        let refused = refused.failure(1);
        assert!(refused.contains(why), "{why}: {refused}");
        assert!(entries(&target, "").is_empty());
    }
    let missing = server.run(&["import", "nowhere.jsonl"]).failure(1);
    assert!(missing.starts_with("cannot read nowhere.jsonl: "), "{missing}");
    let nowhere = server.run(&["export", "no/such/folder.jsonl"]).failure(1);
    assert!(nowhere.starts_with("cannot write no/such/folder.jsonl: "), "{nowhere}");
}

#[test]
fn more_keys_than_one_call_writes_are_not_imported_at_once() {
    let (from, to) = (Server::start(), Server::start());
    let lines: Vec<String> =
        (0..600).map(|n| format!(r#"{{"key":"k{n:03}","flags":{n},"value":"dg=="}}"#)).collect();
    let consul = format!("[{}]", lines.join(","));
    let run = |arguments: &[&str]| {
        from.run_with_stdin(&[&["import", "-", "--from", "consul"], arguments].concat(), consul.as_bytes())
    };
    assert!(run(&["--atomic"]).failure(1).contains("more than 256 keys"));
    assert!(run(&[]).success().starts_with("wrote 600 keys"));
    assert_eq!(entries(&from, "k599")[0], serde_json::json!(["k599", "dg==", "599", null]));
    let export = from.run(&["export", "-"]).stdout;
    to.run_with_stdin(&["import", "-"], &export).success();
    assert_eq!(entries(&to, ""), entries(&from, ""));
    assert!(
        from.run_with_stdin(&["import", "-", "--from", "consul"], b"{}")
            .failure(1)
            .contains("Consul writes it otherwise")
    );
}

/// A real etcd, Debian's.
struct Etcd {
    process: Child,
    endpoint: String,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Etcd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (endpoint, peer) =
            (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(folder.path());
        for (name, value) in [
            ("--listen-client-urls", &endpoint),
            ("--advertise-client-urls", &endpoint),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
        ] {
            command.arg(name).arg(value);
        }
        command.arg("--initial-cluster").arg(format!("default={peer}"));
        let process =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("Debian's etcd-server");
        let etcd = Self { process, endpoint, _folder: folder };
        let began = Instant::now();
        while !etcd.ctl(&["endpoint", "health"]).status.success() {
            assert!(began.elapsed() < LIMIT, "etcd does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        etcd
    }

    /// Writes keys from `app/0000` on, in hundreds.
    fn fill(&self, keys: usize) {
        self.fill_with(keys, 100, |n| format!("value-{n}"));
    }

    /// Writes keys from `app/0000` on, so many at a time.
    fn fill_with(&self, keys: usize, at_once: usize, value: impl Fn(usize) -> String) {
        for first in (0..keys).step_by(at_once) {
            let put = |n| format!("put app/{n:04} {}\n", value(n));
            let puts: String = (first..first + at_once).map(put).collect();
            let mut txn = Command::new("etcdctl");
            txn.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint, "txn"]);
            assert_eq!(Run::of(&mut txn, format!("\n{puts}\n\n").as_bytes()).code, Some(0));
        }
    }

    /// How many ranges of keys it was asked for.
    fn ranges(&self) -> u64 {
        let mut connection = TcpStream::connect(self.endpoint.strip_prefix("http://").unwrap()).unwrap();
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut metrics = String::new();
        connection.read_to_string(&mut metrics).unwrap();
        let ranges = |line: &str| {
            let is_range =
                line.starts_with("grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Range\"");
            is_range.then(|| line.rsplit(' ').next().unwrap().parse().unwrap())
        };
        metrics.lines().find_map(ranges).unwrap_or(0)
    }

    fn ctl(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.endpoint])
            .args(arguments)
            .output()
            .unwrap()
    }
}

#[test]
fn the_keys_of_an_etcd_come_over() {
    let (etcd, server) = (Etcd::start(), Server::start());
    // The first page has a thousand, the second one two.
    etcd.fill(2_400);
    etcd.ctl(&["put", "other", "1"]);
    let granted = String::from_utf8(etcd.ctl(&["lease", "grant", "600"]).stdout).unwrap();
    let lease = granted.split_whitespace().nth(1).unwrap();
    etcd.ctl(&["put", "app/leased", "1", "--lease", lease]);
    let imported = server.json(&["import", "--from", "etcd", &etcd.endpoint, "--prefix", "app/"]);
    assert_eq!((imported["written"].as_u64(), imported["last"].as_str()), (Some(2_400), Some("app/2399")));
    assert_eq!(imported["leased"], 1);
    assert_eq!(server.ok(&["kv", "list", "--count"]), "2400\n");
    for n in [0, 999, 1_000, 2_399] {
        assert_eq!(server.ok(&["kv", "get", &format!("app/{n:04}")]), format!("value-{n}"));
    }
    let rest = server.json(&[
        "import",
        "--from",
        "etcd",
        &etcd.endpoint,
        "--after",
        "app/2397",
        "--on-conflict",
        "skip",
    ]);
    assert_eq!((rest["written"].as_u64(), rest["skipped"].as_u64()), (Some(1), Some(2)));
    let told = server.ok(&["import", "--from", "etcd", &etcd.endpoint, "--on-conflict", "skip"]);
    assert!(told.contains(", left out 1 that are bound to a lease in "), "{told}");
    let gone = format!("http://127.0.0.1:{}", free_port());
    assert!(server.run(&["import", "--from", "etcd", &gone]).failure(1).starts_with("cannot read etcd at "));
}

#[test]
fn the_keys_of_an_etcd_are_of_one_revision_although_it_is_written_meanwhile() {
    let (etcd, server) = (Etcd::start(), Server::start());
    etcd.fill(6_000);
    let before = etcd.ranges();
    // Nobody takes what is read, so that there are pages to be read later.
    server.freeze();
    let mut command =
        server.command(&["--timeout", "1m", "import", "--from", "etcd", &etcd.endpoint, "-o", "json"]);
    let import = command.stdout(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while etcd.ranges() < before + 2 {
        assert!(began.elapsed() < LIMIT, "only {} pages are read", etcd.ranges() - before);
    }
    etcd.ctl(&["put", "app/5999", "later"]);
    etcd.ctl(&["del", "app/5998"]);
    server.thaw();
    let imported: serde_json::Value =
        serde_json::from_slice(&import.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(imported["written"], 6_000);
    assert_eq!(server.ok(&["kv", "get", "app/5999"]), "value-5999");
    assert_eq!(server.ok(&["kv", "get", "app/5998"]), "value-5998");
}

#[test]
fn a_page_of_an_etcd_that_is_too_large_is_asked_for_again_with_fewer_keys() {
    let (etcd, server) = (Etcd::start(), Server::start());
    // 88 MiB; a page is taken up to 64.
    let value = |n: usize| format!("{n}-{}", "x".repeat(100 << 10));
    etcd.fill_with(900, 10, value);
    let imported = server.json(&["import", "--from", "etcd", &etcd.endpoint]);
    assert_eq!(imported["written"], 900);
    assert_eq!(server.ok(&["kv", "get", "app/0899"]), value(899));
}

#[test]
fn an_etcd_that_hangs_is_not_waited_for() {
    let server = Server::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let hung = server.run(&["--timeout", "200ms", "import", "--from", "etcd", &endpoint]).failure(1);
    assert_eq!(hung, format!("cannot read etcd at {endpoint}: no answer within 200ms"));
}

#[test]
fn an_import_that_fails_says_what_it_wrote_all_the_same() {
    let server = Server::start();
    let lines: Vec<String> =
        (0..600).map(|n| format!(r#"{{"key":"k{n:03}","flags":0,"value":"dg=="}}"#)).collect();
    let consul = format!("[{}]", lines.join(","));
    let import = |arguments: &[&str]| {
        let arguments = [&["import", "-", "--from", "consul"], arguments].concat();
        server.run_with_stdin(&arguments, consul.as_bytes())
    };
    // The first batch fails, and those that were under way with it do not.
    server.put("k000", "mine");
    let failed = import(&[]);
    assert_eq!((failed.code, failed.text().as_str()), (Some(1), ""));
    let told: Vec<&str> = failed.stderr.lines().collect();
    assert_eq!(
        told[0],
        "konsul: 344 keys were imported; some later keys may be there: go on with --on-conflict skip"
    );
    assert!(told.len() == 2 && told[1].contains("k000"), "{told:?}");
    assert_eq!(server.ok(&["kv", "list", "--count"]), "345\n");
    // The second one fails.
    server.ok(&["kv", "delete", "--prefix", ""]);
    server.put("k300", "mine");
    let told = import(&[]).stderr;
    let how = "344 keys were imported, all up to \"k255\"; some later keys may be there: go on with --after \"k255\" --on-conflict skip";
    assert!(told.contains(how), "{told}");
    import(&["--after", "k255", "--on-conflict", "skip"]).success();
    assert_eq!(server.ok(&["kv", "list", "--count"]), "600\n");
}

#[test]
fn what_is_no_file_is_written_to_and_an_error_names_it() {
    let server = Server::start();
    server.put("k", "v");
    assert_eq!(server.ok(&["export", "/dev/null"]), "exported 1 keys\n");
    let full = server.run(&["export", "/dev/full"]).failure(1);
    assert!(full.starts_with("cannot write /dev/full: "), "{full}");
    let folder = server.run(&["export", "/tmp"]).failure(1);
    assert!(folder.starts_with("cannot write /tmp: "), "{folder}");
}
