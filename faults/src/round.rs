//! The inside of a run, in the clients' namespace: starts the cluster, lets the clients and the faults loose, waits until all is healed, and
//! judges.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::network::Network;
use crate::report::Report;
use crate::workload::{Change, Coordination, History, Promise, Record, Workload};
use crate::{checks, command, nemesis, summary, workload};

/// How long a new or a healed cluster may take until all members serve and know a leader.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long clients go on after all is healed.
const PEACE: Duration = Duration::from_secs(3);
/// How long watchers may take to catch up, and members to agree. A client that heard nothing of a connection's end looks after 30 s.
const CALM_LIMIT: Duration = Duration::from_secs(90);
/// So many members have a majority without one of them.
const MAJORITY_MIN: u8 = 3;
const POLL: Duration = Duration::from_millis(100);
/// The exit code of a shell's command that was interrupted.
const INTERRUPTED: u8 = 130;
/// In a server's log, what no fault explains: a panic, and a member that found itself broken or different from the others.
const ALARMS: [&str; 2] = ["panicked at", "stops serving"];

/// What `run` tells the inside.
#[derive(Debug, Args)]
pub(crate) struct RoundOptions {
    #[arg(long)]
    run: String,
    #[arg(long)]
    members: u8,
    #[arg(long)]
    seconds: u32,
    #[arg(long)]
    seed: u64,
    #[arg(long, value_delimiter = ',')]
    faults: Vec<String>,
    #[arg(long)]
    konsul: PathBuf,
    #[arg(long)]
    checker: PathBuf,
    #[arg(long)]
    folder: PathBuf,
}

/// What everybody remembers of a round.
struct Memories {
    records: Vec<Record>,
    promises: Vec<Promise>,
    /// What each watcher was told.
    streams: Vec<(String, Vec<Change>)>,
    /// What the store says has happened; `None` when it could not be read.
    history: Option<Vec<Change>>,
    /// What lockers and tenants remember; `None` when it could not be collected.
    coordination: Option<Coordination>,
}

/// Runs a round; the exit code says whether the cluster kept its promises.
///
/// # Errors
/// When the round itself can't be done.
pub(crate) fn run(options: &RoundOptions) -> Result<ExitCode> {
    // The outside removes what is left, and nobody would without it.
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = round(options) => done,
            _ = interrupt.recv() => Ok(interrupted()),
            _ = terminate.recv() => Ok(interrupted()),
        }
    })
}

fn interrupted() -> ExitCode {
    eprintln!("konsul-faults: interrupted");
    ExitCode::from(INTERRUPTED)
}

