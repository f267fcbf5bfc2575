//! An operator hands the lead over.

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;

/// A leader that is asked to let another one lead.
pub(super) struct Transfer {
    to: Target,
}

impl Transfer {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { to: draw.target() }
    }
}

impl Fault for Transfer {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let to = match self.to {
                Target::Leader => None,
                Target::Member(index) => Some(cluster.members[index].name.as_str()),
            };
            let shown = to.unwrap_or("anybody");
            // Others may be in its way, and it may be refused.
            Ok(match cluster.admin().transfer_leadership(to).await {
                Ok(()) => format!("to {shown}"),
                Err(error) => format!("to {shown}, refused: {error}"),
            })
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
