//! Row: one writer to 1,000 watchers of one key, each on a stream of its own. Latency is compared at one pace
//! that every peer can keep, throughput with a writer that has one put in flight and goes on as long as it
//! is no more than a few puts ahead of what has been delivered. A latency runs from before the put is sent until
//! the watcher has the event, so it holds the put as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use tokio::sync::Notify;

use super::{Bench, FAN_OUT_KEY, Measure, Stage, VALUE_BYTES};
use crate::load::{self, Window, join, share};
use crate::peers::{Peer, Target, Watching};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};
use crate::stats::Latencies;

/// Pace at which latency is compared.
const PUTS_PER_SECOND: u32 = 50;
/// How many puts a fast writer may be ahead of what has been delivered.
const LEAD: u64 = 64;
/// Puts a round has room for; a writer that reaches it ends early.
const MAX_PUTS: usize = 1 << 18;
/// Sequence number of the put that ends every watcher.
const LAST: u64 = u64::MAX;
/// How long opening or ending all watches may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Measures the row.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let watchers = if bench.quick { 100 } else { 1000 };
    let stage = Stage::start(bench, "fan-out", &[Peer::Bare, Peer::Etcd, Peer::Konsul])?;
    for pace in [Pace::Steady(PUTS_PER_SECOND), Pace::Lead(LEAD)] {
        stage.rounds(report, &FanOut { watchers, pace })?;
    }
    stage.stop()
}

struct FanOut {
    watchers: usize,
    pace: Pace,
}

/// When the writer puts.
#[derive(Clone, Copy)]
enum Pace {
    /// So many times a second.
    Steady(u32),
    /// At once, unless it is so many puts ahead of what has been delivered.
    Lead(u64),
}

/// What the writer and the watchers share.
struct Feed {
    begun: Instant,
    /// When put n was sent, in nanoseconds since `begun`.
    sent_ns: Vec<AtomicU64>,
    /// Events that all watchers together were given.
    delivered: AtomicU64,
    /// Events the writer waits for.
    awaited: AtomicU64,
    arrived: Notify,
}

impl Measure for FanOut {
    fn name(&self) -> String {
        let pace = match self.pace {
            Pace::Steady(puts) => format!("{puts} puts/s"),
            Pace::Lead(_) => "as fast as it goes".to_owned(),
        };
        format!("1 writer → {} watchers, {pace}", self.watchers)
    }

    fn round<T: Target>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let client = &bench.client;
        let threads = client.threads.min(client.connections).max(1);
        let feed = Arc::new(Feed::new());
        let (window, latencies, cpu) = thread::scope(|scope| {
            let (opened_sender, opened) = std::sync::mpsc::channel();
            let mut starts = Vec::new();
            let mut joins = Vec::new();
            for thread in 0..threads {
                let (start, started) = std::sync::mpsc::channel::<Window>();
                starts.push(start);
                let (feed, opened_sender) = (feed.clone(), opened_sender.clone());
                let connections = share(client.connections, threads, thread);
                let watchers = share(self.watchers, threads, thread);
                joins.push(scope.spawn(move || {
                    let runtime = load::runtime()?;
                    let watches = runtime.block_on(open::<T>(server, connections, watchers));
                    // The receiver outlives the threads.
                    let _ = opened_sender.send(());
                    let watches = watches?;
                    match started.recv() {
                        Ok(window) => runtime.block_on(receive_all(watches, feed, window)),
                        Err(_) => Ok(Vec::new()),
                    }
                }));
            }
            for () in opened.iter().take(threads) {}
            let window = Window::of(client);
            for start in starts {
                // A thread that failed no longer listens; its error comes with the join.
                let _ = start.send(window);
            }
            let writer_feed = feed.clone();
            let writer =
                scope.spawn(move || load::runtime()?.block_on(self.write::<T>(server, writer_feed, window)));
            let cpu = window.cpu_seconds(&[server.pid()]);
            let samples: Result<Vec<Vec<u32>>> = joins.into_iter().map(join).collect();
            // The writer's error is the cause when both fail.
            join(writer)?;
            Ok::<_, anyhow::Error>((window, Latencies::new(samples?.concat()), cpu?))
        })?;
        self.figures(&latencies, (window.end - window.begin).as_secs_f64(), cpu)
    }
}

impl FanOut {
    /// Puts until the window closes, then ends the watchers.
    async fn write<T: Target>(&self, server: &Server, feed: Arc<Feed>, window: Window) -> Result<()> {
        let mut targets = load::connect_all::<T>(server.address, 1).await?;
        let target = targets.first_mut().context("no connection")?;
        let hung = tokio::time::Instant::from_std(window.end + LIMIT);
        let mut next = 0;
        let begun = tokio::time::Instant::now();
        while Instant::now() < window.end && next < feed.sent_ns.len() as u64 {
            match self.pace {
                Pace::Steady(puts) => {
                    tokio::time::sleep_until(begun + Duration::from_secs(next) / puts).await;
                }
                Pace::Lead(lead) => {
                    let awaited = (next + 1).saturating_sub(lead) * self.watchers as u64;
                    let arrived = tokio::time::timeout_at(hung, feed.wait_for(awaited)).await;
                    arrived.context("events do not arrive")?;
                }
            }
            feed.mark_sent(next);
            put(target, next).await?;
            next += 1;
        }
        put(target, LAST).await
    }

