//! `konsul server`: turns flags into those of the server crate, which does the rest.

use std::path::PathBuf;

use clap::Args;
use konsul_server::Flags;

use crate::failure::Failure;

const EXAMPLES: &str = "\
Examples:
  konsul server                                serve on 127.0.0.1:8500 from ./konsul-data
  konsul server --dev                          a throwaway server: no data directory, no authentication
  konsul server --config /etc/konsul.toml      settings from a file
  KONSUL_LOG_FORMAT=json konsul server         any setting from the environment
  konsul server --settings                     all settings with their defaults, as a TOML file

SIGTERM and SIGINT stop it in order; a second one at once.";

/// Run a server
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Server {
    /// Run a throwaway server for development: in memory, without authentication, on loopback only
    #[arg(long)]
    dev: bool,
    /// Read settings from this TOML file; the environment and the flags go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep everything in this directory [default: ./konsul-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Listen on this address; port 0 takes a free one [default: 127.0.0.1:8500]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Answer DNS on this address; empty for no DNS [default: 127.0.0.1:8600]
    #[arg(long, value_name = "HOST:PORT")]
    dns_listen: Option<String>,
    /// Write the bound address to this file once the server is ready
    #[arg(long, value_name = "FILE")]
    address_file: Option<String>,
    /// Print all settings with their defaults and end
    #[arg(long)]
    settings: bool,
}

impl Server {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if self.settings {
            return Ok(std::io::Write::write_all(
                &mut std::io::stdout(),
                konsul_server::config::example().as_bytes(),
            )?);
        }
        let Self { dev, config, data_dir, listen, dns_listen, address_file, settings: _ } = self;
        Ok(konsul_server::run(&Flags { dev, config, data_dir, listen, dns_listen, address_file })?)
    }
}
