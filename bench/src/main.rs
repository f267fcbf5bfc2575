//! `konsul-bench` measures Konsul and its peers through their public APIs, in one run and in turns.
//!
//! # Layout
//! - `main.rs`: the command line
//! - `peers/`: what may be asked of etcd, Konsul and the bare server, in one shape
//! - `process.rs`, `observe.rs`: the measured processes, and what the kernel tells about them
//! - `load.rs`, `stats.rs`: closed-loop callers; order statistics
//! - `rows/`: what is measured, one file a row
//! - `report/`: figures, goals, the table

mod load;
mod observe;
mod peers;
mod process;
mod report;
mod rows;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::load::Client;
use crate::peers::Peer;
use crate::process::Programs;
use crate::report::{Conditions, Report, table};
use crate::rows::{Bench, Row};

/// Konsul's allocator, so that the bare server is Konsul's floor in memory, too; and it costs the client less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between these lines of the README stands the latest table.
const README_MARKS: [&str; 2] = ["<!-- latest: begin -->", "<!-- latest: end -->"];

/// Measures Konsul and etcd with the same client, in one run, in turns.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures, prints the table, and writes it to the results
    Run(RunOptions),
    /// Prints the table of a run, or puts it into the README
    Report(ReportOptions),
    /// Serves the floor: a server that answers and does nothing (started by `run`)
    #[command(hide = true)]
    Bare {
        /// Written once it listens
        #[arg(long)]
        address_file: PathBuf,
        /// Single-threaded runtimes
        #[arg(long, default_value_t = 1)]
        runtimes: usize,
    },
}

#[derive(Debug, Args)]
struct RunOptions {
    /// Rows to measure [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Who is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Rounds of each row; figures are their medians
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds measured a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// One round of one second at small sizes: to see that all works, not for its figures
    #[arg(long)]
    quick: bool,
    /// Ten million keys instead of one in the row put-cost
    #[arg(long)]
    full: bool,
    /// The etcd to measure against
    #[arg(long, default_value = "etcd", value_name = "PROGRAM")]
    peer: PathBuf,
    /// The konsul to measure [default: the one beside konsul-bench]
    #[arg(long, value_name = "PROGRAM")]
    konsul: Option<PathBuf>,
    /// Where all data goes, in a folder of its own that is removed at the end; must be a real disk
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Keep data and logs of a row that fails
    #[arg(long)]
    keep: bool,
    /// Where the results are written [default: nowhere]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Threads of the client
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    client_threads: u16,
    /// Connections of the client
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: u16,
    /// Threads of the bare server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    bare_runtimes: u16,
}

#[derive(Debug, Args)]
struct ReportOptions {
    /// The run's JSON [default: the newest in the results]
    json: Option<PathBuf>,
    /// Where the results are
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
    /// Replace the table in the README beside the results
    #[arg(long)]
    update_readme: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Report(options) => report(&options),
        Command::Bare { address_file, runtimes } => peers::bare::serve(&address_file, runtimes),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("konsul-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &RunOptions) -> Result<()> {
    let mut directory = data_directory(&options.dir)?;
    if options.keep {
        directory.disable_cleanup(true);
        eprintln!("data and logs are in {}", directory.path().display());
    }
    kill_servers_on_signals((!options.keep).then(|| directory.path().to_owned()))?;
    let bench = bench(options, directory.path())?;
    let mut report = Report {
        started: prost_types::Timestamp::from(SystemTime::now()).to_string(),
        conditions: conditions(&bench)?,
        lines: Vec::new(),
    };
    let rows = if options.rows.is_empty() { Row::value_variants() } else { &options.rows };
    for row in rows {
        row.run(&bench, &mut report)?;
        // After each row, so that a run that is cut off has not been for nothing.
        if let Some(out) = &options.out {
            eprintln!("written to {}", report.write(out)?.display());
        }
    }
    println!("{}", table::section(&report));
    directory.close().context("can't remove the servers' data")
}

fn report(options: &ReportOptions) -> Result<()> {
    let json = options.json.clone().map_or_else(|| newest(&options.results), Ok)?;
    let report = Report::read(&json)?;
    if !options.update_readme {
        println!("{}", table::section(&report));
        return Ok(());
    }
    let folder = options.results.parent().context("the results have no parent folder")?;
    let readme = folder.join("README.md");
    let text = fs::read_to_string(&readme).with_context(|| format!("can't read {}", readme.display()))?;
    let [begin, end] = README_MARKS;
    let (before, rest) = text.split_once(begin).with_context(|| format!("no {begin} in the README"))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("no {end} in the README"))?;
    let text = format!("{before}{begin}\n{}\n{end}{after}", table::section(&report));
    fs::write(&readme, text).with_context(|| format!("can't write {}", readme.display()))
}

