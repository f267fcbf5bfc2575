//! Row: what a put costs among many keys, compared with among few: server CPU time of random puts, 256 in
//! flight, at 100,000 keys and at a million (ten million with `--full`, then of Konsul alone).

use std::fs;

use anyhow::Result;

use super::put::RandomPuts;
use super::{Bench, bulk_load, progress};
use crate::load::drive;
use crate::peers::etcd::Etcd;
use crate::peers::konsul::Konsul;
use crate::peers::{Peer, Target};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};
use crate::stats::median;

/// Calls in flight.
const IN_FLIGHT: usize = 256;
/// Keys at first.
const FEW: u64 = 100_000;

/// Measures the row.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let many = match (bench.full, bench.quick) {
        (true, _) => 10_000_000,
        (false, true) => 2 * FEW,
        (false, false) => 1_000_000,
    };
    if bench.peers.contains(&Peer::Etcd) && !bench.full {
        measure::<Etcd>(bench, report, Peer::Etcd, many)?;
    }
    if bench.peers.contains(&Peer::Konsul) {
        measure::<Konsul>(bench, report, Peer::Konsul, many)?;
    }
    Ok(())
}

fn measure<T: Target>(bench: &Bench, report: &mut Report, peer: Peer, many: u64) -> Result<()> {
    let directory = bench.directory.join("put-cost");
    let server = Server::start(peer, &bench.programs, &directory)?;
    let mut medians = Vec::new();
    for (id, keys, loaded) in [("few", FEW, 0), ("many", many, FEW)] {
        bulk_load::<T>(&bench.client, &server, "put-cost", loaded..keys)?;
        let label = format!("put among {keys} keys");
        let mut costs = Vec::new();
        for round in 1..=bench.rounds {
            let outcome = drive(&bench.client, &server, IN_FLIGHT, |target: T, number| {
                RandomPuts::new(target, "put-cost", keys, number)
            })?;
            costs.push(outcome.cpu_us);
            let cpu = format!("{label}: server CPU a call");
            let figures = [
                Figure::new(format!("put_cost/{id}/rate"), &label, Unit::PerSecond, outcome.rate),
                Figure::new(format!("put_cost/{id}/cpu"), cpu, Unit::CpuMicroseconds, outcome.cpu_us),
            ];
            progress(&label, round, bench.rounds, peer, &figures);
            for figure in figures {
                report.add(figure, peer);
            }
        }
        medians.push(median(&costs));
    }
    server.stop()?;
    fs::remove_dir_all(directory)?;
    if let [few, many_cost] = medians[..] {
        let label = format!("server CPU a put, among {many} keys ÷ among {FEW}");
        report.add(Figure::new("put_cost/ratio", label, Unit::Ratio, many_cost / few), peer);
    }
    Ok(())
}