    fn figures(&self, latencies: &Latencies, seconds: f64, cpu_seconds: f64) -> Result<Vec<Figure>> {
        if latencies.len() == 0 {
            bail!("no event was delivered within {seconds} s");
        }
        let id = match self.pace {
            Pace::Steady(_) => "watch/steady",
            Pace::Lead(_) => "watch/fast",
        };
        let label = self.name();
        let events = latencies.len() as f64;
        let latency = |share| latencies.percentile_ms(share);
        Ok(vec![
            Figure::new(format!("{id}/rate"), format!("{label}: events"), Unit::PerSecond, events / seconds),
            Figure::new(format!("{id}/p50"), format!("{label}: p50"), Unit::Milliseconds, latency(0.5)),
            Figure::new(format!("{id}/p99"), format!("{label}: p99"), Unit::Milliseconds, latency(0.99)),
            Figure::new(
                format!("{id}/cpu"),
                format!("{label}: server CPU an event"),
                Unit::CpuMicroseconds,
                cpu_seconds * 1e6 / events,
            ),
        ])
    }
}

impl Feed {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            sent_ns: (0..MAX_PUTS).map(|_| AtomicU64::new(0)).collect(),
            delivered: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            arrived: Notify::new(),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn mark_sent(&self, put: u64) {
        if let Some(sent) = self.sent_ns.get(put as usize) {
            sent.store(self.now_ns(), Ordering::Release);
        }
    }

    /// Waits until `events` events were delivered. One waiter at a time.
    async fn wait_for(&self, events: u64) {
        // Stored before `delivered` is read, and `deliver` does it the other way round: one of the two sees
        // the other, so the wake-up can't be lost.
        self.awaited.store(events, Ordering::SeqCst);
        while self.delivered.load(Ordering::SeqCst) < events {
            self.arrived.notified().await;
        }
    }

    fn deliver(&self, events: u64) {
        let before = self.delivered.fetch_add(events, Ordering::SeqCst);
        let awaited = self.awaited.load(Ordering::SeqCst);
        if before < awaited && before + events >= awaited {
            self.arrived.notify_one();
        }
    }
}

/// Puts with a sequence number in front of the value.
async fn put<T: Target>(target: &mut T, sequence: u64) -> Result<()> {
    let mut value = vec![b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&sequence.to_be_bytes());
    let put = tokio::time::timeout(LIMIT, target.put(FAN_OUT_KEY.to_owned(), value.into())).await;
    put.context("a put is not answered")?.map_err(|status| anyhow!("{}", load::describe(&status)))
}

/// The sequence number in front of a value.
fn sequence(value: &Bytes) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Opens the watches of one thread.
async fn open<T: Target>(server: &Server, connections: usize, watchers: usize) -> Result<Vec<T::Watch>> {
    let targets = load::connect_all::<T>(server.address, connections).await?;
    let mut watches = Vec::with_capacity(watchers);
    for target in targets.iter().cycle().take(watchers) {
        let watch = tokio::time::timeout(LIMIT, target.clone().watch(FAN_OUT_KEY.to_owned())).await;
        let watch = watch.context("a watch is not opened")?;
        watches.push(watch.map_err(|status| anyhow!("{}", load::describe(&status)))?);
    }
    Ok(watches)
}

/// Receives on all watches of one thread until the last put, and returns the latencies within the window.
async fn receive_all<W: Watching>(watches: Vec<W>, feed: Arc<Feed>, window: Window) -> Result<Vec<u32>> {
    let tasks: Vec<_> =
        watches.into_iter().map(|watch| tokio::spawn(receive(watch, feed.clone(), window))).collect();
    let limit = tokio::time::Instant::from_std(window.end + LIMIT);
    let mut all = Vec::new();
    for task in tasks {
        let samples = tokio::time::timeout_at(limit, task).await.context("a watcher misses events")???;
        all.extend(samples);
    }
    Ok(all)
}

/// One watcher. Every put must come exactly once and in order, or the round fails.
async fn receive(mut watch: impl Watching, feed: Arc<Feed>, window: Window) -> Result<Vec<u32>> {
    let mut samples = Vec::new();
    let mut values = Vec::new();
    let mut expected = 0;
    loop {
        watch.next(&mut values).await.map_err(|status| anyhow!("{}", load::describe(&status)))?;
        let (now, now_ns) = (Instant::now(), feed.now_ns());
        let counts = window.holds(now);
        feed.deliver(values.len() as u64);
        for value in values.drain(..) {
            let sequence = sequence(&value).context("an event without its value")?;
            if sequence == LAST {
                return Ok(samples);
            }
            if sequence != expected {
                bail!("put {expected} was to come, put {sequence} came");
            }
            expected += 1;
            let sent_ns = feed.sent_ns.get(sequence as usize).map_or(0, |sent| sent.load(Ordering::Acquire));
            if counts {
                samples.push(load::micros(Duration::from_nanos(now_ns.saturating_sub(sent_ns))));
            }
        }
    }
}
