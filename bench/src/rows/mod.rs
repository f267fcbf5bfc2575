//! The rows of the bench, one file each, and what they share: keys, values, and taking turns. A row says what
//! is done and which figures come of it; it neither starts processes nor renders.

pub(crate) mod cas;
pub(crate) mod cluster;
pub(crate) mod coordination;
pub(crate) mod fan_out;
pub(crate) mod fdatasync;
pub(crate) mod get;
pub(crate) mod million;
pub(crate) mod put;
pub(crate) mod put_cost;
pub(crate) mod put_idempotent;
pub(crate) mod upkeep;
pub(crate) mod watchers;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::load::{self, Client, Outcome};
use crate::peers::etcd::Etcd;
use crate::peers::konsul::Konsul;
use crate::peers::{Freshness, Peer, Target, connect};
use crate::process::{Programs, Server};
use crate::report::{Figure, Report, Unit};

/// Bytes of every value.
pub(crate) const VALUE_BYTES: usize = 128;
/// The one key of the fan-out row; the bare server knows it, too.
pub(crate) const FAN_OUT_KEY: &str = "bench/fan-out/000000000000000000";
/// Keys that random calls are spread over, where a row says nothing else.
pub(crate) const KEYS: u64 = 100_000;
/// Keys a loading transaction writes (etcd allows 128 operations).
const LOAD_BATCH: u64 = 100;
/// How long a start may take until the first answer.
const FIRST_ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Row {
    /// The disk's floor: 4 KiB and fdatasync on a preallocated file
    Fdatasync,
    /// Put at 1, 64, 256 and 1,000 in flight
    Put,
    /// Put with an idempotency key (Konsul alone)
    PutIdempotent,
    /// Linearizable and stale reads at 1, 64 and 256 in flight
    Get,
    /// Compare-and-swap on one key, 256 in flight
    Cas,
    /// One writer to 1,000 watchers
    FanOut,
    /// 10,000 watchers on 10,000 keys
    Watchers,
    /// One million keys: memory, disk, start
    Million,
    /// CPU time of a put among many keys and among few
    PutCost,
    /// Three members: put, 256 in flight, over all of them and at the leader
    ClusterPut,
    /// Three members: linearizable reads, 256 in flight, over all of them, at the leader and at a follower
    ClusterGet,
    /// Leases granted, 256 in flight
    LeaseGrant,
    /// 100,000 leases kept alive over one stream a connection
    KeepAlive,
    /// One lock, 100 waiters
    HandOver,
    /// Puts and gets while a GiB is backed up (Konsul alone)
    Backup,
    /// Puts and gets while 100,000 leases end (Konsul alone)
    LeaseEnd,
    /// Puts and gets while 4 GiB are given back (Konsul alone)
    Reclaim,
}

/// What every row is given.
#[derive(Debug, Clone)]
pub(crate) struct Bench {
    /// The programs to start.
    pub(crate) programs: Programs,
    /// Where the servers' data goes; removed at the end.
    pub(crate) directory: PathBuf,
    /// The client.
    pub(crate) client: Client,
    /// Who is measured.
    pub(crate) peers: Vec<Peer>,
    /// Rounds of each row.
    pub(crate) rounds: usize,
    /// Smaller sizes everywhere.
    pub(crate) quick: bool,
    /// Ten million keys instead of one in `PutCost`.
    pub(crate) full: bool,
}

