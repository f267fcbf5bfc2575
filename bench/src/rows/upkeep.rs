//! Rows: what calls notice of what a server does beside them: a backup, the end of many leases, and giving space back. Konsul alone,
//! against itself while it does nothing else. Every window is a sample, so what is compared are medians of p99s.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::coordination::grant_all;
use super::get::RandomGets;
use super::put::RandomPuts;
use super::{Bench, KEYS, bulk_load, bulk_load_values, progress};
use crate::load::{self, drive, runtime};
use crate::peers::konsul::{Konsul, Size};
use crate::peers::{Freshness, Peer, connect};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};

/// Calls in flight.
const IN_FLIGHT: usize = 64;
/// Bytes of the values that make a store big.
const BIG_VALUE_BYTES: usize = 10 << 10;
/// How many of those are loaded before the store is measured again.
const LOAD_STEP: u64 = 2_000;
/// Leases that end together, and how long they live: longer than granting them takes.
const LEASES: usize = 100_000;
const TTL: Duration = Duration::from_secs(10);
/// How long what is waited for may take.
const LIMIT: Duration = Duration::from_secs(600);
/// How long a server is given for what it does after it was filled: a snapshot of 4 GiB takes half a minute.
const SETTLE: Duration = Duration::from_secs(45);
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Measures what puts notice of backups.
///
/// # Errors
/// When the server fails.
pub(crate) fn backup(bench: &Bench, report: &mut Report) -> Result<()> {
    let bytes = if bench.quick { 64 << 20 } else { 1 << 30 };
    let Some(beside) = Beside::start(bench, "backup", &[])? else { return Ok(()) };
    beside.fill(bytes / 2)?;
    for round in 1..=bench.rounds {
        beside.window(report, round, "backup/quiet", "quiet")?;
        let over = AtomicBool::new(false);
        let backups = async || {
            let (mut konsul, began, mut bytes) = (beside.connect().await?, Instant::now(), 0);
            while bytes == 0 || !over.load(Relaxed) {
                bytes += konsul.snapshot().await?;
            }
            Ok(bytes as f64 / began.elapsed().as_secs_f64())
        };
        let rate =
            beside.during(report, round, ("backup", "while backups are made"), Some(&over), backups)?;
        report.add(Figure::new("backup/rate", "backups: bytes a second", Unit::Bytes, rate), Peer::Konsul);
    }
    beside.stop()
}

/// Measures what calls notice of the end of many leases.
///
/// # Errors
/// When the server fails.
pub(crate) fn lease_end(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = if bench.quick { LEASES / 10 } else { LEASES };
    let Some(beside) = Beside::start(bench, "lease-end", &[])? else { return Ok(()) };
    for round in 1..=bench.rounds {
        beside.window(report, round, "lease_end/quiet", "quiet")?;
        let began = Instant::now();
        let leases = grant_all::<Konsul>(bench, &beside.server, count, TTL)?;
        let granted = began.elapsed();
        thread::sleep((began + TTL).saturating_duration_since(Instant::now()));
        let ends = async || {
            let mut konsul = beside.connect().await?;
            beside.until("the leases do not end", async || Ok(konsul.leases().await? == 0)).await?;
            Ok(began.elapsed().saturating_sub(TTL).saturating_sub(granted).as_secs_f64())
        };
        let label = format!("while {} leases end", leases.len());
        let late = beside.during(report, round, ("lease_end", &label), None, ends)?;
        let label = format!("{label}: the last after its time");
        report.add(Figure::new("lease_end/late", label, Unit::Seconds, late), Peer::Konsul);
    }
    beside.stop()
}

