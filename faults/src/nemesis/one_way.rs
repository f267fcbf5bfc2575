//! A member that hears but isn't heard, or is heard but doesn't hear.

use super::{Doing, Draw, Fault, Target, everybody, peers};
use crate::cluster::Cluster;
use crate::firewall::{self, Rule};

/// A member whose packets get through in one direction only.
pub(super) struct OneWay {
    target: Target,
    mute: bool,
    /// Whether clients are affected as well.
    clients: bool,
    rules: Vec<Rule>,
}

impl OneWay {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        let (target, mute) = (draw.target(), draw.coin());
        // A single member has nobody else.
        Self { target, mute, clients: draw.coin() || draw.members == 1, rules: Vec::new() }
    }
}

impl Fault for OneWay {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            let others = if self.clients { everybody(cluster, member) } else { peers(cluster, member) };
            let cut = |address| match self.mute {
                true => Rule::nothing_to(&member.namespace, address),
                false => Rule::nothing_from(&member.namespace, address),
            };
            self.rules = others.into_iter().map(cut).collect();
            firewall::add(&self.rules).await?;
            let how = if self.mute { "is not heard" } else { "hears nothing" };
            let by = if self.clients { "members and clients" } else { "members" };
            Ok(format!("{shown}, {how} ({by})"))
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { firewall::remove(&self.rules).await })
    }
}
