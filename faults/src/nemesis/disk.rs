//! A member whose disk is full.

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;

/// Less than what a server keeps for finishing what it has accepted (`raft.disk_reserve_bytes`).
const BELOW_RESERVE_BYTES: u64 = 48 << 20;

/// A disk that is full, or almost.
pub(super) struct Full {
    target: Target,
    left_bytes: u64,
    full: Option<String>,
}

impl Full {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        let left_bytes = if draw.coin() { 0 } else { BELOW_RESERVE_BYTES };
        Self { target: draw.target(), left_bytes, full: None }
    }
}

impl Fault for Full {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            // Should it be killed meanwhile, it may have no room to start.
            member.may_end();
            member.disk.fill(self.left_bytes)?;
            self.full = Some(member.name.clone());
            Ok(format!("{}, {} MiB left", shown, self.left_bytes >> 20))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            let full = cluster.members.iter().find(|member| Some(&member.name) == self.full.as_ref());
            if let Some(member) = full {
                member.disk.empty()?;
                member.may_not_end()?;
            }
            Ok(())
        })
    }
}
