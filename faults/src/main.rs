//! `konsul-faults` breaks a cluster of real servers in every way that happens to one, while clients use it, and then
//! checks that it kept its promises.
//!
//! # Layout
//! - `main.rs`: the command line
//! - `run.rs`: the outside of a run: claims a name, makes the network, starts the inside, removes everything
//! - `claim.rs`, `network.rs`, `command.rs`: names of runs and what dead ones left behind; namespaces; the system's commands
//! - `round.rs`: the inside of a run, which lives in the clients' namespace
//! - `cluster.rs`, `member.rs`, `disk.rs`, `clock.rs`: the servers, their disks and their clocks
//! - `firewall.rs`, `delay.rs`: what becomes of packets
//! - `nemesis/`: the faults, one file each, and their schedule
//! - `workload/`: clients, writers, watchers, and what they remember
//! - `checks/`: what must hold of what they remember; pure
//! - `report.rs`, `summary.rs`: what a run did and found

mod checks;
mod claim;
mod clock;
mod cluster;
mod command;
mod delay;
mod disk;
mod firewall;
mod member;
mod nemesis;
mod network;
mod report;
mod round;
mod run;
mod summary;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Breaks a cluster of real servers and checks that it kept its promises.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a cluster, breaks it for a while, heals it, and checks what its clients saw; needs root
    Run(run::RunOptions),
    /// The inside of a run (started by `run`)
    #[command(hide = true)]
    Round(round::RoundOptions),
    /// Holds packets back in the namespace it runs in (started by a fault)
    #[command(hide = true)]
    Delay(delay::DelayOptions),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Round(options) => round::run(&options),
        Command::Delay(options) => delay::run(&options).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("konsul-faults: {error:#}");
        ExitCode::from(2)
    })
}
