//! The load: closed-loop callers over a few connections, driven by single-threaded runtimes, timed over one
//! window. The same for every peer and every row whose work is calls.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tonic::Status;

use crate::observe;
use crate::peers::{Target, connect};
use crate::process::Server;
use crate::stats::Latencies;

/// How long after its window a load may take to finish before the server counts as hung.
const GRACE: Duration = Duration::from_secs(30);
/// How long opening all connections of a thread may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// One caller: it makes a call, waits for the answer, and makes the next.
pub(crate) trait Caller: Send + 'static {
    /// Makes one call; tells whether it did what it was meant to (false for a lost race).
    fn call(&mut self) -> impl Future<Output = Result<bool, Status>> + Send;
}

/// How the client is built and how long it drives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Single-threaded runtimes, each on a thread of its own.
    pub(crate) threads: usize,
    /// Connections, spread over the threads.
    pub(crate) connections: usize,
    /// Driven before the window opens, and not counted.
    pub(crate) warm_up: Duration,
    /// The window.
    pub(crate) window: Duration,
}

/// A stretch of time in which samples count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// From then on.
    pub(crate) begin: Instant,
    /// Until then.
    pub(crate) end: Instant,
}

/// What a load did within its window.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Calls answered a second.
    pub(crate) rate: f64,
    /// Calls a second that did what they were meant to.
    pub(crate) success_rate: f64,
    /// How long they took.
    pub(crate) latencies: Latencies,
    /// CPU time of the server, in microseconds a call.
    pub(crate) cpu_us: f64,
}

/// Samples of one caller.
#[derive(Debug, Default)]
struct Samples {
    latencies_us: Vec<u32>,
    successes: usize,
}

impl Window {
    /// A window that opens after `client`'s warm-up.
    pub(crate) fn of(client: &Client) -> Self {
        let begin = Instant::now() + client.warm_up;
        Self { begin, end: begin + client.window }
    }

    /// Sleeps through the window and returns the CPU seconds the servers used in it, all together.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn cpu_seconds(self, pids: &[u32]) -> Result<f64> {
        let used = || pids.iter().map(|pid| observe::cpu_seconds(*pid)).sum::<Result<f64>>();
        thread::sleep(self.begin.saturating_duration_since(Instant::now()));
        let before = used()?;
        thread::sleep(self.end.saturating_duration_since(Instant::now()));
        Ok(used()? - before)
    }

    /// Whether a sample taken at `now` counts.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        now >= self.begin && now <= self.end
    }
}

/// A runtime of the client: one thread.
///
/// # Errors
/// When the system refuses it.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Microseconds of a latency.
pub(crate) fn micros(latency: Duration) -> u32 {
    u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)
}

/// Drives `server` with `in_flight` callers, made by `caller` from a connection and the caller's number.
///
/// # Errors
/// The first call that fails, a server that is gone or hangs.
pub(crate) fn drive<T, C, F>(client: &Client, server: &Server, in_flight: usize, caller: F) -> Result<Outcome>
where
    T: Target,
    C: Caller,
    F: Fn(T, usize) -> C + Sync,
{
    drive_members(client, &[server], &[server], in_flight, caller)
}

