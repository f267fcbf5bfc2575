//! Row: 10,000 watchers, each on a stream and a key of its own. What a watcher costs in memory, and what all
//! of them cost the writers: 1,000 puts a second on the watched keys, and as many puts as go on keys that
//! nobody watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::oneshot;

use super::{Bench, KEYS, RandomKeys, Stage, key, progress, value};
use crate::load::{self, Window, join};
use crate::observe;
use crate::peers::{Peer, Target, Watching};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};
use crate::rows::Measure;
use crate::rows::put::RandomPuts;
use crate::stats::Latencies;

/// Streams on one connection.
const STREAMS: usize = 125;
/// Puts in flight in the saturated part.
const IN_FLIGHT: usize = 256;
/// Paced puts a millisecond.
const PUTS_PER_MS: usize = 1;
/// How long opening all watches, or waiting for the last event, may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Measures the row.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let watchers = if bench.quick { 1000 } else { 10_000 };
    // Memory first and once: a process that had watchers before keeps some of their memory.
    let once = Bench { rounds: 1, ..bench.clone() };
    let stage = Stage::start(&once, "watchers-memory", &[Peer::Bare, Peer::Etcd, Peer::Konsul])?;
    stage.rounds(report, &Memory { watchers })?;
    stage.stop()?;
    add_memory_beyond(report);
    let stage = Stage::start(bench, "watchers", &[Peer::Etcd, Peer::Konsul])?;
    stage.rounds(report, &Writers { watchers })?;
    stage.stop()
}

struct Memory {
    watchers: usize,
}

struct Writers {
    watchers: usize,
}

impl Measure for Memory {
    fn name(&self) -> String {
        format!("{} watchers: memory a watcher, with its stream", self.watchers)
    }

    fn round<T: Target>(&self, _: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let before = observe::memory(server.pid())?.anonymous;
        let after =
            with_watchers::<T, _>(server, self.watchers, |_| observe::memory(server.pid()))?.anonymous;
        let each = after.saturating_sub(before) as f64 / self.watchers as f64;
        Ok(vec![Figure::new("watchers/memory", self.name(), Unit::Bytes, each)])
    }
}

impl Measure for Writers {
    fn name(&self) -> String {
        format!("{} watchers on as many keys", self.watchers)
    }

    fn round<T: Target>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let mut figures = self.writes::<T>(bench, server, "off", "none watching")?.0;
        let label = format!("{} watching", self.watchers);
        let watched = with_watchers::<T, _>(server, self.watchers, |events| {
            let (figures, puts) = self.writes::<T>(bench, server, "on", &label)?;
            let begun = Instant::now();
            while events.load(Ordering::Relaxed) < puts {
                if begun.elapsed() > LIMIT {
                    bail!("{puts} puts, but only {} events", events.load(Ordering::Relaxed));
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(figures)
        })?;
        figures.extend(watched);
        Ok(figures)
    }
}

impl Writers {
    /// Saturated puts on unwatched keys, then paced ones on the watched keys; and the number of those.
    fn writes<T: Target>(
        &self,
        bench: &Bench,
        server: &Server,
        id: &str,
        label: &str,
    ) -> Result<(Vec<Figure>, u64)> {
        let saturated = load::drive(&bench.client, server, IN_FLIGHT, |target: T, number| {
            RandomPuts::new(target, "put", KEYS, number)
        })?;
        let (paced, puts) = pace::<T>(bench, server, self.watchers as u64)?;
        let latency = |share| paced.percentile_ms(share);
        let rate = paced.len() as f64 / bench.client.window.as_secs_f64();
        let id = |measure: &str| format!("watchers/{id}/{measure}");
        let label = |what: &str| format!("{label}: {what}");
        let figures = vec![
            Figure::new(id("rate"), label("puts on watched keys, 1,000/s"), Unit::PerSecond, rate),
            Figure::new(id("p50"), label("these puts' p50"), Unit::Milliseconds, latency(0.5)),
            Figure::new(id("p99"), label("these puts' p99"), Unit::Milliseconds, latency(0.99)),
            Figure::new(
                id("saturated"),
                label("puts elsewhere, 256 in flight"),
                Unit::PerSecond,
                saturated.rate,
            ),
            Figure::new(id("cpu"), label("server CPU of these"), Unit::CpuMicroseconds, saturated.cpu_us),
        ];
        Ok((figures, puts))
    }
}

/// What a watcher takes beyond what the bare server's stream takes.
fn add_memory_beyond(report: &mut Report) {
    let Some(stream) = report.median("watchers/memory", Peer::Bare) else { return };
    for peer in [Peer::Etcd, Peer::Konsul] {
        if let Some(watcher) = report.median("watchers/memory", peer) {
            let label = "memory a watcher beyond its stream";
            let figure = Figure::new("watchers/memory_beyond", label, Unit::Bytes, watcher - stream);
            progress(label, 1, 1, peer, std::slice::from_ref(&figure));
            report.add(figure, peer);
        }
    }
}

/// Runs `work` while `watchers` watches are open; `work` is given the count of events that arrived.
fn with_watchers<T: Target, V>(
    server: &Server,
    watchers: usize,
    work: impl FnOnce(&AtomicU64) -> Result<V>,
) -> Result<V> {
    let events = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        let (opened_sender, opened) = std::sync::mpsc::channel();
        let (close, closed) = oneshot::channel::<()>();
        let counted = events.clone();
        let watching = scope.spawn(move || {
            load::runtime()?.block_on(async {
                let opening = tokio::time::timeout(LIMIT, open::<T>(server, watchers, counted)).await;
                // Held until the work is done. The tasks end with the runtime.
                let _targets = opening.context("the watches are not opened")??;
                let _ = opened_sender.send(());
                // Either way it's time to go.
                let _ = closed.await;
                Ok(())
            })
        });
        let result = match opened.recv() {
            Ok(()) => Some(work(&events)),
            Err(_) => None,
        };
        let _ = close.send(());
        join(watching)?;
        result.context("the watches ended")?
    })
}

