//! Checks, as flags say them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use konsul_client::proto::{
    AliasCheck, Check, GrpcCheck, HealthStatus, HttpCheck, TcpCheck, TtlCheck, UdpCheck, check::Kind,
};

use crate::args::duration;

/// What tells how it is. Each flag is a check of its own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checks")]
pub(crate) struct CheckArgs {
    /// It is critical unless `konsul health pass`, or a heartbeat, comes this often
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// This URL answers with a 2xx status; the servers ask it, as all that follow but aliases
    #[arg(long, value_name = "URL")]
    http: Vec<String>,
    /// A TCP connection can be made
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,
    /// An empty UDP datagram is not refused
    #[arg(long, value_name = "HOST:PORT")]
    udp: Vec<String>,
    /// A gRPC server says that it serves (grpc.health.v1), as a whole or a service of its
    #[arg(long, value_name = "HOST:PORT[/SERVICE]")]
    grpc: Vec<String>,
    /// How often the servers check [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    interval: Option<Duration>,
    /// How long one of their checks may take [default: 5s, or the interval]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    check_timeout: Option<Duration>,
    /// How many of their checks fail in a row before it is critical
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    fails_after: u32,
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
    /// The checks. Where there are several of a kind they are numbered.
    pub(crate) fn into_checks(self) -> Vec<Check> {
        let ttl = self.ttl.map(|ttl| Kind::Ttl(TtlCheck { ttl: time(ttl) }));
        let http = |url| Kind::Http(HttpCheck { url, ..HttpCheck::default() });
        let tcp = |address| Kind::Tcp(TcpCheck { address, tls: None });
        let udp = |address| Kind::Udp(UdpCheck { address, ..UdpCheck::default() });
        let alias = |(service, instance)| Kind::Alias(AliasCheck { service, instance });
        let kinds: [(&str, Vec<Kind>); 6] = [
            ("ttl", ttl.into_iter().collect()),
            ("http", self.http.into_iter().map(http).collect()),
            ("tcp", self.tcp.into_iter().map(tcp).collect()),
            ("udp", self.udp.into_iter().map(udp).collect()),
            ("grpc", self.grpc.into_iter().map(grpc).collect()),
            ("alias", self.alias.into_iter().map(alias).collect()),
        ];
        let mut checks = Vec::new();
        for (name, kinds) in kinds {
            let is_one = kinds.len() == 1;
            for (i, kind) in kinds.into_iter().enumerate() {
                let is_active = !matches!(kind, Kind::Ttl(_) | Kind::Alias(_));
                checks.push(Check {
                    id: if is_one { String::new() } else { format!("{name}-{}", i + 1) },
                    kind: Some(kind),
                    interval: self.interval.filter(|_| is_active).and_then(time),
                    timeout: self.check_timeout.filter(|_| is_active).and_then(time),
                    fails_after: if is_active { self.fails_after } else { 0 },
                    deregister_critical_after: self.deregister_after.and_then(time),
                    initial: HealthStatus::from(self.initial).into(),
                    ..Check::default()
                });
            }
        }
        checks
    }
}

fn time(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

fn grpc(text: String) -> Kind {
    let (address, service) = match text.split_once('/') {
        Some((address, service)) => (address.to_owned(), service.to_owned()),
        None => (text, String::new()),
    };
    Kind::Grpc(GrpcCheck { address, service, tls: None })
}

fn alias(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/');
    parts
        .map(|(service, id)| (service.to_owned(), id.to_owned()))
        .ok_or_else(|| "it should be SERVICE/ID".into())
}