async fn round(options: &RoundOptions) -> Result<ExitCode> {
    let report = Report::new(&options.folder)?;
    let RoundOptions { seed, members, seconds, .. } = options;
    report.say(format_args!("seed {seed}, {members} members, {seconds} s of faults"));
    // This namespace has mounts of its own, so what libfaketime leaves in shared memory goes with it.
    command::line("mount -t tmpfs tmpfs /dev/shm").await?;
    let network = Network::new(&options.run);
    let cluster = Cluster::make(*members, &network, &options.konsul, &options.folder, &report).await?;
    cluster.start()?;
    cluster.until_ready(READY_LIMIT).await.context("the cluster does not even begin")?;
    let mut workload = Workload::begin(&cluster, &options.folder, *seed)?;
    nemesis::run(&cluster, &options.faults, *seed, Duration::from_secs((*seconds).into())).await?;
    let memories = calm(&cluster, &mut workload, options).await?;
    judge(&memories, &report);
    if *members >= MAJORITY_MIN {
        report.found_all(checks::writes_go_on(&memories.records, &report.faults()));
    }
    let history = workload.history.clone();
    check_linearizability(&history, &options.checker, &report).await?;
    cluster.kill().await?;
    look_for_alarms(&cluster)?;
    summary::print(&history, &report);
    Ok(if report.findings() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until the healed cluster is well, and collects what everybody remembers. What doesn't become well is reported.
///
/// # Errors
/// When the rig itself fails.
async fn calm(cluster: &Cluster, workload: &mut Workload, options: &RoundOptions) -> Result<Memories> {
    let report = &cluster.report;
    report.tell("all is healed");
    // One that had no room to start when a fault ended is down still.
    cluster.start()?;
    report.found_if(cluster.until_ready(READY_LIMIT).await);
    let before = workload.answered();
    tokio::time::sleep(PEACE).await;
    if workload.answered() == before {
        report.found(format_args!("no call was answered within {PEACE:?} after all was healed"));
    }
    let promises = workload.stop().await?;
    let streams = workload.streams(cluster, CALM_LIMIT).await?;
    let coordination = report.found_if(workload.coordination(cluster, CALM_LIMIT).await);
    workload.read_all(cluster, CALM_LIMIT).await;
    report.found_if(until_equal(cluster).await);
    let history = report.found_if(workload::told_history(cluster, &workload.history, CALM_LIMIT).await);
    let told = streams.iter().map(|(name, changes)| (name.as_str(), changes));
    for (name, changes) in told.chain(history.as_ref().map(|history| ("history", history))) {
        write_changes(&options.folder.join(format!("changes-{name}.jsonl")), changes)?;
    }
    report.tell("all was read");
    Ok(Memories { records: workload.history.records(), promises, streams, history, coordination })
}

/// Waits until all members have applied the same, and compares their states.
async fn until_equal(cluster: &Cluster) -> Result<()> {
    let mut shown = String::new();
    let equal = async {
        loop {
            let mut states = Vec::new();
            for member in &cluster.members {
                let status = member.client.admin().status().await.ok();
                states.push((
                    member.name.as_str(),
                    status.map(|status| (status.applied_index, status.state_hash)),
                ));
            }
            shown = format!("{states:?}");
            let same = |pair: &[(&str, Option<(u64, String)>)]| pair[0].1 == pair[1].1;
            if states[0].1.is_some() && states.windows(2).all(same) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let came = tokio::time::timeout(CALM_LIMIT, equal).await;
    came.map_err(|_| {
        anyhow::anyhow!("the members' states differ {CALM_LIMIT:?} after all was healed: {shown}")
    })
}

fn write_changes(path: &Path, changes: &[Change]) -> Result<()> {
    let mut lines = Vec::new();
    for change in changes {
        serde_json::to_writer(&mut lines, change)?;
        lines.write_all(b"\n")?;
    }
    fs::write(path, lines).with_context(|| format!("can't write {}", path.display()))
}

fn judge(memories: &Memories, report: &Report) {
    let Memories { records, promises, streams, history, coordination } = memories;
    report.found_all(checks::revisions_follow_time(records));
    if let Some(coordination) = coordination {
        judge_coordination(coordination, report);
    }
    let Some(history) = history else { return };
    for (name, stream) in streams {
        report.found_all(checks::stream_is_history(name, stream, history));
    }
    report.found_all(checks::promises_are_kept(promises, history));
    report.found_all(checks::writes_are_in_history(records, history));
    let kept = promises.iter().filter(|promise| promise.revision.is_some()).count();
    report.say(format_args!("{} changes, told to {} watchers", history.len(), streams.len()));
    report.say(format_args!("{kept} acknowledged writes of {} to the ledger", promises.len()));
}

fn judge_coordination(coordination: &Coordination, report: &Report) {
    let Coordination { counts, versions, tenancies, ends, leaders } = coordination;
    report.found_all(checks::coordination_happened(counts.held, tenancies.len()));
    report.found_all(checks::counting_is_exact(&counts.counts, versions));
    report.found_all(checks::leases_live_their_time(tenancies, ends, leaders, &report.faults()));
    let (number, fenced) = (versions.len(), counts.fenced);
    report.say(format_args!("counted to {number} under a lock, {fenced} writes of former holders refused"));
    if let Some((median, most)) = checks::lateness(tenancies, ends, leaders) {
        let (leases, median, most) = (tenancies.len(), median.as_secs_f64(), most.as_secs_f64());
        report.say(format_args!(
            "{leases} leases ended, half of them within {median:.2} s after their time, all within {most:.2} s"
        ));
    }
}

async fn check_linearizability(history: &History, checker: &Path, report: &Report) -> Result<()> {
    let path = history.complete()?;
    let output = command::output(Command::new(checker).arg(path)).await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => report.say(printed.trim()),
        Some(1) => report.found_all(printed.lines().map(str::to_owned).collect()),
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr).trim()),
    }
    Ok(())
}

fn look_for_alarms(cluster: &Cluster) -> Result<()> {
    for member in cluster.members.iter().chain(&cluster.spare) {
        // One that never joined has no log.
        let log = if member.log().exists() { fs::read_to_string(member.log())? } else { String::new() };
        let alarms = log.lines().filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)));
        cluster.report.found_all(alarms.map(|line| format!("{}: {line}", member.name)).collect());
    }
    Ok(())
}
