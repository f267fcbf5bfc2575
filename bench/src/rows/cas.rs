//! Row: compare-and-swap on one key, 256 in flight. Each caller compares with the modify revision it knows
//! last, learns the present one from a transaction that failed, and tries again.

use anyhow::Result;
use tonic::Status;

use super::{Bench, Measure, Stage, key, value};
use crate::load::{Caller, drive};
use crate::peers::{Peer, Target};
use crate::process::Server;
use crate::report::{Figure, Report, Unit};
use crate::rows::call_figures;

/// Calls in flight.
const IN_FLIGHT: usize = 256;

/// Measures the row.
///
/// # Errors
/// When a server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let stage = Stage::start(bench, "cas", &[Peer::Etcd, Peer::Konsul])?;
    stage.rounds(report, &Cas)?;
    stage.stop()
}

struct Cas;

impl Measure for Cas {
    fn name(&self) -> String {
        format!("CAS transactions on one key, {IN_FLIGHT} in flight")
    }

    fn round<T: Target>(&self, bench: &Bench, server: &Server) -> Result<Vec<Figure>> {
        let outcome = drive(&bench.client, server, IN_FLIGHT, |target: T, _| Swaps { target, known: 0 })?;
        let mut figures = call_figures("cas/256", &self.name(), &outcome);
        figures.push(Figure::new(
            "cas/256/successes",
            "CAS on one key, 256 in flight: swaps that won",
            Unit::PerSecond,
            outcome.success_rate,
        ));
        Ok(figures)
    }
}

struct Swaps<T> {
    target: T,
    known: u64,
}

impl<T: Target> Caller for Swaps<T> {
    async fn call(&mut self) -> Result<bool, Status> {
        let outcome = self.target.cas(key("cas", 0), self.known, value()).await?;
        self.known = outcome.mod_revision;
        Ok(outcome.succeeded)
    }
}
