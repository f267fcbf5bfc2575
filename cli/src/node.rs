//! `konsul node`: where instances run.

use clap::{Args, Subcommand};
use konsul_client::Registered;
use konsul_client::proto::{
    CheckList, GetNodeResponse, ListNodesResponse, Node as Registration, RegisterRequest,
};

use crate::failure::Failure;
use crate::service::{CheckArgs, pairs};
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul node register n1 --address 192.0.2.1 --meta zone=a
  konsul node list
  konsul node maintenance n1 --reason 'new kernel'    with all that runs on it
  konsul node deregister n1                           with all that runs on it";

/// Register nodes, and look at them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Node {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Register(Box<Register>),
    /// List the nodes of the namespace
    List,
    /// Show a node
    Show {
        /// Its name
        name: String,
    },
    /// Take a node out of service with all that runs on it, or put it back
    Maintenance {
        /// Its name
        name: String,
        /// Put it back
        #[arg(long)]
        off: bool,
        /// Why, for people who look
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true,
            conflicts_with = "off"
        )]
        reason: String,
    },
    /// Take a node away with all that runs on it
    Deregister {
        /// Its name
        name: String,
    },
}

/// Register a node
///
/// One that is there already is replaced. Its checks are too, if any are given.
#[derive(Debug, Args)]
struct Register {
    /// Its name: 1 to 63 of a-z, 0-9 and -
    name: String,
    /// Its address, an IP address or a DNS name
    #[arg(long, value_name = "HOST")]
    address: String,
    /// An id of its own
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// An item of metadata; `zone` says where it is
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = crate::service::pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    checks: CheckArgs,
}

impl Node {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let (catalog, output) = (session.client.catalog(), &session.output);
        match self.command {
            Command::Register(register) => {
                let Register { name, address, id, metadata, checks } = *register;
                let metadata = pairs(metadata);
                let checks = checks.into_checks();
                let request = RegisterRequest {
                    node: Some(Registration { name, address, id, metadata, ..Registration::default() }),
                    node_checks: (!checks.is_empty()).then_some(CheckList { checks }),
                    ..RegisterRequest::default()
                };
                output.message(&catalog.register(request).await?)
            }
            Command::List => {
                let nodes = catalog.nodes().await?;
                output.message(&ListNodesResponse { nodes, ..Default::default() })
            }
            Command::Show { name } => match catalog.node(&name).await? {
                Some(node) => output.message(&GetNodeResponse { node: Some(node), ..Default::default() }),
                None => Err(Failure::NoNode { name }),
            },
            Command::Maintenance { name, off, reason } => {
                let what = Registered::Node(name);
                output.message(&match off {
                    true => catalog.end_maintenance(what).await?,
                    false => catalog.begin_maintenance(what, &reason).await?,
                })
            }
            Command::Deregister { name } => {
                output.message(&catalog.deregister(Registered::Node(name)).await?)
            }
        }
    }
}
