//! `konsul health`: how instances and nodes are.

use clap::{Args, Subcommand};
use konsul_client::proto::{
    CheckName, HealthStatus, InstanceName, ListChecksRequest, ListChecksResponse, ListTransitionsResponse,
    check_name::Owner,
};

use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul health checks web                       the checks of all instances of a service
  konsul health pass web web-1                   pass its TTL check
  konsul health fail web web-1 --note 'disk full'
  konsul health history web web-1                when it was how";

/// Look at checks, and say how instances are
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Health {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List checks: of a service, an instance, a node, or the whole namespace
    Checks {
        /// The service
        #[arg(default_value = "", hide_default_value = true)]
        service: String,
        /// The instance's id
        #[arg(default_value = "", hide_default_value = true)]
        id: String,
        /// Of this node
        #[arg(
            long,
            value_name = "NAME",
            default_value = "",
            hide_default_value = true,
            conflicts_with = "service"
        )]
        node: String,
    },
    /// Say that a TTL check passes
    Pass(Result),
    /// Say that a TTL check warns
    Warn(Result),
    /// Say that a TTL check is critical
    Fail(Result),
    /// Show when an instance was how, newest first
    History {
        /// The service
        service: String,
        /// The instance's id
        id: String,
    },
}

#[derive(Debug, Args)]
struct Result {
    /// The service
    service: String,
    /// The instance's id
    id: String,
    /// The check's id
    #[arg(long, value_name = "ID", default_value = "ttl")]
    check: String,
    /// What there is to say
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

impl Health {
    pub(crate) async fn run(self, session: Session) -> std::result::Result<(), Failure> {
        let (health, output) = (session.client.health(), &session.output);
        match self.command {
            Command::Checks { service, id, node } => {
                let request = ListChecksRequest { service, instance: id, node, ..Default::default() };
                let checks = health.checks(request).await?;
                output.message(&ListChecksResponse { checks, ..Default::default() })
            }
            Command::Pass(result) => result.tell(&session, HealthStatus::Passing).await,
            Command::Warn(result) => result.tell(&session, HealthStatus::Warning).await,
            Command::Fail(result) => result.tell(&session, HealthStatus::Critical).await,
            Command::History { service, id } => {
                let transitions = health.transitions(&service, &id).await?;
                output.message(&ListTransitionsResponse { transitions, ..Default::default() })
            }
        }
    }
}

impl Result {
    async fn tell(self, session: &Session, status: HealthStatus) -> std::result::Result<(), Failure> {
        let owner = Owner::Instance(InstanceName { service: self.service, id: self.id });
        let name = CheckName { owner: Some(owner), check: self.check };
        session.output.message(&session.client.health().update(name, status, &self.note).await?)
    }
}
