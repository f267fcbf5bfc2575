//! A data directory that can't be used: one clear line, an exit code, and nothing in it is changed. The same for an
//! address or a setting that can't be used.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use konsul_proto::v1::PutRequest;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

use crate::konsul::{LIMIT, Run, konsul};
use crate::server::Server;

/// `nobody`, for whom permissions count even if they don't for who runs the tests.
const NOBODY: u32 = 65_534;

/// Runs a server that must not start: what it says in its one line.
fn refusal(command: &mut Command, code: i32) -> String {
    command
        .env("KONSUL_LOG_FILTER", "error,openraft=error,raft_engine=error")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("the server does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Run { code: output.status.code(), stdout: output.stdout, stderr }.failure(code)
}

fn server_on(dir: &Path) -> Command {
    let mut command = konsul();
    command.args(["server", "--listen", "127.0.0.1:0", "--dns-listen", "127.0.0.1:0", "--data-dir"]).arg(dir);
    command
}

/// A hash of the names and contents of all there is in a directory, but for locks.
pub(crate) fn hash(dir: &Path) -> u128 {
    let mut hash = Xxh3::new();
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    for path in found {
        let name = path.file_name().unwrap().to_str().unwrap();
        if ["LOCK", "lock.mdb"].contains(&name) {
            continue;
        }
        hash.update(name.as_bytes());
        match path.is_dir() {
            true => hash.update(&self::hash(&path).to_le_bytes()),
            false => hash_file(&path, &mut hash),
        }
    }
    hash.digest128()
}

/// The state's file is sparse and very long: what is not there is not read.
fn hash_file(path: &Path, hash: &mut Xxh3) {
    let file = File::open(path).unwrap();
    hash.update(&file.metadata().unwrap().len().to_le_bytes());
    let mut at = 0;
    loop {
        let data = match seek(&file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let hole = seek(&file, SeekFrom::Hole(data)).unwrap();
        for at in (data..hole).step_by(1 << 16) {
            let mut block = vec![0; (hole - at).min(1 << 16) as usize];
            file.read_exact_at(&mut block, at).unwrap();
            if block.iter().any(|byte| *byte != 0) {
                hash.update(&at.to_le_bytes());
                hash.update(&block);
            }
        }
        at = hole;
    }
}

/// A data directory of a server that was killed: with a log, a state, and a snapshot that the log goes on after.
pub(crate) struct Used {
    folder: TempDir,
    pub(crate) made: PathBuf,
}

impl Used {
    pub(crate) fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        let mut server =
            Server::launch().set("KONSUL_RAFT_SNAPSHOT_LOG_BYTES", "1MiB").data_dir(&made).start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut kv = server.kv();
            let mut put = async |n: usize, bytes: usize| {
                let value = vec![b'a' + (n % 26) as u8; bytes].into();
                let put = PutRequest { key: format!("key-{n}"), value, ..PutRequest::default() };
                kv.put(put).await.unwrap()
            };
            let began = Instant::now();
            let mut count = 0;
            while !server.log().contains("made a snapshot") {
                put(count, 32 << 10).await;
                count += 1;
                assert!(began.elapsed() < LIMIT, "no snapshot is made");
            }
            // Far fewer bytes than the next snapshot is made of.
            for n in 0..4 {
                put(n, 100).await;
            }
        });
        server.kill();
        Self { folder, made }
    }

    /// A copy of it.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let copy = self.folder.path().join(name);
        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(&self.made).arg(&copy).status();
        assert!(copied.unwrap().success());
        copy
    }

    /// Spoils a copy, and checks that no server starts on it and that it is left as it is.
    fn refuses(&self, name: &str, spoil: impl FnOnce(&Path), says: &[&str]) {
        let dir = self.copy(name);
        spoil(&dir);
        let before = hash(&dir);
        let line = refusal(&mut server_on(&dir), 1);
        for text in says {
            assert!(line.contains(text), "{name}: {line}");
        }
        assert_eq!(hash(&dir), before, "{name}: the directory was changed ({line})");
        // It was this damage and no other that kept the server from starting.
        let again = refusal(&mut server_on(&dir), 1);
        assert_eq!(again, line, "{name}");
        fs::remove_dir_all(dir).unwrap();
    }
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

pub(crate) fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

