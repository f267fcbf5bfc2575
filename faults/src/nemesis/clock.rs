//! A member whose time of day is suddenly another one, and then the right one again.

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;

/// How far the clock jumps.
const JUMP_S: i64 = 3_600;

/// A clock that jumps an hour ahead or back.
pub(super) struct Jump {
    target: Target,
    ahead: bool,
    jumped: Option<String>,
}

impl Jump {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target(), ahead: draw.coin(), jumped: None }
    }
}

impl Fault for Jump {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            let ahead_s = if self.ahead { JUMP_S } else { -JUMP_S };
            member.clock.set(ahead_s)?;
            self.jumped = Some(member.name.clone());
            Ok(format!("{}, {ahead_s:+} s", shown))
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            let jumped = cluster.members.iter().find(|member| Some(&member.name) == self.jumped.as_ref());
            jumped.map_or(Ok(()), |member| member.clock.set(0))
        })
    }
}
