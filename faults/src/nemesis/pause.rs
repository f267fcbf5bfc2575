//! A process that stands still and then goes on as if nothing had been: a leader that doesn't know that it was deposed.

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;

/// A member that is stopped by SIGSTOP for longer than an election takes.
pub(super) struct Pause {
    target: Target,
    paused: Option<String>,
}

impl Pause {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target(), paused: None }
    }
}

impl Fault for Pause {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            member.pause()?;
            self.paused = Some(member.name.clone());
            Ok(shown)
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            let paused = cluster.members.iter().find(|member| Some(&member.name) == self.paused.as_ref());
            paused.map_or(Ok(()), crate::member::Member::resume)
        })
    }
}
