//! One server: its process, its disk, its clock and its place in the network. Only processes that were started here are ever ended, by their
//! id.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use konsul_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::cluster::{self, API_PORT, BOOTSTRAP_EXPECT};
use crate::disk::Disk;
use crate::report::Report;

/// How long a member may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A server of the cluster, which may be running or not.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) namespace: String,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    /// Speaks to this member only.
    pub(crate) client: Client,
    /// How many reasons the member has to end by itself.
    may_end: Arc<AtomicUsize>,
    /// Whether it was started and not told to end since.
    wanted: AtomicBool,
    /// Set once it must join the cluster that is there, and not begin one.
    joins: AtomicBool,
    folder: PathBuf,
    konsul: PathBuf,
    settings: Vec<(&'static str, String)>,
    process: Mutex<Option<Process>>,
    report: Report,
}

/// A process that was started.
#[derive(Debug, Clone)]
struct Process {
    pid: Pid,
    /// Set before it is told to end.
    told: Arc<AtomicBool>,
    ended: watch::Receiver<bool>,
}

/// What a member is made of.
#[derive(Debug, Clone)]
pub(crate) struct Make<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: Ipv4Addr,
    pub(crate) namespace: String,
    /// Where it has its disk and its log.
    pub(crate) folder: PathBuf,
    pub(crate) konsul: &'a Path,
    /// Its settings but for the address and the data directory.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Member {
    /// A member with an empty disk that does not run yet.
    ///
    /// # Errors
    /// When there can be no disk, no clock or no client.
    pub(crate) async fn make(make: Make<'_>, report: &Report) -> Result<Self> {
        fs::create_dir_all(&make.folder)?;
        Ok(Self {
            disk: Disk::mount(&make.folder).await?,
            clock: Clock::right(make.folder.join("clock"))?,
            client: cluster::client([api(make.address)])?,
            name: make.name.to_owned(),
            address: make.address,
            namespace: make.namespace,
            may_end: Arc::default(),
            wanted: AtomicBool::new(false),
            joins: AtomicBool::new(false),
            folder: make.folder,
            konsul: make.konsul.to_owned(),
            settings: make.settings,
            process: Mutex::new(None),
            report: report.clone(),
        })
    }

    /// Where its API is.
    pub(crate) fn api(&self) -> String {
        api(self.address)
    }

    /// Starts it, if it doesn't run, and doesn't wait until it serves.
    ///
    /// # Errors
    /// When the process can't be started.
    pub(crate) fn start(&self) -> Result<()> {
        self.wanted.store(true, Ordering::Relaxed);
        if self.running().is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log())?;
        let child = self.command().stdout(Stdio::null()).stderr(log).spawn().context("can't run ip")?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.context("a process ended before it began")?;
        let told = Arc::new(AtomicBool::new(false));
        let ended = self.look_after(child, &told);
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(Process { pid, told, ended });
        Ok(())
    }

    /// Ends it with SIGKILL, if it runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.wanted.store(false, Ordering::Relaxed);
        let Some(mut process) = self.running() else { return Ok(()) };
        process.told.store(true, Ordering::Relaxed);
        process.signal(Signal::KILL)?;
        process.ended().await;
        Ok(())
    }

    /// Asks it to end, as an operator would, and kills it if it doesn't.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn stop(&self) -> Result<()> {
        self.wanted.store(false, Ordering::Relaxed);
        let Some(mut process) = self.running() else { return Ok(()) };
        process.told.store(true, Ordering::Relaxed);
        process.signal(Signal::TERM)?;
        if tokio::time::timeout(STOP_LIMIT, process.ended()).await.is_err() {
            self.report.found(format_args!("{} did not end within {STOP_LIMIT:?} of SIGTERM", self.name));
            return self.kill().await;
        }
        Ok(())
    }

    /// Stops it in its tracks with SIGSTOP, if it runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn pause(&self) -> Result<()> {
        self.running().map_or(Ok(()), |process| process.signal(Signal::STOP))
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn resume(&self) -> Result<()> {
        self.running().map_or(Ok(()), |process| process.signal(Signal::CONT))
    }

    /// It has one more reason to end by itself, as on a full disk or once it is no member any more.
    pub(crate) fn may_end(&self) {
        self.may_end.fetch_add(1, Ordering::Relaxed);
    }

    /// It has one reason less to end by itself, and runs again if it did.
    ///
    /// # Errors
    /// When the process can't be started.
    pub(crate) fn may_not_end(&self) -> Result<()> {
        self.may_end.fetch_sub(1, Ordering::Relaxed);
        if self.wanted.load(Ordering::Relaxed) { self.start() } else { Ok(()) }
    }

    /// From its next start on it joins the cluster that is there, and does not begin one.
    pub(crate) fn join_from_now_on(&self) {
        self.joins.store(true, Ordering::Relaxed);
    }

    /// Its log, of all its starts.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn running(&self) -> Option<Process> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).clone();
        process.filter(|process| !*process.ended.borrow())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        // Should the rig be killed, its servers end with it.
        command.args(["setpriv", "--pdeathsig", "KILL", "env"]);
        for (name, value) in self.clock.environment() {
            command.arg(format!("{name}={}", value.display()));
        }
        command
            .arg(&self.konsul)
            .args(["server", "--listen", &self.api(), "--data-dir"])
            .arg(self.disk.data());
        let joins = self.joins.load(Ordering::Relaxed);
        let settings = self.settings.iter().filter(|(name, _)| !joins || *name != BOOTSTRAP_EXPECT);
        command.envs(settings.map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Reports it if the process ends without having been told to.
    fn look_after(&self, mut child: Child, told: &Arc<AtomicBool>) -> watch::Receiver<bool> {
        let (end, ended) = watch::channel(false);
        let (told, may_end) = (told.clone(), self.may_end.clone());
        let (name, log, report) = (self.name.clone(), self.log(), self.report.clone());
        tokio::spawn(async move {
            let how = match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            if !told.load(Ordering::Relaxed) && may_end.load(Ordering::Relaxed) == 0 {
                report.found(format_args!("{name} ended by itself ({how}): {}", last_words(&log)));
            }
            end.send_replace(true);
        });
        ended
    }
}

impl Process {
    fn signal(&self, signal: Signal) -> Result<()> {
        match kill_process(self.pid, signal) {
            // It ended by itself in this moment, which whoever looks after it reports.
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other.with_context(|| format!("can't send {signal:?} to a member")),
        }
    }

    async fn ended(&mut self) {
        // The sender is only dropped after it has said so.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }
}

fn api(address: Ipv4Addr) -> String {
    format!("{address}:{API_PORT}")
}

/// The last line of a log, for a report.
fn last_words(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it logged nothing").to_owned()
}