impl Row {
    /// Measures this row into `report`.
    ///
    /// # Errors
    /// When a server can't be started, fails or hangs.
    pub(crate) fn run(self, bench: &Bench, report: &mut Report) -> Result<()> {
        match self {
            Self::Fdatasync => fdatasync::run(bench, report),
            Self::Put => put::run(bench, report),
            Self::PutIdempotent => put_idempotent::run(bench, report),
            Self::Get => get::run(bench, report),
            Self::Cas => cas::run(bench, report),
            Self::FanOut => fan_out::run(bench, report),
            Self::Watchers => watchers::run(bench, report),
            Self::Million => million::run(bench, report),
            Self::PutCost => put_cost::run(bench, report),
            Self::ClusterPut => cluster::put(bench, report),
            Self::ClusterGet => cluster::get(bench, report),
            Self::LeaseGrant => coordination::grant(bench, report),
            Self::KeepAlive => coordination::keep_alive(bench, report),
            Self::HandOver => coordination::hand_over(bench, report),
            Self::Backup => upkeep::backup(bench, report),
            Self::LeaseEnd => upkeep::lease_end(bench, report),
            Self::Reclaim => upkeep::reclaim(bench, report),
        }
    }
}

/// What is done in one turn of one peer.
pub(crate) trait Measure {
    /// Names it in the progress.
    fn name(&self) -> String;

    /// Measures one round.
    ///
    /// # Errors
    /// When the peer fails.
    fn round<T: Target>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>>;
}

/// Servers side by side, taking turns.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    bench: &'a Bench,
    directory: PathBuf,
    servers: Vec<Server>,
}

impl<'a> Stage<'a> {
    /// Starts those of `peers` that are to be measured, each on nothing.
    ///
    /// # Errors
    /// When one does not start.
    pub(crate) fn start(bench: &'a Bench, row: &str, peers: &[Peer]) -> Result<Self> {
        let directory = bench.directory.join(row);
        let servers: Result<Vec<Server>> = peers
            .iter()
            .filter(|peer| bench.peers.contains(peer))
            .map(|peer| Server::start(*peer, &bench.programs, &directory.join(peer.to_string())))
            .collect();
        Ok(Self { bench, directory, servers: servers? })
    }

    /// Writes the first `keys` keys to every server that keeps any.
    ///
    /// # Errors
    /// When a server fails.
    pub(crate) fn load(&self, row: &'static str, keys: u64) -> Result<()> {
        for server in &self.servers {
            match server.peer {
                Peer::Bare => {}
                Peer::Etcd => bulk_load::<Etcd>(&self.bench.client, server, row, 0..keys)?,
                Peer::Konsul => bulk_load::<Konsul>(&self.bench.client, server, row, 0..keys)?,
            }
        }
        Ok(())
    }

    /// Measures all rounds in turns: every peer once, then every peer again.
    ///
    /// # Errors
    /// When a server fails.
    pub(crate) fn rounds(&self, report: &mut Report, measure: &impl Measure) -> Result<()> {
        for round in 1..=self.bench.rounds {
            for server in &self.servers {
                let figures = match server.peer {
                    Peer::Etcd => measure.round::<Etcd>(self.bench, server),
                    Peer::Bare | Peer::Konsul => measure.round::<Konsul>(self.bench, server),
                };
                let name = measure.name();
                let figures = figures.with_context(|| {
                    format!("{name}, round {round}, {} (its log ends: {})", server.peer, server.last_words())
                })?;
                progress(&name, round, self.bench.rounds, server.peer, &figures);
                for figure in figures {
                    report.add(figure, server.peer);
                }
            }
        }
        Ok(())
    }

    /// Stops the servers and removes their data.
    ///
    /// # Errors
    /// When one does not end.
    pub(crate) fn stop(self) -> Result<()> {
        for server in self.servers {
            server.stop()?;
        }
        fs::remove_dir_all(self.directory)?;
        Ok(())
    }
}

/// Says on stderr what a round found.
pub(crate) fn progress(name: &str, round: usize, rounds: usize, peer: Peer, figures: &[Figure]) {
    let figures: Vec<String> = figures.iter().map(Figure::to_string).collect();
    eprintln!("{name}, {round}/{rounds}, {peer}: {}", figures.join(", "));
}

/// Key `n` of a row, 32 bytes long.
pub(crate) fn key(row: &str, n: u64) -> String {
    format!("bench/{row}/{n:0width$}", width = 25 - row.len().min(24))
}