/// Drives some members of a cluster, over as many connections each, and counts what all members cost.
///
/// # Errors
/// As [`drive`].
pub(crate) fn drive_members<T, C, F>(
    client: &Client,
    driven: &[&Server],
    members: &[&Server],
    in_flight: usize,
    caller: F,
) -> Result<Outcome>
where
    T: Target,
    C: Caller,
    F: Fn(T, usize) -> C + Sync,
{
    let pids: Vec<u32> = members.iter().map(|server| server.pid()).collect();
    let peer = members.first().context("there is nobody to drive")?.peer;
    let connections = client.connections.next_multiple_of(driven.len()).min(in_flight).max(1);
    let threads = client.threads.min(connections).max(1);
    let (samples, cpu) = thread::scope(|scope| {
        let (ready_sender, ready) = mpsc::channel();
        let mut starts = Vec::new();
        let mut joins = Vec::new();
        for thread in 0..threads {
            let (start, started) = mpsc::channel::<Window>();
            starts.push(start);
            let (ready_sender, caller) = (ready_sender.clone(), &caller);
            joins.push(scope.spawn(move || {
                let runtime = runtime()?;
                let own = (thread..connections).step_by(threads);
                let addresses = own.map(|number| driven[number % driven.len()].address);
                let targets = runtime.block_on(connect_each::<T>(addresses));
                // The receiver outlives the threads.
                let _ = ready_sender.send(());
                let targets = targets?;
                let callers = (0..share(in_flight, threads, thread))
                    .map(|n| caller(targets[n % targets.len()].clone(), n * threads + thread))
                    .collect();
                match started.recv() {
                    Ok(window) => runtime.block_on(call_all(callers, window)),
                    // Another thread could not connect, and says so.
                    Err(_) => Ok(Samples::default()),
                }
            }));
        }
        drop(ready_sender);
        for () in ready.iter().take(threads) {}
        let window = Window::of(client);
        for start in &starts {
            // A thread that failed to connect no longer listens; its error comes with the join.
            let _ = start.send(window);
        }
        let cpu = window.cpu_seconds(&pids);
        let samples: Result<Vec<Samples>> = joins.into_iter().map(join).collect();
        samples.and_then(|samples| Ok((samples, cpu?)))
    })
    .with_context(|| format!("the load on {peer} failed"))?;
    outcome(samples, cpu, client.window)
}

/// Puts the samples of all threads together.
fn outcome(samples: Vec<Samples>, cpu_seconds: f64, window: Duration) -> Result<Outcome> {
    let successes: usize = samples.iter().map(|samples| samples.successes).sum();
    let latencies = Latencies::new(samples.into_iter().flat_map(|s| s.latencies_us).collect());
    if latencies.len() == 0 {
        bail!("no call was answered within {} s", window.as_secs_f64());
    }
    Ok(Outcome {
        rate: latencies.len() as f64 / window.as_secs_f64(),
        success_rate: successes as f64 / window.as_secs_f64(),
        cpu_us: cpu_seconds * 1e6 / latencies.len() as f64,
        latencies,
    })
}

/// Joins a thread, and makes a panic an error.
pub(crate) fn join<V>(handle: thread::ScopedJoinHandle<'_, Result<V>>) -> Result<V> {
    handle.join().unwrap_or_else(|_| Err(anyhow!("a client thread panicked")))
}

/// How many of `total` things fall to thread `index` of `threads`.
pub(crate) fn share(total: usize, threads: usize, index: usize) -> usize {
    total / threads + usize::from(index < total % threads)
}

/// Opens `count` connections.
///
/// # Errors
/// When one can't be opened in time.
pub(crate) async fn connect_all<T: Target>(address: SocketAddr, count: usize) -> Result<Vec<T>> {
    connect_each(std::iter::repeat_n(address, count)).await
}

/// Opens a connection to each of these.
async fn connect_each<T: Target>(addresses: impl Iterator<Item = SocketAddr>) -> Result<Vec<T>> {
    let mut targets = Vec::new();
    for address in addresses {
        let target = tokio::time::timeout(CONNECT_LIMIT, connect(address)).await;
        targets.push(target.context("connecting takes too long")?.context("can't connect")?);
    }
    Ok(targets)
}

/// Runs the callers of one thread until the window closes.
async fn call_all<C: Caller>(callers: Vec<C>, window: Window) -> Result<Samples> {
    let tasks: Vec<_> = callers.into_iter().map(|c| tokio::spawn(call_until_end(c, window))).collect();
    let limit = tokio::time::Instant::from_std(window.end + GRACE);
    let mut all = Samples::default();
    for task in tasks {
        let samples = tokio::time::timeout_at(limit, task).await.context("calls are not answered")???;
        all.latencies_us.extend(samples.latencies_us);
        all.successes += samples.successes;
    }
    Ok(all)
}

/// One caller's loop.
async fn call_until_end(mut caller: impl Caller, window: Window) -> Result<Samples> {
    let mut samples = Samples::default();
    let mut sent = Instant::now();
    while sent < window.end {
        let success = caller.call().await.map_err(|status| anyhow!("{}", describe(&status)))?;
        let answered = Instant::now();
        if window.holds(answered) {
            samples.latencies_us.push(micros(answered - sent));
            samples.successes += usize::from(success);
        }
        sent = answered;
    }
    Ok(samples)
}

/// A status in one line.
pub(crate) fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
