//! Row: linearizable and stale gets of random keys at 1, 64 and 256 in flight.

use anyhow::Result;
use tonic::Status;

use super::{Bench, KEYS, Measure, RandomKeys, Stage, VALUE_BYTES, call_figures};
use crate::load::{Caller, drive};
use crate::peers::{Freshness, Peer, Target};
use crate::process::Server;
use crate::report::{Figure, Report};

/// Measures the row.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let stage = Stage::start(bench, "get", &[Peer::Bare, Peer::Etcd, Peer::Konsul])?;
    stage.load("get", KEYS)?;
    for freshness in [Freshness::Linearizable, Freshness::Stale] {
        for in_flight in [1, 64, 256] {
            stage.rounds(report, &Get { freshness, in_flight })?;
        }
    }
    stage.stop()
}

struct Get {
    freshness: Freshness,
    in_flight: usize,
}

impl Measure for Get {
    fn name(&self) -> String {
        let kind = match self.freshness {
            Freshness::Linearizable => "get, linearizable",
            Freshness::Stale => "get, stale",
        };
        format!("{kind}, {} in flight", self.in_flight)
    }

    fn round<T: Target>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let outcome = drive(&bench.client, server, self.in_flight, |target: T, number| {
            RandomGets::new(target, "get", KEYS, self.freshness, number)
        })?;
        let id = match self.freshness {
            Freshness::Linearizable => "get",
            Freshness::Stale => "get_stale",
        };
        Ok(call_figures(&format!("{id}/{}", self.in_flight), &self.name(), &outcome))
    }
}

/// A caller that gets random keys, all of which are there.
#[derive(Debug)]
pub(crate) struct RandomGets<T> {
    target: T,
    freshness: Freshness,
    keys: RandomKeys,
}

impl<T> RandomGets<T> {
    /// Gets among the first `keys` keys of `row`.
    pub(crate) fn new(target: T, row: &'static str, keys: u64, freshness: Freshness, number: usize) -> Self {
        Self { target, freshness, keys: RandomKeys::new(row, keys, number) }
    }
}

impl<T: Target> Caller for RandomGets<T> {
    async fn call(&mut self) -> Result<bool, Status> {
        let value = self.target.get(self.keys.pick(), self.freshness).await?;
        match value {
            Some(value) if value.len() == VALUE_BYTES => Ok(true),
            // A server that answers fast and wrong must not win.
            Some(value) => Err(Status::data_loss(format!("a get answered {} bytes", value.len()))),
            None => Err(Status::data_loss("a get does not find a loaded key")),
        }
    }
}
