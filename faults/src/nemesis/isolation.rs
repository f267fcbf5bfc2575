//! A member that nobody hears and that hears nobody, clients neither.

use super::{Doing, Draw, Fault, Target, everybody};
use crate::cluster::Cluster;
use crate::firewall::{self, Rule};

/// A member whose network cable is pulled out.
pub(super) struct Isolation {
    target: Target,
    rules: Vec<Rule>,
}

impl Isolation {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target(), rules: Vec::new() }
    }
}

impl Fault for Isolation {
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

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { firewall::remove(&self.rules).await })
    }
}
