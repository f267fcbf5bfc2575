//! Runs every example against a real server. Each must end by itself, in time, and with its own checks passed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to be ready, and an example to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A server that is killed when this is dropped.
struct Server {
    process: Child,
    address: String,
    data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let address_file = data.path().join("address");
        let process = Command::new(built("konsul"))
            .args(["server", "--listen", "127.0.0.1:0", "--dns-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path().join("data"))
            .arg("--address-file")
            .arg(&address_file)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(data.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { process, address: String::new(), data };
        server.address = format!("http://{}", server.wait_for(&address_file));
        server
    }

    fn wait_for(&mut self, address_file: &Path) -> String {
        let started = Instant::now();
        loop {
            if let Ok(address) = std::fs::read_to_string(address_file) {
                return address.trim().to_string();
            }
            let ended = self.process.try_wait().unwrap();
            if ended.is_some() || started.elapsed() > LIMIT {
                let log = std::fs::read_to_string(self.data.path().join("log")).unwrap();
                panic!("the server is not ready ({ended:?}): {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program of this workspace that lies in the same target folder as this test.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(2).unwrap();
    let program = folder.join(name);
    assert!(
        program.exists(),
        "{} is not there: build it first with `cargo build -p konsul` (and the same profile)",
        program.display()
    );
    program
}

/// The names of the examples, from their files.
fn examples() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn run(example: &str, address: &str) -> Output {
    let mut child = Command::new(built("examples").join(example))
        .env("KONSUL_ADDR", address)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{example} cannot be started: {error}"));
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > LIMIT {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{example} did not end within {LIMIT:?}: {output:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn every_example_does_what_it_says() {
    let server = Server::start();
    let names = examples();
    assert!(names.len() >= 9, "examples went missing: {names:?}");
    // Twice: what a run leaves behind must not break the next one.
    for round in ["first", "second"] {
        for name in &names {
            let output = run(name, &server.address);
            let (stdout, stderr) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{name}, {round} run: {}\n{stdout}{stderr}", output.status);
            assert!(!stdout.is_empty(), "{name} says nothing");
        }
    }
}

#[test]
fn every_example_is_in_the_readme() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for name in examples() {
        assert!(readme.contains(&format!("[{name}](examples/{name}.rs)")), "{name} is missing");
    }
}
