//! `konsul elect`: stands for election, and leads for as long as it runs.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use konsul_client::proto::LeaderResponse;

use crate::args::duration;
use crate::failure::Failure;
use crate::holding::Holding;
use crate::session::Session;
use crate::signals::{Interrupt, Passed};

const EXAMPLES: &str = "\
Examples:
  konsul elect scheduler 10.0.0.7:9000 -- ./lead.sh     run it while leading, in the order of standing
  konsul elect scheduler 10.0.0.7:9000                  lead until interrupted
  konsul elect scheduler                                who leads
  konsul elect scheduler --watch                        who leads, whenever that changes

The command finds its fencing token in KONSUL_FENCING_TOKEN. When leadership is lost it is sent SIGTERM at once, and SIGKILL after
--grace; so are the processes that it started, unless stdin is a terminal: there only the command itself is told. Signals are passed
on to it, and its exit code is returned.";

/// Stand for election, or see who leads
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Elect {
    /// The election
    name: String,
    /// What others are told of the leader, an address for example; without it, say who leads
    value: Option<String>,
    /// The command to run while leading, and its arguments
    #[arg(last = true, value_name = "CMD", requires = "value")]
    command: Vec<OsString>,
    /// Go on saying who leads, whenever that changes
    #[arg(long, conflicts_with = "value")]
    watch: bool,
    /// Wait no longer than this to be elected
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "value")]
    wait: Option<Duration>,
    /// How long leadership lasts when no server can be reached, or when this machine dies
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    ttl: Duration,
    /// How long the command has to end when leadership is lost
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    grace: Duration,
}

impl Elect {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        match &self.value {
            Some(value) => self.lead(&session, value).await,
            None if self.watch => self.follow(&session).await,
            None => {
                let leader = session.client.elections().leader(&self.name).await?;
                session.output.message(&LeaderResponse { leader, ..Default::default() })
            }
        }
    }

    async fn follow(&self, session: &Session) -> Result<(), Failure> {
        let mut interrupt = Interrupt::new()?;
        let mut leaders = session.client.elections().observe(&self.name);
        loop {
            let leader = tokio::select! {
                code = interrupt.code() => return Err(Failure::Interrupted { code }),
                leader = leaders.next() => leader,
            };
            let Some(leader) = leader.transpose()? else { return Ok(()) };
            session.output.message(&LeaderResponse { leader, ..Default::default() })?;
        }
    }

    async fn lead(&self, session: &Session, value: &str) -> Result<(), Failure> {
        let mut signals = Passed::new()?;
        let lease = session.client.leases().hold(self.ttl).await?;
        let campaign = session.client.elections().campaign(&self.name, value.to_owned());
        let mut campaign = campaign.lease(&lease);
        if let Some(wait) = self.wait {
            campaign = campaign.wait(wait);
        }
        let leadership = tokio::select! {
            won = campaign.into_future() => match won {
                Ok(won) => won,
                Err(error) => {
                    // What matters is why it was not won.
                    drop(lease.revoke().await);
                    return Err(error.into());
                }
            },
            code = signals.code() => {
                // The candidacy ends with its lease, and that by itself if no server answers.
                drop(lease.revoke().await);
                return Err(Failure::Interrupted { code });
            }
        };
        let what = format!("leadership of {}", self.name);
        let ended = if self.command.is_empty() {
            session.output.done(&format!("leading {} under token {}", self.name, leadership.token()))?;
            tokio::select! {
                () = leadership.lost() => Err(Failure::Lost { what }),
                code = signals.code() => Err(Failure::Interrupted { code }),
            }
        } else {
            let environment = [("KONSUL_FENCING_TOKEN", leadership.token().to_string())];
            let holding = Holding { command: self.command.clone(), grace: self.grace, what };
            holding.run(&environment, signals, leadership.lost()).await
        };
        if !leadership.is_lost() {
            // If it can't be given up, its lease ends by itself.
            drop(leadership.resign().await);
            drop(lease.revoke().await);
        }
        match ended? {
            0 => Ok(()),
            code => Err(Failure::Command { code }),
        }
    }
}
