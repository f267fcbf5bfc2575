//! The outside of a run: claims a name, makes the network, starts the inside in the clients' namespace, and removes everything at the
//! end, however that came.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use rand::Rng;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::claim::Claim;
use crate::cluster::{self, Names};
use crate::nemesis;
use crate::network::{self, Network};

/// What a run is asked for.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Members of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    members: u8,
    /// How long there are faults; what comes before and after takes up to some minutes more
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Chooses the faults and what the clients do [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Only these faults [default: all]
    #[arg(long, value_delimiter = ',', value_name = "FAULT")]
    faults: Vec<String>,
    /// The server to break [default: the konsul beside konsul-faults]
    #[arg(long, value_name = "PROGRAM")]
    konsul: Option<PathBuf>,
    /// What checker/build.sh built
    #[arg(long, value_name = "PROGRAM")]
    checker: PathBuf,
    /// Where a folder with the members' disks, histories and logs is made
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Keep that folder also when all is well
    #[arg(long)]
    keep: bool,
}

/// The programs of a run, by their full paths.
struct Programs {
    own: PathBuf,
    konsul: PathBuf,
    checker: PathBuf,
}

impl Programs {
    fn of(options: &RunOptions) -> Result<Self> {
        let full =
            |path: &Path| path.canonicalize().with_context(|| format!("there is no {}", path.display()));
        let own = std::env::current_exe()?;
        let beside = own.with_file_name("konsul");
        let konsul = full(options.konsul.as_deref().unwrap_or(&beside))?;
        Ok(Self { konsul, checker: full(&options.checker)?, own })
    }
}

/// Runs all of it; the exit code says whether the cluster kept its promises.
///
/// # Errors
/// When the run itself can't be done.
pub(crate) fn run(options: &RunOptions) -> Result<ExitCode> {
    nemesis::check(&options.faults, options.members.into())?;
    let programs = Programs::of(options)?;
    if !geteuid().is_root() {
        bail!("namespaces, mounts and packet filters need root: run it as root");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let claim = Claim::new().await?;
        let folder = folder(&options.dir)?;
        // Only removed once it is known that nobody needs it.
        let folder = folder.keep();
        let inside = inside(options, &programs, &claim, &folder).await;
        let removed = network::remove(claim.name()).await;
        let code = inside?;
        removed?;
        if code == 0 && !options.keep {
            fs::remove_dir_all(&folder).with_context(|| format!("can't remove {}", folder.display()))?;
        } else {
            println!("histories, logs and disks are in {}", folder.display());
        }
        Ok(ExitCode::from(code))
    })
}

/// Makes the network and lets the inside run there; its exit code.
async fn inside(options: &RunOptions, programs: &Programs, claim: &Claim, folder: &Path) -> Result<u8> {
    // From here on a signal is for the inside, which ends by it, so that what is made here is also removed.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let network = Network::new(claim.name());
    network.set_up(&Names::new(options.members).addresses()).await?;
    let mut inside = command(options, programs, claim, folder).spawn().context("can't run ip")?;
    let pid = inside.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    loop {
        tokio::select! {
            ended = inside.wait() => {
                let ended = ended?;
                let code = ended.code().and_then(|code| u8::try_from(code).ok());
                return code.with_context(|| format!("the inside of the run ended by {ended}"));
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if let Some(pid) = pid {
            // It may just have ended.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

fn command(options: &RunOptions, programs: &Programs, claim: &Claim, folder: &Path) -> Command {
    let hub = Network::new(claim.name()).hub();
    let seed = options.seed.unwrap_or_else(|| rand::rng().random());
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &hub]).arg(&programs.own).args(["round", "--run", claim.name()]);
    command.arg("--members").arg(options.members.to_string());
    command.arg("--seconds").arg(options.seconds.to_string());
    command.arg("--seed").arg(seed.to_string());
    command.arg("--konsul").arg(&programs.konsul);
    command.arg("--checker").arg(&programs.checker);
    command.arg("--folder").arg(folder);
    if !options.faults.is_empty() {
        command.arg("--faults").arg(options.faults.join(","));
    }
    // An interrupt at the terminal comes to the outside alone, which passes it on.
    command.process_group(0);
    // What is set here is meant for somebody's real servers.
    for (name, _) in std::env::vars_os().filter(|(name, _)| cluster::is_setting(name)) {
        command.env_remove(name);
    }
    command
}

fn folder(parent: &Path) -> Result<tempfile::TempDir> {
    let parent = parent.canonicalize().with_context(|| format!("there is no {}", parent.display()))?;
    tempfile::Builder::new()
        .prefix("konsul-faults-")
        .tempdir_in(&parent)
        .with_context(|| format!("can't make a folder in {}", parent.display()))
}
