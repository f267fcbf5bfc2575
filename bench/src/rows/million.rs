//! Row: one million keys. Memory after loading them and after a fresh start, bytes on disk, and the time from
//! the start of the process to the first answer.

use std::fs;

use anyhow::Result;

use super::{Bench, bulk_load, first_answer, progress};
use crate::observe;
use crate::peers::etcd::Etcd;
use crate::peers::konsul::Konsul;
use crate::peers::{Peer, Target};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};

/// Measures the row, one peer after the other: two loaded servers would take each other's page cache.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let keys = if bench.quick { 50_000 } else { 1_000_000 };
    if bench.peers.contains(&Peer::Etcd) {
        measure::<Etcd>(bench, report, Peer::Etcd, keys)?;
    }
    if bench.peers.contains(&Peer::Konsul) {
        measure::<Konsul>(bench, report, Peer::Konsul, keys)?;
    }
    Ok(())
}

fn measure<T: Target>(bench: &Bench, report: &mut Report, peer: Peer, keys: u64) -> Result<()> {
    let directory = bench.directory.join("million");
    let label = format!("{keys} keys");
    let mut add = |round, figures: Vec<Figure>| {
        progress(&label, round, bench.rounds, peer, &figures);
        for figure in figures {
            report.add(figure, peer);
        }
    };
    let mut server = Server::start(peer, &bench.programs, &directory)?;
    bulk_load::<T>(&bench.client, &server, "million", 0..keys)?;
    let memory = observe::memory(server.pid())?;
    add(
        1,
        vec![
            bytes("anonymous", format!("{label}: anonymous memory after loading"), memory.anonymous),
            bytes("resident", format!("{label}: resident memory after loading"), memory.resident),
        ],
    );
    for round in 1..=bench.rounds {
        server.stop()?;
        server = Server::start(peer, &bench.programs, &directory)?;
        let start = first_answer::<T>(&server)?.as_secs_f64();
        let memory = observe::memory(server.pid())?;
        add(
            round,
            vec![
                Figure::new("million/start", format!("{label}: start to first answer"), Unit::Seconds, start),
                bytes(
                    "anonymous_restarted",
                    format!("{label}: anonymous memory after a start"),
                    memory.anonymous,
                ),
                bytes(
                    "resident_restarted",
                    format!("{label}: resident memory after a start"),
                    memory.resident,
                ),
            ],
        );
    }
    server.kill()?;
    server = Server::start(peer, &bench.programs, &directory)?;
    let start = first_answer::<T>(&server)?.as_secs_f64();
    server.stop()?;
    add(
        1,
        vec![
            Figure::new(
                "million/start_killed",
                format!("{label}: start after SIGKILL"),
                Unit::Seconds,
                start,
            ),
            bytes("disk", format!("{label}: bytes on disk"), observe::disk_bytes(&directory.join("data"))?),
        ],
    );
    Ok(fs::remove_dir_all(directory)?)
}

fn bytes(measure: &str, label: String, value: u64) -> Figure {
    Figure::new(format!("million/{measure}"), label, Unit::Bytes, value as f64)
}
