//! Rows: leases granted and kept alive, and a lock that goes from hand to hand.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tonic::Status;

use super::{Bench, call_figures, progress};
use crate::load::{self, Caller, drive, runtime};
use crate::observe;
use crate::peers::etcd::Etcd;
use crate::peers::konsul::Konsul;
use crate::peers::{Coordinating, Peer, Refreshing};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};

/// Grants in flight.
const GRANTS: usize = 256;
/// How long leases live, where none is to end.
const TTL: Duration = Duration::from_secs(3_600);
/// Leases that are kept alive, and fewer for a quick run.
const LEASES: usize = 100_000;
const LEASES_QUICK: usize = 2_000;
/// Leases that a stream refreshes at once before it waits for the answers.
const AT_ONCE: usize = 100;
/// Callers who want one lock.
const WAITERS: usize = 100;

/// Measures how fast leases are granted.
///
/// # Errors
/// When a server fails.
pub(crate) fn grant(bench: &Bench, report: &mut Report) -> Result<()> {
    run(bench, report, "lease-grant", &Grant)
}

/// Measures how fast many leases are kept alive, and what that writes.
///
/// # Errors
/// When a server fails.
pub(crate) fn keep_alive(bench: &Bench, report: &mut Report) -> Result<()> {
    run(bench, report, "keep-alive", &KeepAlive)
}

/// Measures how fast a lock goes from hand to hand.
///
/// # Errors
/// When a server fails.
pub(crate) fn hand_over(bench: &Bench, report: &mut Report) -> Result<()> {
    run(bench, report, "hand-over", &HandOver)
}

/// What is done in one turn of one peer.
trait Measure {
    fn round<T: Coordinating>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>>;
}

fn run(bench: &Bench, report: &mut Report, row: &'static str, measure: &impl Measure) -> Result<()> {
    let directory = bench.directory.join(row);
    let peers = [Peer::Etcd, Peer::Konsul].into_iter().filter(|peer| bench.peers.contains(peer));
    let start = |peer: Peer| Server::start(peer, &bench.programs, &directory.join(peer.to_string()));
    let servers = peers.map(start).collect::<Result<Vec<_>>>()?;
    for round in 1..=bench.rounds {
        for server in &servers {
            let figures = match server.peer {
                Peer::Etcd => measure.round::<Etcd>(bench, server),
                Peer::Bare | Peer::Konsul => measure.round::<Konsul>(bench, server),
            };
            let figures = figures.with_context(|| {
                format!("{row}, round {round}, {} (its log ends: {})", server.peer, server.last_words())
            })?;
            progress(row, round, bench.rounds, server.peer, &figures);
            for figure in figures {
                report.add(figure, server.peer);
            }
        }
    }
    for server in servers {
        server.stop()?;
    }
    Ok(fs::remove_dir_all(directory)?)
}

struct Grant;

impl Measure for Grant {
    fn round<T: Coordinating>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let outcome = drive(&bench.client, server, GRANTS, |target: T, _| Grants { target })?;
        Ok(call_figures("lease_grant/256", &format!("lease grant, {GRANTS} in flight"), &outcome))
    }
}

struct Grants<T> {
    target: T,
}

impl<T: Coordinating> Caller for Grants<T> {
    async fn call(&mut self) -> Result<bool, Status> {
        self.target.grant(TTL).await.map(|_| true)
    }
}

struct KeepAlive;

impl Measure for KeepAlive {
    fn round<T: Coordinating>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let count = if bench.quick { LEASES_QUICK } else { LEASES };
        let leases: Arc<[u64]> = grant_all::<T>(bench, server, count, TTL)?.into();
        let mut figures = keep::<T>(bench, server, &leases, false)?;
        // etcd has one lease a message, whoever asks.
        if server.peer == Peer::Konsul {
            figures.extend(keep::<T>(bench, server, &leases, true)?);
        }
        Ok(figures)
    }
}

