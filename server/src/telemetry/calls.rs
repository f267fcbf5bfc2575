//! Counts calls by method and code, in atomics: a call costs a handful of relaxed additions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use konsul_service::observe::{CallObserver, Method, methods};
use tonic::Code;

use super::histograms::Reading;

/// Upper bounds of the latency buckets, in microseconds.
const BOUNDS_US: [u64; 14] =
    [50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 204_800, 819_200, 3_276_800];
/// Codes of gRPC: 0 to 16.
const CODES: usize = 17;

/// All calls since the start.
pub(super) struct Calls {
    methods: Vec<Counts>,
}

#[derive(Default)]
struct Counts {
    started: AtomicU64,
    ended: [AtomicU64; CODES],
    took: [AtomicU64; BOUNDS_US.len() + 1],
    took_us: AtomicU64,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { methods: methods().iter().map(|_| Counts::default()).collect() }
    }

    /// Method, code and number of calls that ended, for what was called at all.
    pub(super) fn ended(&self) -> Vec<(&'static str, Code, u64)> {
        let mut all = Vec::new();
        for (method, counts) in self.each() {
            for (code, count) in counts.ended.iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    all.push((method, Code::from_i32(code as i32), count));
                }
            }
        }
        all
    }

    /// Method and number of calls that have not ended.
    pub(super) fn in_flight(&self) -> Vec<(&'static str, u64)> {
        let in_flight = |counts: &Counts| {
            let ended: u64 = counts.ended.iter().map(|count| count.load(Relaxed)).sum();
            counts.started.load(Relaxed).saturating_sub(ended)
        };
        self.each().map(|(method, counts)| (method, in_flight(counts))).collect()
    }

    /// How long calls took, by method. Streams are left out: their length says nothing.
    pub(super) fn durations(&self) -> Vec<Reading> {
        let unary = methods().iter().zip(&self.methods).filter(|(method, _)| !method.streaming);
        unary
            .map(|(method, counts)| Reading {
                labels: vec![("method", method.path.clone())],
                bounds: BOUNDS_US.iter().map(|us| *us as f64 / 1e6).collect(),
                counts: counts.took.iter().map(|count| count.load(Relaxed)).collect(),
                sum: counts.took_us.load(Relaxed) as f64 / 1e6,
            })
            .filter(|reading| reading.counts.iter().any(|count| *count > 0))
            .collect()
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, &Counts)> {
        methods().iter().map(|method| method.path.as_str()).zip(&self.methods)
    }
}

impl CallObserver for Calls {
    fn started(&self, method: &'static Method) {
        self.methods[method.index].started.fetch_add(1, Relaxed);
    }

    fn ended(&self, method: &'static Method, code: Code, took: Duration) {
        let counts = &self.methods[method.index];
        let us = took.as_micros() as u64;
        counts.took[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Relaxed);
        counts.took_us.fetch_add(us, Relaxed);
        counts.ended[code as usize].fetch_add(1, Relaxed);
    }
}
