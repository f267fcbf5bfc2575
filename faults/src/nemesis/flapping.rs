//! A member whose connection comes and goes.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Doing, Draw, Fault, Target, everybody};
use crate::cluster::Cluster;
use crate::firewall::{self, Rule};

/// How long the connection stays as it is, in milliseconds: around what members wait for each other.
const STAY_MS: std::ops::Range<u64> = 100..1_200;

/// A member with a loose contact.
pub(super) struct Flapping {
    target: Target,
    random: StdRng,
    rules: Vec<Rule>,
}

impl Flapping {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        let random = StdRng::seed_from_u64(draw.random.random());
        Self { target: draw.target(), random, rules: Vec::new() }
    }
}

impl Fault for Flapping {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            let namespace = &member.namespace;
            let cut =
                |address| [Rule::nothing_to(namespace, address), Rule::nothing_from(namespace, address)];
            self.rules = everybody(cluster, member).into_iter().flat_map(cut).collect();
            firewall::add(&self.rules).await?;
            Ok(shown)
        })
    }

    /// Begins and ends with the connection cut.
    fn hold<'a>(&'a mut self, _: &'a Cluster, hold: Duration) -> Doing<'a, ()> {
        Box::pin(async move {
            let end = Instant::now() + hold;
            loop {
                self.stay().await;
                if Instant::now() >= end {
                    return Ok(());
                }
                firewall::remove(&self.rules).await?;
                self.stay().await;
                firewall::add(&self.rules).await?;
            }
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { firewall::remove(&self.rules).await })
    }
}

impl Flapping {
    async fn stay(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(STAY_MS))).await;
    }
}