/// Keeps leases alive, over one stream a connection, one lease a message or many.
fn keep<T: Coordinating>(
    bench: &Bench,
    server: &Server,
    leases: &Arc<[u64]>,
    together: bool,
) -> Result<Vec<Figure>> {
    let written = observe::written_bytes(server.pid())?;
    let streams = bench.client.connections;
    let outcome = drive(&bench.client, server, streams, |target: T, number| Keeper {
        target,
        stream: None,
        leases: leases.clone(),
        next: number * leases.len() / streams,
        together,
    })?;
    let written = observe::written_bytes(server.pid())? - written;
    let (id, a_message) = match together {
        true => ("keep_alive/together", format!("{AT_ONCE} leases a message")),
        false => ("keep_alive/single", "one lease a message".to_owned()),
    };
    let label = format!("{} leases kept alive over {streams} streams, {a_message}", leases.len());
    let refreshes = AT_ONCE as f64;
    Ok(vec![
        Figure::new(format!("{id}/rate"), label.clone(), Unit::PerSecond, outcome.rate * refreshes),
        Figure::new(
            format!("{id}/cpu"),
            format!("{label}: server CPU a refresh"),
            Unit::CpuMicroseconds,
            outcome.cpu_us / refreshes,
        ),
        Figure::new(
            format!("{id}/written"),
            format!("{label}: written to disk meanwhile"),
            Unit::Bytes,
            written as f64,
        ),
    ])
}

struct Keeper<T: Coordinating> {
    target: T,
    stream: Option<T::Refreshes>,
    leases: Arc<[u64]>,
    next: usize,
    together: bool,
}

impl<T: Coordinating> Caller for Keeper<T> {
    async fn call(&mut self) -> Result<bool, Status> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.target.keep_alive(self.leases[0]).await?,
        };
        let end = (self.next + AT_ONCE).min(self.leases.len());
        stream.refresh(&self.leases[end - AT_ONCE..end], self.together).await?;
        self.next = if end == self.leases.len() { 0 } else { end };
        self.stream = Some(stream);
        Ok(true)
    }
}

struct HandOver;

impl Measure for HandOver {
    fn round<T: Coordinating>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let leases = grant_all::<T>(bench, server, WAITERS, TTL)?;
        let outcome = drive(&bench.client, server, WAITERS, |target: T, number| Waiter {
            target,
            lease: leases[number],
        })?;
        Ok(call_figures("hand_over/100", &format!("lock hand-over, {WAITERS} waiters"), &outcome))
    }
}

struct Waiter<T> {
    target: T,
    lease: u64,
}

impl<T: Coordinating> Caller for Waiter<T> {
    async fn call(&mut self) -> Result<bool, Status> {
        let held = self.target.lock("bench/lock".to_owned(), self.lease).await?;
        self.target.unlock(held).await.map(|()| true)
    }
}

/// Grants leases, many at a time.
///
/// # Errors
/// When the server fails.
pub(super) fn grant_all<T: Coordinating>(
    bench: &Bench,
    server: &Server,
    count: usize,
    ttl: Duration,
) -> Result<Vec<u64>> {
    let granting = async {
        let targets = load::connect_all::<T>(server.address, bench.client.connections).await?;
        let tasks: Vec<_> = (0..GRANTS.min(count))
            .map(|number| {
                let mut target = targets[number % targets.len()].clone();
                let share = load::share(count, GRANTS.min(count), number);
                tokio::spawn(async move {
                    let mut leases = Vec::with_capacity(share);
                    for _ in 0..share {
                        leases.push(target.grant(ttl).await?);
                    }
                    Ok::<Vec<u64>, Status>(leases)
                })
            })
            .collect();
        let mut leases = Vec::with_capacity(count);
        for task in tasks {
            leases.extend(task.await?.map_err(|status| anyhow!("{}", load::describe(&status)))?);
        }
        Ok::<Vec<u64>, anyhow::Error>(leases)
    };
    runtime()?.block_on(granting).context("leases can't be granted")
}