/// The value every put writes.
pub(crate) fn value() -> Bytes {
    Bytes::from_static(&[b'v'; VALUE_BYTES])
}

/// A source of random keys of a row, another for each caller.
#[derive(Debug)]
pub(crate) struct RandomKeys {
    row: &'static str,
    keys: u64,
    random: StdRng,
}

impl RandomKeys {
    /// Chooses among the first `keys` keys of `row`.
    pub(crate) fn new(row: &'static str, keys: u64, caller: usize) -> Self {
        Self { row, keys: keys.max(1), random: StdRng::seed_from_u64(caller as u64) }
    }

    /// The next key.
    pub(crate) fn pick(&mut self) -> String {
        let n = self.random.next_u64() % self.keys;
        key(self.row, n)
    }
}

/// The figures that every row of calls has.
pub(crate) fn call_figures(id: &str, label: &str, outcome: &Outcome) -> Vec<Figure> {
    let latency = |share| outcome.latencies.percentile_ms(share);
    vec![
        Figure::new(format!("{id}/rate"), label, Unit::PerSecond, outcome.rate),
        Figure::new(format!("{id}/p50"), format!("{label}: p50"), Unit::Milliseconds, latency(0.5)),
        Figure::new(format!("{id}/p99"), format!("{label}: p99"), Unit::Milliseconds, latency(0.99)),
        Figure::new(
            format!("{id}/cpu"),
            format!("{label}: server CPU a call"),
            Unit::CpuMicroseconds,
            outcome.cpu_us,
        ),
    ]
}

/// Writes the keys `range` of a row in large transactions, a few at once.
///
/// # Errors
/// When the server fails.
pub(crate) fn bulk_load<T: Target>(
    client: &Client,
    server: &Server,
    row: &'static str,
    range: std::ops::Range<u64>,
) -> Result<()> {
    bulk_load_values::<T>(client, server, row, range, &value())
}

/// The same with another value.
///
/// # Errors
/// When the server fails.
pub(crate) fn bulk_load_values<T: Target>(
    client: &Client,
    server: &Server,
    row: &'static str,
    range: std::ops::Range<u64>,
    value: &Bytes,
) -> Result<()> {
    let loading = async {
        let targets = load::connect_all::<T>(server.address, client.connections).await?;
        let lanes = targets.len() as u64;
        let tasks = (0_u64..).zip(targets).map(|(lane, mut target)| {
            let first = range.start + lane * LOAD_BATCH;
            let (end, value) = (range.end, value.clone());
            tokio::spawn(async move {
                let mut start = first;
                while start < end {
                    let batch = start..end.min(start + LOAD_BATCH);
                    target.put_all(batch.map(|n| key(row, n)).collect(), value.clone()).await?;
                    start += lanes * LOAD_BATCH;
                }
                Ok::<(), tonic::Status>(())
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            task.await?.map_err(|status| anyhow!("{}", load::describe(&status)))?;
        }
        Ok::<(), anyhow::Error>(())
    };
    load::runtime()?.block_on(loading).with_context(|| format!("loading {} failed", server.peer))
}

/// Waits for the first answer to a linearizable get and returns the time since the process was started.
///
/// # Errors
/// When there is none in time.
pub(crate) fn first_answer<T: Target>(server: &Server) -> Result<Duration> {
    let asking = async {
        let limit = server.spawned + FIRST_ANSWER_LIMIT;
        loop {
            let answer = async {
                let mut target: T = connect(server.address).await?;
                target.get(key("million", 0), Freshness::Linearizable).await?;
                Ok::<(), anyhow::Error>(())
            };
            let answer = answer.await;
            match answer {
                Ok(()) => return Ok(server.spawned.elapsed()),
                Err(error) if Instant::now() > limit => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    load::runtime()?.block_on(asking).with_context(|| format!("{} does not answer", server.peer))
}
