//! An operator restarts a member.

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;

/// A member that is asked to end and started again.
pub(super) struct Restart {
    target: Target,
}

impl Restart {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target() }
    }
}

impl Fault for Restart {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            member.stop().await?;
            Ok(shown)
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { cluster.start() })
    }
}
