//! Row: the disk's floor. 4 KiB written and fdatasynced, one after the other, into a file whose blocks are
//! there already, on the file system that holds the servers' data.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use anyhow::Result;

use super::{Bench, progress};
use crate::load::micros;
use crate::peers::Peer;
use crate::report::{Figure, Report, Unit};
use crate::stats::Latencies;

/// Bytes of a write.
const WRITE_BYTES: usize = 4096;
/// Writes the file has room for; then it begins again at its start.
const FILE_WRITES: u64 = 16 * 1024;

/// Measures the row.
///
/// # Errors
/// When the disk fails or is full.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let path = bench.directory.join("fdatasync");
    let block = [0x5a; WRITE_BYTES];
    let mut file = File::create(&path)?;
    // Written and not only reserved: the first write to a reserved block changes metadata, too.
    for _ in 0..FILE_WRITES {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    for round in 1..=bench.rounds {
        let begin = Instant::now();
        let mut samples = Vec::new();
        while begin.elapsed() < bench.client.window {
            let offset = samples.len() as u64 % FILE_WRITES * WRITE_BYTES as u64;
            let written = Instant::now();
            file.write_all_at(&block, offset)?;
            file.sync_data()?;
            samples.push(micros(written.elapsed()));
        }
        let rate = samples.len() as f64 / begin.elapsed().as_secs_f64();
        let latencies = Latencies::new(samples);
        let latency = |share| latencies.percentile_ms(share);
        let figures = [
            Figure::new("fdatasync/rate", "fdatasync of 4 KiB", Unit::PerSecond, rate),
            Figure::new("fdatasync/p50", "fdatasync of 4 KiB: p50", Unit::Milliseconds, latency(0.5)),
            Figure::new("fdatasync/p99", "fdatasync of 4 KiB: p99", Unit::Milliseconds, latency(0.99)),
        ];
        progress("fdatasync", round, bench.rounds, Peer::Bare, &figures);
        for figure in figures {
            report.add(figure, Peer::Bare);
        }
    }
    Ok(fs::remove_file(path)?)
}