/// Opens the watches and lets tasks count what they are given.
async fn open<T: Target>(server: &Server, watchers: usize, events: Arc<AtomicU64>) -> Result<Vec<T>> {
    let targets = load::connect_all::<T>(server.address, watchers.div_ceil(STREAMS)).await?;
    for number in 0..watchers {
        let mut target = targets[number % targets.len()].clone();
        let watch = target.watch(key("watchers", number as u64)).await;
        let watch = watch.map_err(|status| anyhow!("watch {number}: {}", load::describe(&status)))?;
        tokio::spawn(count(watch, events.clone()));
    }
    Ok(targets)
}

/// Counts the events of one watch until it ends.
async fn count(mut watch: impl Watching, events: Arc<AtomicU64>) {
    let mut values = Vec::new();
    while watch.next(&mut values).await.is_ok() {
        events.fetch_add(values.len() as u64, Ordering::Relaxed);
        values.clear();
    }
}

/// Puts on random watched keys at a steady pace, whether earlier ones are answered or not. A latency runs
/// from when the put was due. Also returns how many puts were made in all.
fn pace<T: Target>(bench: &Bench, server: &Server, keys: u64) -> Result<(Latencies, u64)> {
    let window = Window::of(&bench.client);
    let pacing = async {
        let targets = load::connect_all::<T>(server.address, bench.client.connections).await?;
        let mut keys = RandomKeys::new("watchers", keys, 0);
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut tasks = Vec::new();
        while Instant::now() < window.end {
            let due = ticks.tick().await.into_std();
            for _ in 0..PUTS_PER_MS {
                let mut target = targets[tasks.len() % targets.len()].clone();
                let key = keys.pick();
                tasks.push(tokio::spawn(async move {
                    target.put(key, value()).await.map(|()| (due, Instant::now()))
                }));
            }
        }
        let puts = tasks.len() as u64;
        let mut samples = Vec::with_capacity(tasks.len());
        for task in tasks {
            let put = tokio::time::timeout(LIMIT, task).await.context("a put is not answered")??;
            let (due, answered) = put.map_err(|status| anyhow!("{}", load::describe(&status)))?;
            if window.holds(answered) {
                samples.push(load::micros(answered.saturating_duration_since(due)));
            }
        }
        Ok((Latencies::new(samples), puts))
    };
    load::runtime()?.block_on(pacing)
}
