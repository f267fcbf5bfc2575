//! The started server that all these tests talk to: where it runs, how it ends, what it logged. Commands are run by
//! `konsul`.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::kv_client::KvClient;
use konsul_proto::v1::{StatusRequest, StatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::konsul::{LIMIT, konsul};

pub(crate) type Kv = KvClient<Channel>;

/// The last lines of a server's log that a failed test shows.
const LOG_LINES: usize = 60;

/// How a server is started.
pub(crate) struct Launch {
    data_dir: Option<PathBuf>,
    settings: Vec<(&'static str, String)>,
}

/// A server that is killed when this is dropped. Shows its log when the test fails.
pub(crate) struct Server {
    process: Child,
    /// `host:port`; the same after a restart.
    pub(crate) address: String,
    data_dir: PathBuf,
    settings: Vec<(&'static str, String)>,
    folder: TempDir,
}

impl Launch {
    /// Sets a setting by its environment variable.
    pub(crate) fn set(mut self, variable: &'static str, value: impl ToString) -> Self {
        self.settings.push((variable, value.to_string()));
        self
    }

    /// Keeps the data there, not in the server's own folder.
    pub(crate) fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    pub(crate) fn start(self) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = self.data_dir.unwrap_or_else(|| folder.path().join("data"));
        let address = format!("127.0.0.1:{}", free_port());
        let process = spawn(&folder, &data_dir, &address, &self.settings);
        let mut server = Server { process, address, data_dir, settings: self.settings, folder };
        server.wait_until_ready();
        server
    }
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::launch().start()
    }

    pub(crate) fn launch() -> Launch {
        Launch { data_dir: None, settings: Vec::new() }
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again on the same address and data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.address_file());
        self.process = spawn(&self.folder, &self.data_dir, &self.address, &self.settings);
        self.wait_until_ready();
    }

    pub(crate) fn kill_and_restart(&mut self) {
        self.kill();
        self.restart();
    }

    /// Asks it to stop, as an operator's SIGTERM does.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_raw(self.process.id() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Makes it hang: the kernel still accepts connections for it, and nothing answers.
    pub(crate) fn freeze(&self) {
        let pid = Pid::from_raw(self.process.id() as i32).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
    }

    /// Lets it go on after it was frozen.
    pub(crate) fn thaw(&self) {
        let pid = Pid::from_raw(self.process.id() as i32).unwrap();
        kill_process(pid, Signal::CONT).unwrap();
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < LIMIT, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it runs.
    pub(crate) fn is_up(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// All it logged since its first start.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Memory that belongs to no file, in bytes (`RssAnon` of proc(5)).
    pub(crate) fn anonymous_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A path in a folder of this server's own.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A connection that is made when it is used, and again when it broke.
    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    pub(crate) fn kv(&self) -> Kv {
        KvClient::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    pub(crate) async fn status(&self) -> StatusResponse {
        AdminClient::new(self.channel()).status(StatusRequest {}).await.unwrap().into_inner()
    }

    /// Fetches a page over HTTP/1: its status code and its body.
    pub(crate) fn page(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: konsul\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned()))
    }

    fn address_file(&self) -> PathBuf {
        self.folder.path().join("address")
    }

    fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while !self.address_file().exists() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && started.elapsed() < LIMIT, "the server is not ready ({ended:?})");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let before = log.lines().count().saturating_sub(LOG_LINES);
            eprintln!("the server's log:");
            log.lines().skip(before).for_each(|line| eprintln!("{line}"));
        }
    }
}

fn spawn(folder: &TempDir, data_dir: &Path, listen: &str, settings: &[(&'static str, String)]) -> Child {
    let log = folder.path().join("log");
    let log = File::options().create(true).append(true).open(log).unwrap();
    konsul()
        .args(["server", "--listen", listen, "--data-dir"])
        .arg(data_dir)
        .arg("--address-file")
        .arg(folder.path().join("address"))
        .args(["--dns-listen", "127.0.0.1:0"])
        .env("KONSUL_DNS_ADDRESS_FILE", folder.path().join("dns-address"))
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A port of no one, below those that the kernel gives to clients: one of those may be taken while the server is down,
/// even by a client that connects to itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() as u16;
    loop {
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + begin.wrapping_mul(61).wrapping_add(turn) % 18_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
