//! The command line: the commands and the options that all client commands share.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::backup::Backup;
use crate::cluster::Cluster;
use crate::compact::Compact;
use crate::completion::Completion;
use crate::defrag::Defrag;
use crate::elect::Elect;
use crate::health::Health;
use crate::kv::Kv;
use crate::lease::Lease;
use crate::lock::Lock;
use crate::node::Node;
use crate::recover::Recover;
use crate::server::Server;
use crate::service::Service;
use crate::status::Status;
use crate::tls::Tls;
use crate::transfer::{Export, Import};
use crate::verify::Verify;

/// Where a server listens unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "http://127.0.0.1:8500";

const EXAMPLES: &str = "\
Examples:
  konsul server --dev                            a throwaway server on 127.0.0.1:8500
  konsul kv put app/port 8080                    write a key
  konsul kv get app/port                         read it
  konsul kv watch app/ --exec ./reload.sh        run a command on every change
  konsul service register web --id web-1 --address 192.0.2.10 --port 8080
  konsul lock jobs/nightly -- ./nightly.sh       run a command while holding a lock

Exit codes:
  0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 interrupted";

/// Konsul: configuration that streams its changes
#[derive(Debug, Parser)]
#[command(name = "konsul", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Server(Server),
    Status(Status),
    Kv(Kv),
    Export(Export),
    Import(Import),
    Lease(Lease),
    Lock(Lock),
    Elect(Elect),
    Service(Service),
    Node(Node),
    Health(Health),
    Backup(Backup),
    Cluster(Cluster),
    Compact(Compact),
    Defrag(Defrag),
    Tls(Tls),
    Recover(Recover),
    Verify(Verify),
    Completion(Completion),
}

/// The options of all commands that talk to a server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Client options")]
pub(crate) struct ClientArgs {
    /// Address of the server; several, separated by commas, are tried in turn
    #[arg(
        long,
        global = true,
        env = "KONSUL_ADDR",
        value_name = "URL",
        value_delimiter = ',',
        default_value = DEFAULT_ADDRESS
    )]
    pub(crate) addr: Vec<String>,
    /// Token to authenticate with
    #[arg(long, global = true, env = "KONSUL_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Namespace of the keys; empty means `default`
    #[arg(
        short,
        long,
        global = true,
        env = "KONSUL_NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) namespace: String,
    /// What to print: text for people, or the API's own JSON
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text, hide_possible_values = true, value_name = "text|json")]
    pub(crate) output: Format,
    /// How long a call may take with all its attempts, such as 500ms, 10s or 2m
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// How outcomes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Parses a number with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let milliseconds_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("it should be a whole number with a unit: 500ms, 10s, 2m or 1h".into()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(milliseconds_per_unit))
        .filter(|milliseconds| *milliseconds > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| "it should be more than 0 and not too long: 500ms, 10s, 2m or 1h".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "5", "s", "0s", "1.5s", "-1s", "99999999999999999999h", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
