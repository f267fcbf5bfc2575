//! Row: put with an idempotency key, as Konsul's SDKs send it. Konsul alone: etcd has nothing like it.

use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tonic::Status;

use super::{Bench, KEYS, RandomKeys, call_figures, progress, value};
use crate::load::{Caller, drive};
use crate::peers::Peer;
use crate::peers::konsul::Konsul;
use crate::process::Server;
use crate::report::Report;

/// Calls in flight.
const IN_FLIGHT: usize = 256;

/// Measures the row.
///
/// # Errors
/// When the server fails.
pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    if !bench.peers.contains(&Peer::Konsul) {
        return Ok(());
    }
    let directory = bench.directory.join("put-idempotent");
    let server = Server::start(Peer::Konsul, &bench.programs, &directory)?;
    let label = format!("put with idempotency key, {IN_FLIGHT} in flight");
    for round in 1..=bench.rounds {
        let outcome = drive(&bench.client, &server, IN_FLIGHT, |target: Konsul, number| IdempotentPuts {
            target,
            keys: RandomKeys::new("put", KEYS, number),
            // Rounds must not repeat each other's idempotency keys.
            ids: StdRng::seed_from_u64((round * IN_FLIGHT + number) as u64),
            value: value(),
        })?;
        let figures = call_figures("put_idempotent/256", &label, &outcome);
        progress(&label, round, bench.rounds, Peer::Konsul, &figures);
        for figure in figures {
            report.add(figure, Peer::Konsul);
        }
    }
    server.stop()?;
    Ok(std::fs::remove_dir_all(directory)?)
}

struct IdempotentPuts {
    target: Konsul,
    keys: RandomKeys,
    ids: StdRng,
    value: Bytes,
}

impl Caller for IdempotentPuts {
    async fn call(&mut self) -> Result<bool, Status> {
        let id = format!("{:016x}{:016x}", self.ids.next_u64(), self.ids.next_u64());
        self.target.put_idempotent(self.keys.pick(), self.value.clone(), &id).await.map(|()| true)
    }
}