/// Measures what calls notice while a big store's history is reclaimed, and its file shrunk.
///
/// # Errors
/// When the server fails.
pub(crate) fn reclaim(bench: &Bench, report: &mut Report) -> Result<()> {
    let bytes = if bench.quick { 256 << 20 } else { 4 << 30 };
    // By itself it would do so before it is asked.
    let settings = [("KONSUL_LIMITS_HISTORY_MAX_BYTES", "1TiB"), ("KONSUL_STORE_MAX_UNUSED_BYTES", "0B")];
    let Some(beside) = Beside::start(bench, "reclaim", &settings)? else { return Ok(()) };
    let keys = beside.fill(bytes)?;
    // A fifth is left, and the rest in history.
    runtime()?.block_on(async {
        let mut konsul = beside.connect().await?;
        for first in (0..keys - keys / 5).step_by(LOAD_STEP as usize) {
            let names = (first..first + LOAD_STEP).map(|n| super::key("big", n)).collect();
            konsul.delete_all(names).await?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    beside.settle();
    for round in 1..=bench.rounds {
        beside.window(report, round, "reclaim/quiet", "quiet")?;
    }
    let reclaim = async || {
        let (mut konsul, began) = (beside.connect().await?, Instant::now());
        konsul.compact().await?;
        beside.until("history is not reclaimed", async || Ok(konsul.size().await?.used < bytes / 3)).await?;
        Ok(began.elapsed().as_secs_f64())
    };
    let took = beside.during(report, 1, ("reclaim", "while history is reclaimed"), None, reclaim)?;
    beside.settle();
    for round in 1..=bench.rounds {
        beside.window(report, round, "reclaim/after", "after that")?;
    }
    let label = "reclaiming its history";
    report.add(Figure::new("reclaim/took", label, Unit::Seconds, took), Peer::Konsul);
    let before = beside.size()?;
    let defragment = async || {
        let (mut konsul, began) = (beside.connect().await?, Instant::now());
        konsul.defragment().await?;
        Ok(began.elapsed().as_secs_f64())
    };
    let took = beside.during(report, 1, ("defragment", "while the file is shrunk"), None, defragment)?;
    let after = beside.size()?;
    let label = |what: &str| format!("store's file {what} it was shrunk");
    let size = |id, what, bytes| Figure::new(id, label(what), Unit::Bytes, bytes as f64);
    report.add(Figure::new("defragment/took", "shrinking the file", Unit::Seconds, took), Peer::Konsul);
    report.add(size("defragment/before", "before", before.file), Peer::Konsul);
    report.add(size("defragment/after", "after", after.file), Peer::Konsul);
    beside.stop()
}

/// A server with keys to be put and got, beside whatever it does.
struct Beside<'b> {
    bench: &'b Bench,
    server: Server,
    directory: PathBuf,
}

impl<'b> Beside<'b> {
    /// Starts it; `None` when Konsul is not to be measured.
    fn start(bench: &'b Bench, row: &str, settings: &[(&str, &str)]) -> Result<Option<Self>> {
        if !bench.peers.contains(&Peer::Konsul) {
            return Ok(None);
        }
        let directory = bench.directory.join(row);
        let server = Server::start_at(Peer::Konsul, &bench.programs, &directory, None, settings)?;
        bulk_load::<Konsul>(&bench.client, &server, "beside", 0..KEYS)?;
        Ok(Some(Self { bench, server, directory }))
    }

    /// Fills the store until it has so many bytes; how many big keys there are then.
    fn fill(&self, bytes: u64) -> Result<u64> {
        let value = Bytes::from(vec![b'v'; BIG_VALUE_BYTES]);
        let mut keys = 0;
        while self.size()?.used < bytes {
            let step = keys..keys + LOAD_STEP;
            bulk_load_values::<Konsul>(&self.bench.client, &self.server, "big", step, &value)?;
            keys += LOAD_STEP;
        }
        Ok(keys)
    }

    fn size(&self) -> Result<Size> {
        runtime()?.block_on(async { Ok(self.connect().await?.size().await?) })
    }

    async fn connect(&self) -> Result<Konsul> {
        connect(self.server.address).await.context("can't connect")
    }

    /// Lets the system write what it has put off, and the server make the snapshot that is due.
    fn settle(&self) {
        rustix::fs::sync();
        thread::sleep(SETTLE);
        rustix::fs::sync();
    }

    /// Asks until something is so.
    async fn until(&self, failure: &'static str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        while !is_so().await? {
            if Instant::now() > limit {
                bail!(failure);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// Measures puts and gets for a window each.
    fn window(&self, report: &mut Report, round: usize, id: &str, label: &str) -> Result<()> {
        let client = &self.bench.client;
        let puts = drive(client, &self.server, IN_FLIGHT, |target: Konsul, number| {
            RandomPuts::new(target, "beside", KEYS, number)
        })?;
        let gets = drive(client, &self.server, IN_FLIGHT, |target: Konsul, number| {
            RandomGets::new(target, "beside", KEYS, Freshness::Linearizable, number)
        })?;
        let p99 = |what: &str, outcome: &load::Outcome| {
            let (id, label) =
                (format!("{id}/{what}/p99"), format!("{what}, {IN_FLIGHT} in flight, {label}: p99"));
            Figure::new(id, label, Unit::Milliseconds, outcome.latencies.percentile_ms(0.99))
        };
        let figures = [p99("put", &puts), p99("get", &gets)];
        progress(label, round, self.bench.rounds, Peer::Konsul, &figures);
        for figure in figures {
            report.add(figure, Peer::Konsul);
        }
        Ok(())
    }

    /// Measures window after window while something is done, which may be told when they are over.
    fn during<V: Send>(
        &self,
        report: &mut Report,
        round: usize,
        (id, label): (&str, &str),
        over: Option<&AtomicBool>,
        task: impl AsyncFnOnce() -> Result<V> + Send,
    ) -> Result<V> {
        thread::scope(|scope| {
            let doing = scope.spawn(|| runtime()?.block_on(task()));
            let mut measured;
            loop {
                measured = self.window(report, round, id, label);
                if measured.is_err() || over.is_some() || doing.is_finished() {
                    break;
                }
            }
            over.inspect(|over| over.store(true, Relaxed));
            let done = load::join(doing);
            measured.and(done)
        })
    }

    fn stop(self) -> Result<()> {
        self.server.stop()?;
        Ok(fs::remove_dir_all(self.directory)?)
    }
}
