//! `konsul service register`.

use std::collections::HashMap;

use clap::Args;
use konsul_client::proto::{Instance, Node, RegisterRequest, Weights};

use super::CheckArgs;
use crate::failure::Failure;
use crate::session::Session;

const EXAMPLES: &str = "\
Examples:
  konsul service register web --id web-1 --address 192.0.2.10 --port 8080 --tag v1 --meta zone=a
  konsul service register web --node n1 --node-address 192.0.2.1 --port 8080
  konsul service register db --id db-1 --address 192.0.2.20 --port 5432 --ttl 30s --deregister-after 5m";

/// Register an instance of a service
///
/// One that is there already is replaced, with its checks; to register the same thing again changes nothing.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Register {
    /// The service: 1 to 63 of a-z, 0-9 and -
    service: String,
    /// The instance's id, unique in the service [default: the node's name]
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// Its address, an IP address or a DNS name [default: the node's]
    #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
    address: String,
    /// Its port
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u32,
    /// Another port, by name
    #[arg(long = "named-port", value_name = "NAME=N", value_parser = named_port)]
    ports: Vec<(String, u32)>,
    /// A tag
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// An item of metadata; `zone` says where it is
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Its version, for people who look
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    version: String,
    /// Its share among the others while it passes, 1 to 65535
    #[arg(long, value_name = "N", default_value_t = 1)]
    weight: u32,
    /// Its share while it warns
    #[arg(long, value_name = "N", default_value_t = 1)]
    warning_weight: u32,
    /// A service that it cannot do without
    #[arg(long, value_name = "SERVICE")]
    depends_on: Vec<String>,
    /// A lease that it ends with
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    lease: u64,
    /// The node it runs on
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    node: String,
    /// Register the node as well, with this address
    #[arg(long, value_name = "HOST", requires = "node")]
    node_address: Option<String>,
    #[command(flatten)]
    checks: CheckArgs,
}

impl Register {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let node =
            self.node_address.map(|address| Node { name: self.node.clone(), address, ..Node::default() });
        let instance = Instance {
            service: self.service,
            id: self.id,
            node: self.node,
            address: self.address,
            port: self.port,
            ports: self.ports.into_iter().collect(),
            tags: self.tags,
            metadata: pairs(self.metadata),
            version: self.version,
            weights: Some(Weights { passing: self.weight, warning: self.warning_weight }),
            depends_on: self.depends_on,
            lease: self.lease,
        };
        let checks = self.checks.into_checks();
        let request =
            RegisterRequest { node, instance: Some(instance), checks, ..RegisterRequest::default() };
        session.output.message(&session.client.catalog().register(request).await?)
    }
}

/// Items as a map; of those of one name the last counts.
pub(crate) fn pairs(pairs: Vec<(String, String)>) -> HashMap<String, String> {
    pairs.into_iter().collect()
}

/// Parses `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "it should be NAME=VALUE".into())
}

fn named_port(text: &str) -> Result<(String, u32), String> {
    let (name, port) = pair(text).map_err(|_| "it should be NAME=PORT")?;
    let port = port.parse().map_err(|_| "it should be NAME=PORT, and the port a number")?;
    Ok((name, port))
}