pub(crate) fn flip_at(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

/// The only file below `dir` whose path ends so.
pub(crate) fn file(dir: &Path, end: &str) -> PathBuf {
    fn all(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { all(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    all(dir, &mut found);
    found.retain(|path| path.to_str().unwrap().ends_with(end));
    found.sort();
    found.swap_remove(0)
}

/// As after a power loss: the state is not to be trusted.
pub(crate) fn distrust(dir: &Path) {
    let path = dir.join("state/MARKER");
    let text = fs::read_to_string(&path).unwrap();
    let boot = text.lines().find_map(|line| line.strip_prefix("open ")).unwrap();
    fs::write(&path, text.replace(boot, "00000000-0000-0000-0000-000000000000")).unwrap();
}

#[test]
fn a_damaged_directory_is_refused_and_left_as_it_is() {
    let used = Used::make();
    let version = |dir: &Path| dir.join("VERSION");
    let newer = ["format 3", "use a newer konsul"];
    used.refuses("newer", |dir| replace(&version(dir), "konsul data 2", "konsul data 3"), &newer);
    used.refuses("no-version", |dir| fs::write(version(dir), "\0\0").unwrap(), &["VERSION", "damaged"]);
    used.refuses("bare", |dir| fs::remove_file(version(dir)).unwrap(), &["not a konsul data directory"]);
    used.refuses("marker", |dir| fs::write(dir.join("state/MARKER"), "x").unwrap(), &["MARKER"]);
    // Both of LMDB's meta pages.
    used.refuses(
        "state",
        |dir| write_at(&file(&dir.join("state"), "data.mdb"), 0, &[0x55; 8192]),
        &["state"],
    );
    used.refuses("log", |dir| flip_at(&file(&dir.join("log"), ".raftlog"), 100_000), &["log is damaged"]);
    // As if the log's end had never reached the disk.
    let no_end = |dir: &Path| {
        let log = file(&dir.join("log"), ".raftlog");
        let bytes = fs::metadata(&log).unwrap().len() as usize;
        write_at(&log, 700_000, &vec![0; bytes - 700_000]);
    };
    used.refuses("no-end", no_end, &["log", "ends at entry"]);
    let meta = |dir: &Path| fs::write(file(&dir.join("snapshots"), "META"), "konsul").unwrap();
    used.refuses("snapshot-meta", meta, &["META", "damaged"]);
    let snapshot = |dir: &Path| {
        flip_at(&file(&dir.join("snapshots"), "data.mdb"), 50_000);
        distrust(dir);
    };
    used.refuses("snapshot", snapshot, &["data.mdb", "checksum"]);

    // Without any damage it starts.
    let dir = used.copy("whole");
    drop(Server::launch().data_dir(&dir).start());
}

#[test]
fn a_directory_that_is_not_its_own_is_refused() {
    let server = Server::start();
    let line = refusal(&mut server_on(server.data_dir()), 1);
    assert!(line.contains("in use") && line.contains(server.data_dir().to_str().unwrap()), "{line}");
    server.ok(&["kv", "put", "key", "value"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "mine").unwrap();
    for dir in [path.clone(), path.join("below")] {
        let line = refusal(&mut server_on(&dir), 1);
        assert!(line.contains(path.to_str().unwrap()) && line.contains("irectory"), "{line}");
    }
    let line = refusal(&mut server_on(folder.path()), 1);
    assert!(line.contains("not empty and not a konsul data directory"), "{line}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_without_permission_is_refused() {
    let mut server = Server::start();
    server.ok(&["kv", "put", "key", "value"]);
    server.kill();
    let dir = server.data_dir().to_owned();
    let before = hash(&dir);
    let mode = |mode| fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    let mut command = server_on(&dir);
    if rustix::process::geteuid().is_root() {
        // Tests may run where only root may go, so the binary is taken to where everybody may.
        let public = tempfile::tempdir().unwrap();
        fs::set_permissions(public.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = public.path().join("konsul");
        fs::copy(env!("CARGO_BIN_EXE_konsul"), &binary).unwrap();
        command = Command::new(&binary);
        command.args(["server", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&dir);
        command.current_dir("/").stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        let line = refusal(&mut command, 1);
        assert!(line.contains("ermission denied") && line.contains(dir.to_str().unwrap()), "{line}");
    } else {
        let line = refusal(&mut command, 1);
        assert!(line.contains("ermission denied") && line.contains(dir.to_str().unwrap()), "{line}");
    }
    mode(0o755);
    assert_eq!(hash(&dir), before);
}

#[test]
fn an_address_or_a_setting_that_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = konsul();
    command.args(["server", "--listen", &address, "--data-dir"]).arg(&data);
    let line = refusal(&mut command, 1);
    assert!(line.contains(&address) && line.contains("in use"), "{line}");

    let file = folder.path().join("konsul.toml");
    fs::write(&file, "[server]\n\nlisen = \"127.0.0.1:0\"\n").unwrap();
    let mut unknown_in_file = server_on(&data);
    unknown_in_file.arg("--config").arg(&file);
    let wrong = folder.path().join("wrong.toml");
    fs::write(&wrong, "[limits]\nmax_value_bytes = \"1GiB\"\n").unwrap();
    let mut wrong_in_file = server_on(&data);
    wrong_in_file.arg("--config").arg(&wrong);
    let mut unknown_in_environment = server_on(&data);
    unknown_in_environment.env("KONSUL_SERVER_LISEN", "x");
    let mut wrong_in_environment = server_on(&data);
    wrong_in_environment.env("KONSUL_RAFT_MAX_WAITING_WRITES", "many");
    let mut wrong_flag = konsul();
    wrong_flag.args(["server", "--listen", "nowhere", "--data-dir"]).arg(&data);
    let mut dev = konsul();
    dev.args(["server", "--dev", "--listen", "0.0.0.0:0"]);
    let mut no_file = server_on(&data);
    no_file.args(["--config", "/nowhere/konsul.toml"]);
    let (in_file, in_wrong) = (format!("{}:3", file.display()), format!("{}:2", wrong.display()));
    let cases: Vec<(&mut Command, Vec<&str>)> = vec![
        (&mut unknown_in_file, vec![&in_file, "server.lisen", "did you mean server.listen"]),
        (&mut wrong_in_file, vec![&in_wrong, "limits.max_value_bytes", "1GiB"]),
        (&mut unknown_in_environment, vec!["KONSUL_SERVER_LISEN", "did you mean KONSUL_SERVER_LISTEN"]),
        (
            &mut wrong_in_environment,
            vec!["KONSUL_RAFT_MAX_WAITING_WRITES", "raft.max_waiting_writes", "many"],
        ),
        (&mut wrong_flag, vec!["--listen", "server.listen", "nowhere"]),
        (&mut dev, vec!["--dev", "loopback", "0.0.0.0"]),
        (&mut no_file, vec!["/nowhere/konsul.toml"]),
    ];
    for (command, says) in cases {
        let line = refusal(command, 2);
        assert!(says.iter().all(|text| line.contains(text)), "{says:?}: {line}");
    }
    assert!(!data.exists(), "a server that does not start makes no directory");
}
