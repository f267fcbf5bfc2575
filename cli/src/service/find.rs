//! `konsul service instances` and `resolve`.

use clap::{Args, ValueEnum};
use konsul_client::proto::{
    self, HealthStatus, InstanceSelector, ListInstancesRequest, ListInstancesResponse, ResolveRequest,
};

use super::register::{pair, pairs};
use crate::failure::Failure;
use crate::session::Session;

/// Which instances are meant.
#[derive(Debug, Args)]
struct Select {
    /// Only those with this tag; several: with all of them
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only those with this item of metadata
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Only those in this health; several: in any of them
    #[arg(long, value_enum, value_name = "HEALTH")]
    health: Vec<Health>,
    /// Only those for which this CEL expression is true
    #[arg(long, value_name = "EXPRESSION", default_value = "", hide_default_value = true)]
    filter: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Health {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl Select {
    fn into_selector(self) -> InstanceSelector {
        let health = self.health.into_iter().map(|health| match health {
            Health::Passing => HealthStatus::Passing.into(),
            Health::Warning => HealthStatus::Warning.into(),
            Health::Critical => HealthStatus::Critical.into(),
            Health::Maintenance => HealthStatus::Maintenance.into(),
        });
        InstanceSelector {
            tags: self.tags,
            metadata: pairs(self.metadata),
            health: health.collect(),
            filter: self.filter,
        }
    }
}

/// List instances, in any health unless told otherwise
#[derive(Debug, Args)]
pub(super) struct Instances {
    /// The service; all of the namespace without one
    #[arg(default_value = "", hide_default_value = true)]
    service: String,
    /// Only those on this node
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    node: String,
    #[command(flatten)]
    select: Select,
}

impl Instances {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let request = ListInstancesRequest {
            service: self.service,
            node: self.node,
            select: Some(self.select.into_selector()),
            ..ListInstancesRequest::default()
        };
        let instances = session.client.catalog().instances(request).await?;
        session.output.message(&ListInstancesResponse { instances, ..Default::default() })
    }
}

/// Pick instances of a service to speak to, and print where they are
///
/// Passing ones unless told otherwise. Exit code 1 when there is none.
#[derive(Debug, Args)]
pub(super) struct Resolve {
    /// The service
    service: String,
    /// How they are picked
    #[arg(long, value_enum, value_name = "STRATEGY", default_value_t = Strategy::RoundRobin)]
    strategy: Strategy,
    /// The key of consistent-hash
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    key: String,
    /// The zone of nearest
    #[arg(long, value_name = "ZONE", default_value = "", hide_default_value = true)]
    zone: String,
    /// How many, best first
    #[arg(long, value_name = "N", default_value_t = 1)]
    limit: u32,
    #[command(flatten)]
    select: Select,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    RoundRobin,
    Random,
    Weighted,
    LeastLoaded,
    ConsistentHash,
    Nearest,
}

impl Resolve {
    pub(super) async fn run(self, session: &Session) -> Result<(), Failure> {
        let strategy = match self.strategy {
            Strategy::RoundRobin => proto::Strategy::RoundRobin,
            Strategy::Random => proto::Strategy::Random,
            Strategy::Weighted => proto::Strategy::Weighted,
            Strategy::LeastLoaded => proto::Strategy::LeastLoaded,
            Strategy::ConsistentHash => proto::Strategy::ConsistentHash,
            Strategy::Nearest => proto::Strategy::Nearest,
        };
        let request = ResolveRequest {
            service: self.service.clone(),
            select: Some(self.select.into_selector()),
            strategy: strategy.into(),
            hash_key: self.key,
            zone: self.zone,
            limit: self.limit,
            ..ResolveRequest::default()
        };
        let picked = session.client.catalog().resolve(request).await?;
        let is_none = picked.instances.is_empty();
        session.output.message(&picked)?;
        if is_none { Err(Failure::NoInstance { service: self.service }) } else { Ok(()) }
    }
}
