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
            let (to, arguments) = match self.to {
                Target::Leader => ("anybody", vec!["cluster", "transfer"]),
                Target::Member(index) => {
                    let name = cluster.members[index].name.as_str();
                    (name, vec!["cluster", "transfer", name])
                }
            };
            // Others may be in its way, and it may be refused.
            Ok(match cluster.konsul(&arguments).await {
                Ok(_) => format!("to {to}"),
                Err(error) => format!("to {to}, refused: {error}"),
            })
        })
    }

    fn heal<'a>(&'a mut self, _: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
