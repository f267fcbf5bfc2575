//! The `konsul` command: parses the command line, runs one command, and turns its outcome into an exit code. What a
//! command does is in its own file; what it prints is written by `output`.
//!
//! # Layout
//! - `args`: the command line
//! - `session`: the client and the output of a command
//! - `kv`, `lease`, `lock`, `elect`, `status`, `compact`, `defrag`: the client commands, one file each
//! - `service`, `node`, `health`: services, where they run, and how they are
//! - `transfer`: `export` and `import`
//! - `backup`: backups of a whole store, with `progress` on a terminal
//! - `holding`: runs a command while something is held; `signals`: what it is told meanwhile
//! - `recover`, `verify`: the data of a server that is stopped
//! - `server`: the server, which is a crate of its own
//! - `tls`: certificates for members, which no server is asked for
//! - `completion`: shell completions
//! - `output`: all that is printed, as text or JSON
//! - `value`: values from an argument, a file or stdin
//! - `failure`: errors and exit codes

mod args;
mod backup;
mod cluster;
mod compact;
mod completion;
mod defrag;
mod elect;
mod failure;
mod health;
mod holding;
mod kv;
mod lease;
mod lock;
mod node;
mod output;
mod progress;
mod recover;
mod server;
mod service;
mod session;
mod signals;
mod status;
mod tls;
mod transfer;
mod value;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;
use output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Server(command) => command.run(),
        Command::Recover(command) => command.run(cli.client.output),
        Command::Verify(command) => command.run(cli.client.output),
        Command::Completion(command) => command.run(),
        Command::Tls(command) => command.run(&Output::new(cli.client.output)),
        Command::Backup(command) => command.run(cli.client),
        Command::Status(command) => session::run(cli.client, |session| command.run(session)),
        Command::Cluster(command) => session::run(cli.client, |session| command.run(session)),
        Command::Defrag(command) => session::run(cli.client, |session| command.run(session)),
        Command::Compact(command) => session::run(cli.client, |session| command.run(session)),
        Command::Kv(command) => session::run(cli.client, |session| command.run(session)),
        Command::Export(command) => session::run(cli.client, |session| command.run(session)),
        Command::Import(command) => session::run(cli.client, |session| command.run(session)),
        Command::Lease(command) => session::run(cli.client, |session| command.run(session)),
        Command::Lock(command) => session::run(cli.client, |session| command.run(session)),
        Command::Service(command) => session::run(cli.client, |session| command.run(session)),
        Command::Node(command) => session::run(cli.client, |session| command.run(session)),
        Command::Health(command) => session::run(cli.client, |session| command.run(session)),
        Command::Elect(command) => session::run(cli.client, |session| command.run(session)),
    }
}
