//! Runs the command of `konsul kv watch --exec` for one change.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use konsul_client::proto::{Entry, WatchEvent, watch_event};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::failure::{Failure, complain};
use crate::output::json;
use crate::signals::Interrupt;

/// A command to run with `sh -c`.
pub(super) struct Exec {
    command: String,
    fail_fast: bool,
}

impl Exec {
    pub(super) fn new(command: &str, fail_fast: bool) -> Self {
        Self { command: command.into(), fail_fast }
    }

    /// Runs the command and waits for its end. A signal lets it finish, so that no reload is cut short; a second one
    /// does not.
    pub(super) async fn run(&self, change: &WatchEvent, interrupt: &mut Interrupt) -> Result<(), Failure> {
        let entry = change.entry.clone().unwrap_or_default();
        let mut line = json::line(change)?;
        line.push('\n');
        let mut child = self.start(change, &entry)?;
        let mut finish = std::pin::pin!(finish(&mut child, line));
        let status = tokio::select! {
            status = &mut finish => status,
            code = interrupt.code() => {
                tokio::select! {
                    _ = finish => {}
                    _ = interrupt.code() => {}
                }
                return Err(Failure::Interrupted { code });
            }
        };
        let status = status.map_err(|error| Failure::Start { what: self.command.clone(), error })?;
        self.judge(status, entry)
    }

    fn start(&self, change: &WatchEvent, entry: &Entry) -> Result<Child, Failure> {
        let event = match change.r#type() {
            watch_event::Type::Delete => "delete",
            watch_event::Type::Put | watch_event::Type::Unspecified => "put",
        };
        Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .env("KONSUL_KEY", &entry.key)
            .env("KONSUL_REVISION", entry.mod_revision.to_string())
            .env("KONSUL_EVENT", event)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Start { what: "sh".into(), error })
    }

    fn judge(&self, status: ExitStatus, entry: Entry) -> Result<(), Failure> {
        if status.success() {
            return Ok(());
        }
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        let code = u8::try_from(code).unwrap_or(1);
        let failure = Failure::Exec { status, code, revision: entry.mod_revision, key: entry.key };
        if self.fail_fast {
            return Err(failure);
        }
        complain(&failure.to_string());
        Ok(())
    }
}

/// Gives the command its event and waits. A command need not read it.
async fn finish(child: &mut Child, line: String) -> std::io::Result<ExitStatus> {
    let stdin = child.stdin.take();
    let write = async move {
        if let Some(mut stdin) = stdin {
            // Fails when the command ended or closed stdin, which is its right.
            let _ = stdin.write_all(line.as_bytes()).await;
        }
    };
    // Once the command has ended nobody waits for the rest to be written: a child of it may hold the pipe.
    tokio::pin!(write);
    tokio::select! {
        status = child.wait() => status,
        () = &mut write => child.wait().await,
    }
}
