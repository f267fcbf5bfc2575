//! `konsul tls`: certificates by which the members of a cluster know each other, for people who have no PKI of their own.
//! One file a command; no server is asked.
//!
//! # Layout
//! - `ca`, `cert`: the commands
//! - `authority`: a certificate authority, read from its files and checked
//! - `files`: writes a certificate and its key
//! - `names`: the names that certificates are made for
//! - `term`: how long they are valid
//! - `error`: what can go wrong

mod authority;
mod ca;
mod cert;
mod error;
mod files;
mod names;
mod term;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::output::Output;
pub(crate) use error::Error;

const EXAMPLES: &str = "\
Examples:
  konsul tls ca                                  once for the cluster: ca.pem and ca-key.pem
  konsul tls cert --member a --host 10.0.0.1     for each member: a.pem and a-key.pem

Each command has more of them: konsul tls cert --help";

/// Make the certificates by which members know each other
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Tls {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ca(ca::Ca),
    Cert(cert::Cert),
}

impl Tls {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        match self.command {
            Command::Ca(command) => output.made(&command.run()?),
            Command::Cert(command) => output.made(&command.run()?),
        }
    }
}
