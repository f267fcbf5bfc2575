//! Starting, watching and ending the measured servers: child processes on free ports of the loopback, each
//! with its data and its log in a directory of its own. Nothing here knows a row.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::peers::Peer;

/// How often a start is looked at; also the resolution of the start-up times.
const POLL: Duration = Duration::from_millis(1);
/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a server may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Servers that run now, so that an interrupted bench leaves none behind.
static RUNNING: Mutex<Vec<i32>> = Mutex::new(Vec::new());

/// The programs that are measured.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// etcd.
    pub(crate) etcd: PathBuf,
    /// `konsul`.
    pub(crate) konsul: PathBuf,
    /// Number of runtimes of the bare server.
    pub(crate) bare_runtimes: usize,
}

/// What a server is told that is to be one of several members.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    /// Names and addresses among themselves, of all of them.
    members: Vec<(String, SocketAddr)>,
    /// Which one it is.
    place: usize,
}

impl Seat {
    /// The seats of a cluster of so many members.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) fn of(count: usize) -> Result<Vec<Self>> {
        let members =
            (0..count).map(|n| Ok((format!("n{n}"), free_address()?))).collect::<Result<Vec<_>>>()?;
        Ok((0..count).map(|place| Self { members: members.clone(), place }).collect())
    }

    /// The name that the member's directory may have, too.
    pub(crate) fn name(&self) -> &str {
        &self.members[self.place].0
    }

    fn address(&self) -> SocketAddr {
        self.members[self.place].1
    }

    fn list(&self, show: impl Fn(&(String, SocketAddr)) -> String) -> String {
        self.members.iter().map(show).collect::<Vec<_>>().join(",")
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    /// Who it is.
    pub(crate) peer: Peer,
    /// Where it answers.
    pub(crate) address: SocketAddr,
    /// When its process was started.
    pub(crate) spawned: Instant,
    log_path: PathBuf,
    child: Child,
}

impl Server {
    /// Starts `peer` on what is in `directory` and returns once it listens.
    ///
    /// # Errors
    /// When it can't be started, ends at once (with the last line of its log), or does not listen in time.
    pub(crate) fn start(peer: Peer, programs: &Programs, directory: &Path) -> Result<Self> {
        Self::start_at(peer, programs, directory, None, &[])
    }

    /// Starts it as one of several members, if it has a seat, with settings by their environment variables. It may listen before
    /// the others are there.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_at(
        peer: Peer,
        programs: &Programs,
        directory: &Path,
        seat: Option<&Seat>,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let address_file = directory.join("address");
        // The last start's address must not be taken for this one's.
        let _ = fs::remove_file(&address_file);
        let (mut command, known_address) = command(peer, programs, directory, &address_file, seat)?;
        command.envs(settings.iter().copied());
        let log_path = directory.join("log");
        let log = File::options().create(true).append(true).open(&log_path)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let program = command.get_program().to_owned();
        let spawned = Instant::now();
        let child = command.spawn().with_context(|| format!("can't run {}", program.display()))?;
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).extend(pid_of(&child));
        // From here on the child is killed when anything fails.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { peer, address: nowhere, spawned, log_path, child };
        server.address = server.wait_for_address(known_address, &address_file)?;
        Ok(server)
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last line of its log, for an error message.
    pub(crate) fn last_words(&self) -> String {
        let Ok(log) = File::open(&self.log_path) else { return "it left no log".to_owned() };
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        lines.filter(|line| !line.trim().is_empty()).last().unwrap_or_else(|| "nothing".to_owned())
    }

    /// Ends it with SIGTERM and waits until it is gone.
    ///
    /// # Errors
    /// When it has to be killed because it does not end.
    pub(crate) fn stop(mut self) -> Result<()> {
        if let Some(pid) = pid_of(&self.child).and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("{} did not end within {} s of SIGTERM", self.peer, STOP_LIMIT.as_secs())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn wait_for_address(&mut self, known: Option<SocketAddr>, address_file: &Path) -> Result<SocketAddr> {
        while self.spawned.elapsed() < START_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at its start ({status}): {}", self.peer, self.last_words());
            }
            match known {
                Some(address) if TcpStream::connect(address).is_ok() => return Ok(address),
                Some(_) => {}
                None => {
                    let written = fs::read_to_string(address_file).unwrap_or_default();
                    if let Ok(address) = written.trim().parse() {
                        return Ok(address);
                    }
                }
            }
            thread::sleep(POLL);
        }
        bail!("{} did not listen within {} s: {}", self.peer, START_LIMIT.as_secs(), self.last_words())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pid = pid_of(&self.child);
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|running| Some(*running) != pid);
    }
}

/// Kills every server that runs now: for the end of a bench that was interrupted.
pub(crate) fn kill_all() {
    for pid in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        if let Some(pid) = Pid::from_raw(pid) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A child's process id, as the kernel's calls take it.
fn pid_of(child: &Child) -> Option<i32> {
    i32::try_from(child.id()).ok()
}

/// Writes an address so that a reader sees all of it or nothing.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn publish_address(file: &Path, address: SocketAddr) -> Result<()> {
    let partial = file.with_extension("partial");
    File::create(&partial)?.write_all(address.to_string().as_bytes())?;
    fs::rename(partial, file)?;
    Ok(())
}

/// First line a program prints when asked for its version.
///
/// # Errors
/// When the program can't be run.
pub(crate) fn version(program: &Path) -> Result<String> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("can't run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or("unknown").trim().to_owned())
}

/// How a peer is started, and its address where that is chosen beforehand.
fn command(
    peer: Peer,
    programs: &Programs,
    directory: &Path,
    address_file: &Path,
    seat: Option<&Seat>,
) -> Result<(Command, Option<SocketAddr>)> {
    let data = directory.join("data");
    match peer {
        Peer::Bare => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("bare").arg("--address-file").arg(address_file);
            command.arg("--runtimes").arg(programs.bare_runtimes.to_string());
            Ok((command, None))
        }
        Peer::Konsul => {
            let mut command = Command::new(&programs.konsul);
            command.arg("server").arg("--data-dir").arg(data);
            command.arg("--listen").arg("127.0.0.1:0").arg("--address-file").arg(address_file);
            command.arg("--dns-listen").arg("127.0.0.1:0");
            if let Some(seat) = seat {
                command.env("KONSUL_CLUSTER_MEMBER_NAME", seat.name());
                command.env("KONSUL_CLUSTER_PEER_LISTEN", seat.address().to_string());
                command.env("KONSUL_CLUSTER_JOIN", seat.list(|(_, address)| address.to_string()));
                command.env("KONSUL_CLUSTER_BOOTSTRAP_EXPECT", seat.members.len().to_string());
            }
            Ok((command, None))
        }
        Peer::Etcd => {
            let client = free_address()?;
            let peer = seat.map_or_else(free_address, |seat| Ok(seat.address()))?;
            let name = seat.map_or("default", Seat::name);
            let cluster = seat.map_or_else(
                || format!("{name}=http://{peer}"),
                |seat| seat.list(|(name, address)| format!("{name}=http://{address}")),
            );
            let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
            let mut command = Command::new(&programs.etcd);
            command.arg("--data-dir").arg(data);
            command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
            command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
            command.args(["--name", name, "--initial-cluster", &cluster]);
            // 2 GiB, the default, is too little for ten million keys.
            command.args(["--quota-backend-bytes", "17179869184", "--log-level", "warn"]);
            Ok((command, Some(client)))
        }
    }
}

/// An address nobody listens on at the moment.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.local_addr()?)
}
