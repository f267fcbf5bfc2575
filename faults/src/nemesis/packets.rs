//! A member with a bad connection: packets that it sends are lost, or late.

use rand::Rng;

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;
use crate::delay::{Delay, DelayOptions};
use crate::firewall::Rule;

/// How many of a thousand packets are lost.
const LOSS_PER_MILLE: std::ops::RangeInclusive<u32> = 20..=300;
/// How late packets are at most, in milliseconds; beyond what members wait for each other they are as good as lost.
const LATE_MS: std::ops::RangeInclusive<u64> = 20..=400;

/// Packets that don't arrive.
pub(super) struct Loss {
    target: Target,
    per_mille: u32,
    rule: Option<Rule>,
}

impl Loss {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target(), per_mille: draw.random.random_range(LOSS_PER_MILLE), rule: None }
    }
}

impl Fault for Loss {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            let rule = self.rule.insert(Rule::lose(&member.namespace, self.per_mille));
            rule.add().await?;
            Ok(format!("{}, {} ‰", shown, self.per_mille))
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            match &self.rule {
                Some(rule) => rule.remove().await,
                None => Ok(()),
            }
        })
    }
}

/// Packets that arrive late, and out of order.
pub(super) struct Late {
    target: Target,
    most_ms: u64,
    delay: Option<Delay>,
}

impl Late {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target(), most_ms: draw.random.random_range(LATE_MS), delay: None }
    }
}

impl Fault for Late {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            let options = DelayOptions { least_ms: self.most_ms / 2, most_ms: self.most_ms };
            self.delay = Some(Delay::begin(&member.namespace, options).await?);
            Ok(format!("{}, {} to {} ms", shown, options.least_ms, options.most_ms))
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            match self.delay.take() {
                Some(delay) => delay.end().await,
                None => Ok(()),
            }
        })
    }
}
