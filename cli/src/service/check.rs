//! Checks, as flags say them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use konsul_client::proto::{
    AliasCheck, Check, GrpcCheck, HealthStatus, HttpCheck, ScriptCheck, TcpCheck, TtlCheck, UdpCheck,
    check::Kind,
};

use crate::args::duration;

/// What tells how it is. Each flag is a check of its own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
pub(crate) struct CheckArgs {
    /// It is critical unless `konsul health pass`, or a heartbeat, comes this often
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// An HTTP server answers at this URL with a status of 200 to 299
    #[arg(long, value_name = "URL")]
    http: Vec<String>,
    /// A TCP connection can be made
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,
    /// A UDP datagram is not refused
    #[arg(long, value_name = "HOST:PORT")]
    udp: Vec<String>,
    /// A gRPC server says that it serves (grpc.health.v1)
    #[arg(long, value_name = "HOST:PORT")]
    grpc: Vec<String>,
    /// A script of the servers' configuration passes
    #[arg(long, value_name = "NAME")]
    script: Vec<String>,
    /// Another instance is well
    #[arg(long, value_name = "SERVICE/ID", value_parser = alias)]
    alias: Vec<(String, String)>,
    /// How often the servers look, for checks that they carry out
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    interval: Option<Duration>,
    /// How long a look may take
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    check_timeout: Option<Duration>,
    /// Failures in a row before such a check is critical
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    fails_after: u32,
    /// Successes in a row before it passes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    passes_after: u32,
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
    /// The checks. Those of a kind that there are several of are numbered.
    pub(crate) fn into_checks(self) -> Vec<Check> {
        let time = |given: Option<Duration>| given.and_then(|d| prost_types::Duration::try_from(d).ok());
        let mut checks = Vec::new();
        let mut add = |kinds: Vec<Kind>, name: &str, is_active: bool| {
            let one = kinds.len() == 1;
            for (i, kind) in kinds.into_iter().enumerate() {
                checks.push(Check {
                    id: if one { String::new() } else { format!("{name}-{}", i + 1) },
                    kind: Some(kind),
                    interval: time(self.interval.filter(|_| is_active)),
                    timeout: time(self.check_timeout.filter(|_| is_active)),
                    fails_after: if is_active { self.fails_after } else { 0 },
                    passes_after: if is_active { self.passes_after } else { 0 },
                    deregister_critical_after: time(self.deregister_after),
                    initial: HealthStatus::from(self.initial).into(),
                    ..Check::default()
                });
            }
        };
        let http = |url| Kind::Http(HttpCheck { url, ..HttpCheck::default() });
        let grpc = |address| Kind::Grpc(GrpcCheck { address, ..GrpcCheck::default() });
        let udp = |address| Kind::Udp(UdpCheck { address, ..UdpCheck::default() });
        let alias = |(service, instance)| Kind::Alias(AliasCheck { service, instance });
        add(
            self.ttl.into_iter().map(|ttl| Kind::Ttl(TtlCheck { ttl: time(Some(ttl)) })).collect(),
            "ttl",
            false,
        );
        add(self.http.into_iter().map(http).collect(), "http", true);
        add(
            self.tcp.into_iter().map(|address| Kind::Tcp(TcpCheck { address, tls: None })).collect(),
            "tcp",
            true,
        );
        add(self.udp.into_iter().map(udp).collect(), "udp", true);
        add(self.grpc.into_iter().map(grpc).collect(), "grpc", true);
        add(
            self.script.into_iter().map(|script| Kind::Script(ScriptCheck { script })).collect(),
            "script",
            true,
        );
        add(self.alias.into_iter().map(alias).collect(), "alias", false);
        checks
    }
}

fn alias(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/');
    parts
        .map(|(service, id)| (service.to_owned(), id.to_owned()))
        .ok_or_else(|| "it should be SERVICE/ID".into())
}
