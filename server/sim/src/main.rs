//! `konsul-sim`: runs the simulation of one seed. `scripts/sim` runs many.

use std::process::ExitCode;
use std::thread;

use clap::Parser;
use konsul_sim::{Run, run};

/// Runs the simulation of one seed and says how it went.
#[derive(Parser)]
struct Arguments {
    /// The seed, which decides everything.
    #[arg(long)]
    seed: u64,
    /// Print what happens. RUST_LOG shows the logs as well, on stderr.
    #[arg(long)]
    trace: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let Arguments { seed, trace } = Arguments::parse();
    // Made here, because the simulation's thread has random names of its seed only.
    let dir = tempfile::tempdir()?;
    let path = dir.path().to_owned();
    let simulation = thread::Builder::new().name("simulation".to_owned());
    let ended = simulation.spawn(move || run(seed, &path, trace))?.join();
    let Ok(run) = ended else { anyhow::bail!("seed {seed} FAILED: the simulation itself panicked") };
    println!("{}", told(&run));
    Ok(if run.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(run: &Run) -> String {
    let Run { seed, hash, events, members, calls: (calls, answered), faults, revisions, elapsed, violations } =
        run;
    let verdict = if violations.is_empty() { "ok" } else { "FAILED" };
    let mut told = format!(
        "seed {seed} {verdict}: trace {hash:016x} of {events} events, {members} members, {faults} faults, \
         {answered} of {calls} calls answered, {revisions} revisions, {:.1} s simulated",
        elapsed.as_secs_f64()
    );
    for violation in violations {
        told += &format!("\n  {violation}");
    }
    told
}
