//! Row: put at 1, 64, 256 and 1,000 in flight, random keys.

use anyhow::Result;
use tonic::Status;

use super::{Bench, KEYS, Measure, RandomKeys, Stage, call_figures, value};
use crate::load::{Caller, drive};
use crate::peers::{Peer, Target};
use crate::process::Server;
use crate::report::{Figure, Report};

/// Measures the row.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let stage = Stage::start(bench, "put", &[Peer::Bare, Peer::Etcd, Peer::Konsul])?;
    for in_flight in [1, 64, 256, 1000] {
        stage.rounds(report, &Put { in_flight })?;
    }
    stage.stop()
}

struct Put {
    in_flight: usize,
}

impl Measure for Put {
    fn name(&self) -> String {
        format!("put, {} in flight", self.in_flight)
    }

    fn round<T: Target>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let outcome = drive(&bench.client, server, self.in_flight, |target: T, number| {
            RandomPuts::new(target, "put", KEYS, number)
        })?;
        Ok(call_figures(&format!("put/{}", self.in_flight), &self.name(), &outcome))
    }
}

/// A caller that puts random keys.
#[derive(Debug)]
pub(crate) struct RandomPuts<T> {
    target: T,
    keys: RandomKeys,
}

impl<T: Target> RandomPuts<T> {
    /// Puts among the first `keys` keys of `row`.
    pub(crate) fn new(target: T, row: &'static str, keys: u64, number: usize) -> Self {
        Self { target, keys: RandomKeys::new(row, keys, number) }
    }
}

impl<T: Target> Caller for RandomPuts<T> {
    async fn call(&mut self) -> Result<bool, Status> {
        self.target.put(self.keys.pick(), value()).await.map(|()| true)
    }
}
