//! Checks, as flags say them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use konsul_client::proto::{AliasCheck, Check, HealthStatus, TtlCheck, check::Kind};

use crate::args::duration;

/// What tells how it is. Each flag is a check of its own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
pub(crate) struct CheckArgs {
    /// It is critical unless `konsul health pass`, or a heartbeat, comes this often
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// Another instance is well
    #[arg(long, value_name = "SERVICE/ID", value_parser = alias)]
    alias: Vec<(String, String)>,
    /// Deregister the instance when a check has been critical for so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deregister_after: Option<Duration>,
    /// How checks are until their first result
    #[arg(long, value_enum, value_name = "STATUS", default_value_t = Status::Critical)]
    initial: Status,
}

/// A status that a check can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Status {
    Passing,
    Warning,
    Critical,
}

impl From<Status> for HealthStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Passing => Self::Passing,
            Status::Warning => Self::Warning,
            Status::Critical => Self::Critical,
        }
    }
}

impl CheckArgs {
    /// The checks. Where there are several aliases they are numbered.
    pub(crate) fn into_checks(self) -> Vec<Check> {
        let time = |given: Option<Duration>| given.and_then(|d| prost_types::Duration::try_from(d).ok());
        let mut checks = Vec::new();
        let mut add = |id: String, kind: Kind| {
            checks.push(Check {
                id,
                kind: Some(kind),
                deregister_critical_after: time(self.deregister_after),
                initial: HealthStatus::from(self.initial).into(),
                ..Check::default()
            });
        };
        if let Some(ttl) = self.ttl {
            add(String::new(), Kind::Ttl(TtlCheck { ttl: time(Some(ttl)) }));
        }
        let is_one = self.alias.len() == 1;
        for (i, (service, instance)) in self.alias.into_iter().enumerate() {
            let id = if is_one { String::new() } else { format!("alias-{}", i + 1) };
            add(id, Kind::Alias(AliasCheck { service, instance }));
        }
        checks
    }
}

fn alias(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/');
    parts
        .map(|(service, id)| (service.to_owned(), id.to_owned()))
        .ok_or_else(|| "it should be SERVICE/ID".into())
}
