//! `konsul lock`: runs a command while holding a lock.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use konsul_client::Client;

use crate::args::duration;
use crate::failure::Failure;
use crate::holding::Holding;
use crate::session::Session;
use crate::signals::Passed;

const EXAMPLES: &str = "\
Examples:
  konsul lock jobs/nightly -- ./nightly.sh          one at a time, in the order of asking
  konsul lock --try jobs/nightly -- ./nightly.sh    or not at all, if somebody holds it
  konsul lock --limit 3 downloads -- ./fetch.sh     up to three at a time
  konsul lock --shared data -- ./read.sh            together with others who share it
  konsul lock jobs/nightly                          who holds it, and who waits

The command finds its fencing token in KONSUL_FENCING_TOKEN, and its lease in KONSUL_LEASE. When the lock is lost, because no server
could be reached for as long as its lease lives, the command is sent SIGTERM at once, and SIGKILL after --grace; so are the
processes that it started, unless stdin is a terminal: there only the command itself is told. Signals are passed on to it, and its
exit code is returned.";

/// How much of a command is shown to others.
const HOLDER_MAX_CHARS: usize = 100;

/// Run a command while holding a lock
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Lock {
    /// The lock
    name: String,
    /// The command and its arguments; without one, say who holds the lock and who waits for it
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    /// How many may hold it at a time; all who ask must say the same
    #[arg(long, value_name = "N", default_value_t = 1, requires = "command")]
    limit: u32,
    /// Share it with all who do so too
    #[arg(long, conflicts_with = "limit", requires = "command")]
    shared: bool,
    /// Do not wait: fail if the lock can't be had at once
    #[arg(long = "try", conflicts_with = "wait", requires = "command")]
    try_now: bool,
    /// Wait no longer than this
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "command")]
    wait: Option<Duration>,
    /// How long the lock lasts when no server can be reached, or when this machine dies
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    ttl: Duration,
    /// Nobody gets the lock for this long after it was lost, so that what was under way can end
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "command")]
    lock_delay: Option<Duration>,
    /// How long the command has to end when the lock is lost
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

impl Lock {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        if self.command.is_empty() {
            return session.output.message(&session.client.locks().get(self.name).await?);
        }
        let mut signals = Passed::new()?;
        let lease = session.client.leases().hold(self.ttl).await?;
        let lock = self.ask(&session.client).lease(&lease);
        let claimed = async {
            match self.try_now {
                true => lock.try_now().await,
                false => lock.await.map(Some),
            }
        };
        let claimed = tokio::select! {
            claimed = claimed => claimed,
            code = signals.code() => {
                // If no server answers it ends by itself.
                drop(lease.revoke().await);
                return Err(Failure::Interrupted { code });
            }
        };
        let guard = match claimed {
            Ok(Some(guard)) => guard,
            Ok(None) => {
                drop(lease.revoke().await);
                return Err(Failure::NotFree { name: self.name });
            }
            Err(error) => {
                // What matters is why the lock was not had.
                drop(lease.revoke().await);
                return Err(error.into());
            }
        };
        let environment =
            [("KONSUL_FENCING_TOKEN", guard.token().to_string()), ("KONSUL_LEASE", lease.id().to_string())];
        let what = format!("lock {}", self.name);
        let holding = Holding { command: self.command, grace: self.grace, what };
        let ended = holding.run(&environment, signals, guard.lost()).await;
        if !guard.is_lost() {
            // If it can't be given up, its lease ends by itself.
            drop(guard.unlock().await);
            drop(lease.revoke().await);
        }
        match ended? {
            0 => Ok(()),
            code => Err(Failure::Command { code }),
        }
    }

    fn ask(&self, client: &Client) -> konsul_client::lock::Lock {
        let mut lock = client.locks().lock(&self.name).value(self.holder());
        lock = match self.shared {
            true => lock.shared(),
            false => lock.limit(self.limit),
        };
        if let Some(delay) = self.lock_delay {
            lock = lock.lock_delay(delay);
        }
        match self.wait {
            Some(wait) => lock.wait(wait),
            None => lock,
        }
    }

    /// The command, for people who look who holds the lock.
    fn holder(&self) -> String {
        let command: Vec<_> = self.command.iter().map(|part| part.to_string_lossy()).collect();
        command.join(" ").chars().take(HOLDER_MAX_CHARS).collect()
    }
}
