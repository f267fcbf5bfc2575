//! `konsul lease`: grants, keeps, ends and shows leases.

use std::time::Duration;

use clap::{Args, Subcommand};
use konsul_client::proto::LeaseListResponse;

use crate::args::duration;
use crate::failure::Failure;
use crate::session::Session;
use crate::signals::Interrupt;

const EXAMPLES: &str = "\
Examples:
  id=$(konsul lease grant 30s)                  a lease, to be refreshed at least every 30 s
  konsul kv put workers/7 10.0.0.7 --lease $id  a key that ends with it
  konsul lease keep $id                         refresh it until interrupted
  konsul lease get $id                          what it has left, and its keys
  konsul lease revoke $id                       end it now, with its keys and locks";

/// Grant, keep and end leases
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Lease {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a lease, and print its id
    Grant(Grant),
    /// Refresh a lease until interrupted
    Keep(Keep),
    /// Refresh leases once
    Refresh(Refresh),
    /// End a lease: its keys are deleted, its locks go to the next in line
    Revoke(Id),
    /// Show a lease, what it has left, and its keys
    Get(Id),
    /// List the leases of the namespace
    List,
}

#[derive(Debug, Args)]
struct Grant {
    /// How long it lives after each refresh, 1s to 24h
    #[arg(value_parser = duration)]
    ttl: Duration,
    /// Its id; picked by the server if none is given
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    id: u64,
    /// Whose it is, for people who look
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    holder: String,
}

#[derive(Debug, Args)]
struct Keep {
    /// The lease
    id: u64,
    /// End it when interrupted
    #[arg(long)]
    revoke: bool,
}

#[derive(Debug, Args)]
struct Refresh {
    /// The leases
    #[arg(required = true)]
    ids: Vec<u64>,
}

#[derive(Debug, Args)]
struct Id {
    /// The lease
    id: u64,
}

impl Lease {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let (leases, output) = (session.client.leases(), &session.output);
        match self.command {
            Command::Grant(grant) => output.message(&leases.grant(grant.ttl, grant.id, &grant.holder).await?),
            Command::Keep(keep) => {
                let mut interrupt = Interrupt::new()?;
                let lease = leases.keep(keep.id).await?;
                let code = tokio::select! {
                    () = lease.lost() => return Err(Failure::Lost { what: format!("lease {}", keep.id) }),
                    code = interrupt.code() => code,
                };
                match keep.revoke {
                    true => lease.revoke().await?,
                    false => lease.leave(),
                }
                Err(Failure::Interrupted { code })
            }
            Command::Refresh(refresh) => {
                let results = leases.refresh(&refresh.ids).await?;
                let gone = results.iter().find(|result| result.ttl.is_none()).map(|result| result.id);
                output.message(&konsul_client::proto::RefreshResponse { results })?;
                gone.map_or(Ok(()), |id| Err(Failure::Lost { what: format!("lease {id}") }))
            }
            Command::Revoke(Id { id }) => output.message(&leases.revoke(id).await?),
            Command::Get(Id { id }) => output.message(&leases.get(id, true).await?),
            Command::List => {
                let leases = leases.list().await?;
                output.message(&LeaseListResponse { leases, ..Default::default() })
            }
        }
    }
}
