//! SIGKILL, of one member or of all at once.

use anyhow::Result;

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;

/// Members that are dead for a while.
pub(super) struct Kill {
    /// All when there is none.
    target: Option<Target>,
}

impl Kill {
    pub(super) fn one(draw: &mut Draw<'_>) -> Self {
        Self { target: Some(draw.target()) }
    }

    pub(super) fn all() -> Self {
        Self { target: None }
    }
}

impl Fault for Kill {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async move {
            let Some(target) = self.target else {
                let all = cluster.members.iter().map(crate::member::Member::kill);
                futures_util::future::join_all(all).await.into_iter().collect::<Result<()>>()?;
                return Ok("all members".to_owned());
            };
            let (member, shown) = target.find(cluster).await;
            member.kill().await?;
            Ok(shown)
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async { cluster.start() })
    }
}