/// The newest report of a folder: names begin with the date.
fn newest(results: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(results).with_context(|| format!("can't read {}", results.display()))?;
    let reports = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "json"));
    reports.max().with_context(|| format!("no reports in {}", results.display()))
}

fn bench(options: &RunOptions, directory: &Path) -> Result<Bench> {
    let konsul = match &options.konsul {
        Some(konsul) => konsul.clone(),
        None => std::env::current_exe()?.with_file_name("konsul"),
    };
    let (rounds, seconds) = if options.quick { (1, 1) } else { (options.rounds, options.seconds) };
    let window = Duration::from_secs(seconds.into());
    let peers = if options.peers.is_empty() { Peer::value_variants() } else { &options.peers };
    Ok(Bench {
        programs: Programs {
            etcd: options.peer.clone(),
            konsul,
            bare_runtimes: options.bare_runtimes.into(),
        },
        directory: directory.to_owned(),
        client: Client {
            threads: options.client_threads.into(),
            connections: options.connections.into(),
            warm_up: window / 5,
            window,
        },
        peers: peers.to_vec(),
        rounds: rounds.into(),
        quick: options.quick,
        full: options.full,
    })
}

fn conditions(bench: &Bench) -> Result<Conditions> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let total_kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let total_kib = total_kib.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    // The part after the dash names somebody's build, not the kernel.
    let kernel = release.trim().split('-').next().unwrap_or_default().to_owned();
    let version_of = |peer: Peer, program: &Path| match bench.peers.contains(&peer) {
        true => process::version(program),
        false => Ok(format!("{peer} was not measured")),
    };
    Ok(Conditions {
        etcd: version_of(Peer::Etcd, &bench.programs.etcd)?.replace("etcd Version:", "etcd"),
        konsul: version_of(Peer::Konsul, &bench.programs.konsul)?,
        processors: thread::available_parallelism()?.get(),
        memory_bytes: total_kib.unwrap_or(0) * 1024,
        kernel,
        file_system: observe::file_system(&bench.directory)?,
        rounds: bench.rounds,
        seconds: bench.client.window.as_secs_f64(),
        client_threads: bench.client.threads,
        connections: bench.client.connections,
        bare_runtimes: bench.programs.bare_runtimes,
    })
}

/// A new folder for all data.
fn data_directory(parent: &Path) -> Result<tempfile::TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("konsul-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("can't make a folder in {}", parent.display()))?;
    let file_system = observe::file_system(directory.path())?;
    if matches!(file_system.as_str(), "tmpfs" | "ramfs") {
        bail!("{} is in memory ({file_system}): choose a disk with --dir", parent.display());
    }
    Ok(directory)
}

/// Ends the servers and removes their data when the bench itself is told to end.
fn kill_servers_on_signals(directory: Option<PathBuf>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = load::runtime()?;
    let _guard = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(_guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        process::kill_all();
        // What can't be removed now is in a folder whose name says whose it was.
        let _ = directory.map(fs::remove_dir_all);
        std::process::exit(130);
    });
    Ok(())
}
