//! A check by a script: a program that the operator's configuration names, run without a shell. Exit code 0 is passing, 1
//! warning, any other critical, as Consul and Nagios have it.
//!
//! It runs in a process group of its own, which is killed when the check is over, however that comes about. (A process that leaves the
//! group by `setsid` is out of reach: scripts are the operator's.)

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::dial::{Phase, Progress};
use crate::failure::Failure;
use crate::limits::{OUTPUT_BYTES, PRINTED_BYTES};
use crate::probe::Script;
use crate::settings::Settings;
use crate::verdict::{Status, Verdict};

/// Before the names of all variables that a script is given.
const VARIABLE: &str = "KONSUL_CHECK_";
/// Where programs are found if this process has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much is read at a time.
const READ_BYTES: usize = 16 << 10;

/// What may be run.
pub(crate) struct Scripts {
    enabled: bool,
    by_name: BTreeMap<String, Vec<String>>,
    path: OsString,
}

impl Scripts {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            enabled: settings.scripts_enabled,
            by_name: settings.scripts.clone(),
            path: std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
        }
    }

    /// Carries a check out.
    ///
    /// # Errors
    /// [`Failure`] when there is no such script, or it can't be run.
    pub(crate) async fn check(&self, script: &Script, progress: &Progress) -> Result<Verdict, Failure> {
        if !self.enabled {
            return Err(Failure::ScriptsDisabled);
        }
        let command = self.command(script)?;
        progress.at(Phase::Run);
        let running = Running::start(command).await.map_err(Failure::Spawn)?;
        let (exit, output) = running.end().await?;
        Ok(judge(script, exit, &output))
    }

    fn command(&self, script: &Script) -> Result<Command, Failure> {
        let arguments = self.by_name.get(&script.name).ok_or(Failure::UnknownScript)?;
        let (program, arguments) = arguments.split_first().ok_or(Failure::UnknownScript)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", &self.path)
            .env(format!("{VARIABLE}NAME"), &script.name);
        command.envs(script.variables.iter().map(|(name, value)| (format!("{VARIABLE}{name}"), value)));
        command.current_dir("/").stdin(Stdio::null());
        Ok(command)
    }
}

/// A script that runs, with all that it started.
struct Running {
    group: Group,
    output: pipe::Receiver,
    /// Told of each child of this process that ends.
    ends: Signals,
}

impl Running {
    /// Starts it. That waits until the kernel has read the program from its disk, so a thread does it that has no calls to answer.
    async fn start(mut command: Command) -> io::Result<Self> {
        // Before there is a child, so that its end can't be missed.
        let ends = signal(SignalKind::child())?;
        let start = tokio::task::spawn_blocking(move || {
            let (reader, writer) = io::pipe()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            Ok::<_, io::Error>((Group::spawn(&mut command)?, reader))
        });
        let (group, reader) = start.await.map_err(io::Error::other)??;
        Ok(Self { group, output: pipe::Receiver::from_owned_fd(reader.into())?, ends })
    }

    /// How it ended, and the beginning of what it printed.
    async fn end(mut self) -> Result<(ExitStatus, Vec<u8>), Failure> {
        let (mut output, mut printed) = (Vec::new(), 0);
        let mut buffer = vec![0; READ_BYTES];
        let mut open = true;
        while !self.group.leader_has_ended().map_err(Failure::Spawn)? {
            tokio::select! {
                read = self.output.read(&mut buffer), if open => {
                    let read = read.map_err(Failure::Spawn)?;
                    open = read > 0;
                    printed += read;
                    keep(&mut output, &buffer[..read]);
                }
                _ = self.ends.recv() => {}
            }
            if printed > PRINTED_BYTES {
                return Err(Failure::PrintsTooMuch);
            }
        }
        // What it left behind goes first: as long as its end is not taken note of, nobody else has its number.
        self.group.kill();
        while output.len() < OUTPUT_BYTES {
            // Straight from the pipe, which never blocks: the runtime may not know yet that there is more.
            match rustix::io::read(&self.output, &mut buffer) {
                Ok(read) if read > 0 => keep(&mut output, &buffer[..read]),
                _ => break,
            }
        }
        let exit = self.group.child.wait().await.map_err(Failure::Spawn)?;
        Ok((exit, output))
    }
}

/// A process group. All of it is killed when this goes, unless it is over.
struct Group {
    child: Child,
    id: Pid,
}

impl Group {
    fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("it has no process id"))?;
        Ok(Self { child, id })
    }

    /// Without taking note of it, which would free the number of the group for others.
    fn leader_has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(self.id), options)?.is_some())
    }

    fn kill(&self) {
        // It fails when there is nobody left, which is what is wanted.
        let _ = kill_process_group(self.id, Signal::KILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The runtime waits for the leader itself once it is killed (`kill_on_drop`).
        if self.child.id().is_some() {
            self.kill();
        }
    }
}

fn keep(output: &mut Vec<u8>, bytes: &[u8]) {
    let wanted = bytes.len().min(OUTPUT_BYTES - output.len());
    output.extend_from_slice(&bytes[..wanted]);
}

fn judge(script: &Script, exit: ExitStatus, output: &[u8]) -> Verdict {
    let status = match exit.code() {
        Some(0) => Status::Passing,
        Some(1) => Status::Warning,
        _ => Status::Critical,
    };
    let how = match (exit.code(), exit.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => format!("killed by signal {number}"),
        (None, None) => "ended in a way that is not known".into(),
    };
    Verdict::quoting(status, &format!("script {}: {how}", script.name), output)
}
