//! Measures how many writes and reads a second one member takes, by callers in flight. Run it with a directory
//! on the disk in question: `cargo run --release -p konsul-raft --example rates -- DIR [SECONDS] [IN_FLIGHT]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use konsul_raft::{Histogram, Node, Settings};
use konsul_state::command::{self, KvOperation, KvPut, KvTxn, command::Op, kv_operation};
use konsul_state::propose::{BatchSink, Propose};
use konsul_state::{Batch, Command, Revision};

struct Nobody;

impl BatchSink for Nobody {
    fn publish(&self, _: &[Arc<Batch>]) {}

    fn reset(&self, _: Revision) {}
}

fn put(n: u64) -> Command {
    let key = format!("bench/key/{:022}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 100_000);
    let put = KvPut { key, value: vec![b'x'; 128].into(), ..KvPut::default() };
    let operation = KvOperation { op: Some(kv_operation::Op::Put(put)) };
    let txn = KvTxn { namespace: "default".to_owned(), then: vec![operation], ..KvTxn::default() };
    Command { format: command::FORMAT, time_ms: n, op: Some(Op::Kv(txn)), ..Command::default() }
}

/// About the value below which this share of a histogram's values lie.
fn percentile(histogram: &Histogram, before: &[u64], share: f64) -> u64 {
    let counts: Vec<u64> = histogram.counts().iter().zip(before).map(|(now, then)| now - then).collect();
    let goal = (counts.iter().sum::<u64>() as f64 * share) as u64;
    let mut seen = 0;
    for (bucket, count) in counts.iter().enumerate() {
        seen += count;
        if seen > goal {
            return histogram.bounds().get(bucket).copied().unwrap_or(u64::MAX);
        }
    }
    0
}

async fn writes(node: &Arc<Node>, callers: usize, seconds: u64) {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let stats = node.stats();
    let before = (stats.propose_us.counts(), stats.sync_us.counts(), stats.apply_us.counts());
    let groups = (stats.group_commands.counts().iter().sum::<u64>(), stats.group_commands.sum());
    let began = Instant::now();
    let tasks: Vec<_> = (0..callers as u64)
        .map(|caller| {
            let (node, stop, done) = (node.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut n = caller << 32;
                while !stop.load(Relaxed) {
                    n += 1;
                    node.propose(put(n)).await.map_err(|e| e.to_string())?;
                    done.fetch_add(1, Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Relaxed);
    let rate = done.load(Relaxed) as f64 / began.elapsed().as_secs_f64();
    for task in tasks {
        if let Ok(Err(error)) = task.await {
            println!("{error}");
        }
    }
    let groups_now = (stats.group_commands.counts().iter().sum::<u64>(), stats.group_commands.sum());
    println!(
        "put  {callers:>5} in flight {rate:>9.0}/s  p50 <= {:>6} us  p99 <= {:>6} us  {:>6.1} a group  sync p50 <= {} us  apply p50 <= {} us",
        percentile(&stats.propose_us, &before.0, 0.5),
        percentile(&stats.propose_us, &before.0, 0.99),
        (groups_now.1 - groups.1) as f64 / (groups_now.0 - groups.0).max(1) as f64,
        percentile(&stats.sync_us, &before.1, 0.5),
        percentile(&stats.apply_us, &before.2, 0.5),
    );
}

async fn reads(node: &Arc<Node>, callers: usize, seconds: u64) {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let rounds = node.stats().read_rounds.load(Relaxed);
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (node, stop, done) = (node.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    node.read_barrier().await.map_err(|e| e.to_string())?;
                    done.fetch_add(1, Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Relaxed);
    let total = done.load(Relaxed);
    let rate = total as f64 / began.elapsed().as_secs_f64();
    for task in tasks {
        if let Ok(Err(error)) = task.await {
            println!("{error}");
        }
    }
    let rounds = node.stats().read_rounds.load(Relaxed) - rounds;
    println!(
        "read {callers:>5} in flight {rate:>9.0}/s  {:>6.1} a round",
        total as f64 / rounds.max(1) as f64
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: rates DIR [SECONDS] [IN_FLIGHT]")?);
    let seconds = args.next().map_or(Ok(3), |text| text.parse())?;
    let mut settings = Settings::new(dir, "bench");
    if let Some(entries) = args.next() {
        settings.limits.in_flight_entries = entries.parse()?;
    }
    let (node, _state) = Node::open(settings, Arc::new(Nobody)).await?;
    let node = Arc::new(node);
    for callers in [1, 64, 256, 1_000] {
        writes(&node, callers, seconds).await;
    }
    for callers in [1, 256] {
        reads(&node, callers, seconds).await;
    }
    node.shutdown().await;
    Ok(())
}
