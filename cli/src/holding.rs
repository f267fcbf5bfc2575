//! Runs a command for as long as something is held: a lock, or an election that was won.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::failure::{Failure, complain};
use crate::signals::Passed;

/// How often is looked whether a process group is gone: nobody tells.
const POLL: Duration = Duration::from_millis(20);

/// A command to run, as the shell split it.
pub(crate) struct Holding {
    pub(crate) command: Vec<OsString>,
    /// How long it has to end after SIGTERM when what is held is lost.
    pub(crate) grace: Duration,
    /// What is held, for messages.
    pub(crate) what: String,
}

/// A command that runs.
struct Running {
    child: Child,
    pid: Option<Pid>,
    /// On a terminal the command stays in the shell's foreground, and gets what is typed there by itself. Elsewhere it has a process
    /// group of its own, so that what it started is told to end, too.
    is_on_terminal: bool,
}

impl Holding {
    /// Runs the command with these variables in its environment until it ends by itself, or until `lost` returns: then it is
    /// told to end, and killed after its grace, with all that it started. Returns its exit code. The signals should have been listened for
    /// since before it was held, so that none comes too early to be passed on.
    pub(crate) async fn run(
        &self,
        environment: &[(&str, String)],
        mut signals: Passed,
        lost: impl Future<Output = ()>,
    ) -> Result<u8, Failure> {
        let mut lost = std::pin::pin!(lost);
        // It may have been lost since it was had.
        if (&mut lost).now_or_never().is_some() {
            return Err(Failure::Lost { what: self.what.clone() });
        }
        let mut running = self.start(environment)?;
        loop {
            tokio::select! {
                status = running.child.wait() => return self.ended(status),
                signal = signals.next() => running.pass(signal),
                () = &mut lost => break,
            }
        }
        complain(&format!("{} is lost: telling the command to end", self.what));
        running.send(Signal::TERM);
        if timeout(self.grace, running.gone()).await.is_err() {
            complain("the command did not end in time and is killed");
            running.send(Signal::KILL);
            drop(running.child.wait().await);
        }
        Err(Failure::Lost { what: self.what.clone() })
    }

    fn start(&self, environment: &[(&str, String)]) -> Result<Running, Failure> {
        let is_on_terminal = std::io::stdin().is_terminal();
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(Failure::Start {
                what: "nothing".into(),
                error: std::io::ErrorKind::NotFound.into(),
            });
        };
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        if !is_on_terminal {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .map_err(|error| Failure::Start { what: program.to_string_lossy().into_owned(), error })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Running { child, pid, is_on_terminal })
    }

    fn ended(&self, status: std::io::Result<ExitStatus>) -> Result<u8, Failure> {
        let status =
            status.map_err(|error| Failure::Start { what: "waiting for the command".into(), error })?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Ok(u8::try_from(code).unwrap_or(1))
    }
}

impl Running {
    /// Passes a signal on, unless the terminal has sent it to the command already.
    fn pass(&self, signal: Signal) {
        if !(self.is_on_terminal && matches!(signal, Signal::INT | Signal::QUIT)) {
            self.send(signal);
        }
    }

    /// Waits until it has ended, and with it all of its process group: what it started may go on without it.
    async fn gone(&mut self) {
        // Fails when it is not there any more.
        drop(self.child.wait().await);
        let group = self.pid.filter(|_| !self.is_on_terminal);
        while group.is_some_and(|group| test_kill_process_group(group).is_ok()) {
            sleep(POLL).await;
        }
    }

    fn send(&self, signal: Signal) {
        let Some(pid) = self.pid else { return };
        let sent = match self.is_on_terminal {
            true => kill_process(pid, signal),
            false => kill_process_group(pid, signal),
        };
        // Fails when it has just ended.
        let _ = sent;
    }
}
