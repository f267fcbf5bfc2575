//! `konsul service`: registers services, and finds them.

mod check;
mod find;
mod register;

use clap::{Args, Subcommand};
use konsul_client::Registered;
use konsul_client::proto::ServiceSettings;

use crate::args::duration;
use crate::failure::Failure;
use crate::session::Session;
pub(crate) use check::CheckArgs;
pub(crate) use register::{pair, pairs};

const EXAMPLES: &str = "\
Examples:
  konsul service register web --id web-1 --address 192.0.2.10 --port 8080 --tag v1 --meta zone=a
  konsul service register web --id web-2 --address 192.0.2.11 --port 8080 --ttl 30s
  konsul service list
  konsul service instances web --filter '\"v1\" in tags && metadata.zone == \"a\"'
  konsul service resolve web                     one instance to speak to: host:port
  konsul service maintenance web web-1 --reason 'new disk'
  konsul service deregister web web-1
  dig @127.0.0.1 -p 8600 web.service.konsul      the same, for anything that speaks DNS";

/// Register services, and find them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Service {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Register(Box<register::Register>),
    /// Take an instance away, with its checks
    Deregister(Instance),
    /// List the services of the namespace, and how their instances are
    List {
        /// Only those whose names begin with this
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
    },
    Instances(find::Instances),
    Resolve(find::Resolve),
    /// Show what a service depends on, and how all of that is
    Deps {
        /// The service
        service: String,
    },
    Maintenance(Maintenance),
    Configure(Configure),
}

#[derive(Debug, Args)]
struct Instance {
    /// The service
    service: String,
    /// The instance's id
    id: String,
}

/// Take an instance out of service, or put it back
#[derive(Debug, Args)]
struct Maintenance {
    #[command(flatten)]
    instance: Instance,
    /// Put it back
    #[arg(long)]
    off: bool,
    /// Why, for people who look
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, conflicts_with = "off")]
    reason: String,
}

/// Set what holds for a service as a whole
///
/// What is not given is at its default again.
#[derive(Debug, Args)]
struct Configure {
    /// The service
    service: String,
    /// When fewer than so many per cent of the instances pass or warn, answer all of them
    #[arg(long, value_name = "PERCENT", default_value_t = 0, hide_default_value = true)]
    protect_threshold: u32,
    /// How long DNS answers about it may be kept
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    dns_ttl: Option<std::time::Duration>,
    /// Metadata of the service
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = register::pair)]
    metadata: Vec<(String, String)>,
}

impl Service {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let (catalog, output) = (session.client.catalog(), &session.output);
        match self.command {
            Command::Register(register) => register.run(&session).await,
            Command::Deregister(Instance { service, id }) => {
                output.message(&catalog.deregister(Registered::Instance { service, id }).await?)
            }
            Command::List { prefix } => {
                let services = catalog.services(&prefix).await?;
                output.message(&konsul_client::proto::ListServicesResponse { services, ..Default::default() })
            }
            Command::Instances(instances) => instances.run(&session).await,
            Command::Resolve(resolve) => resolve.run(&session).await,
            Command::Deps { service } => output.message(&catalog.dependencies(&service).await?),
            Command::Maintenance(Maintenance { instance: Instance { service, id }, off, reason }) => {
                let what = Registered::Instance { service, id };
                output.message(&match off {
                    true => catalog.end_maintenance(what).await?,
                    false => catalog.begin_maintenance(what, &reason).await?,
                })
            }
            Command::Configure(Configure { service, protect_threshold, dns_ttl, metadata }) => {
                let dns_ttl = dns_ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok());
                let metadata = pairs(metadata);
                let settings = ServiceSettings { protect_threshold, dns_ttl, metadata };
                output.message(&catalog.configure(&service, settings).await?)
            }
        }
    }
}
