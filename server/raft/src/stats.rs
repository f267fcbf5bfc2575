//! Numbers about consensus and its log, counted in atomics on the hot paths and read by whoever exports them.
//! Nothing here knows a metrics library.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A histogram over fixed bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    pub(crate) fn record_us(&self, took: Duration) {
        self.record(took.as_micros() as u64);
    }

    /// Upper bounds (inclusive) of all buckets but the last, which has none.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// How many values fell into each bucket; one more than there are bounds.
    #[must_use]
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Relaxed)).collect()
    }

    /// The sum of all values.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }
}

const TIMES_US: &[u64] =
    &[50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400];
const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096];

/// What a [`Node`](crate::Node) counts.
#[derive(Debug)]
pub struct Stats {
    /// Commands of each log entry proposed here.
    pub group_commands: Histogram,
    /// Time from writing a run of entries to the log until it is durable, in microseconds.
    pub append_us: Histogram,
    /// Time of each sync of the log, in microseconds.
    pub sync_us: Histogram,
    /// Time of each transaction that applied a run of entries, in microseconds.
    pub apply_us: Histogram,
    /// Time from accepting a Command to its outcome, in microseconds.
    pub propose_us: Histogram,
    /// Commands that wait for their outcome.
    pub waiting: AtomicU64,
    /// Commands refused before they were proposed.
    pub refused: AtomicU64,
    /// Rounds of read-index.
    pub read_rounds: AtomicU64,
    /// Reads they served.
    pub reads: AtomicU64,
    /// Bytes written to the log since the start.
    pub log_written_bytes: AtomicU64,
    /// Snapshots made since the start.
    pub snapshots: AtomicU64,
    /// How long the last snapshot took, in ms.
    pub snapshot_ms: AtomicU64,
    /// Bytes of snapshots sent to other members since the start.
    pub snapshot_sent_bytes: AtomicU64,
    /// Bytes of the snapshot that comes in, or came in last, that are here.
    pub snapshot_received_bytes: AtomicU64,
    /// Its size in bytes.
    pub snapshot_expected_bytes: AtomicU64,
    /// Hashes of other members' states that were compared with this one's.
    pub hash_comparisons: AtomicU64,
    /// How often this member's state was found to differ.
    pub divergences: AtomicU64,
    /// Whether the log or the state waits for space (1) or not (0).
    pub out_of_space: AtomicU64,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            group_commands: Histogram::new(SIZES),
            append_us: Histogram::new(TIMES_US),
            sync_us: Histogram::new(TIMES_US),
            apply_us: Histogram::new(TIMES_US),
            propose_us: Histogram::new(TIMES_US),
            waiting: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            read_rounds: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            log_written_bytes: AtomicU64::new(0),
            snapshots: AtomicU64::new(0),
            snapshot_ms: AtomicU64::new(0),
            snapshot_sent_bytes: AtomicU64::new(0),
            snapshot_received_bytes: AtomicU64::new(0),
            snapshot_expected_bytes: AtomicU64::new(0),
            hash_comparisons: AtomicU64::new(0),
            divergences: AtomicU64::new(0),
            out_of_space: AtomicU64::new(0),
        }
    }
}
