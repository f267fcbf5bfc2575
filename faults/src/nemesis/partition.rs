//! Members on two sides that don't hear each other, while clients reach both.

use super::{Doing, Draw, Fault};
use crate::cluster::Cluster;
use crate::firewall::{self, Rule};
use crate::member::Member;
use rand::Rng;
use rand::seq::SliceRandom;

/// A cluster in two parts.
pub(super) struct Partition {
    /// The numbers of the members on one side.
    side: Vec<usize>,
    rules: Vec<Rule>,
}

impl Partition {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        let mut side: Vec<usize> = (0..draw.members).collect();
        side.shuffle(draw.random);
        side.truncate(draw.random.random_range(1..draw.members));
        Self { side, rules: Vec::new() }
    }
}

impl Fault for Partition {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let numbered = || cluster.members.iter().enumerate();
            let here: Vec<&Member> =
                numbered().filter(|(n, _)| self.side.contains(n)).map(|(_, m)| m).collect();
            let there: Vec<&Member> =
                numbered().filter(|(n, _)| !self.side.contains(n)).map(|(_, m)| m).collect();
            for member in &here {
                for other in &there {
                    self.rules.push(Rule::nothing_to(&member.namespace, other.address));
                    self.rules.push(Rule::nothing_from(&member.namespace, other.address));
                }
            }
            firewall::add(&self.rules).await?;
            let names = |side: &[&Member]| side.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(" ");
            Ok(format!("{} | {}", names(&here), names(&there)))
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { firewall::remove(&self.rules).await })
    }
}
