//! Members that come and go for good: one that joins and is removed again, and one that is replaced by itself with an empty disk.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use konsul_client::proto::MemberRole;

use super::{Doing, Draw, Fault, Target};
use crate::cluster::Cluster;
use crate::member::Member;

/// How long a change of members may take, whatever else happens.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// One more member, for a while.
pub(super) struct Join;

impl Fault for Join {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let spare = cluster.spare.as_ref().context("there is no spare member")?;
            spare.start()?;
            until_voter(cluster, spare).await;
            Ok(spare.name.clone())
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            let spare = cluster.spare.as_ref().context("there is no spare member")?;
            leave(cluster, spare).await
        })
    }
}

/// A member that is removed, loses its disk and joins again.
pub(super) struct Replace {
    target: Target,
    removed: Option<String>,
}

impl Replace {
    pub(super) fn new(draw: &mut Draw<'_>) -> Self {
        Self { target: draw.target(), removed: None }
    }
}

impl Fault for Replace {
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String> {
        Box::pin(async {
            let (member, shown) = self.target.find(cluster).await;
            self.removed = Some(member.name.clone());
            leave(cluster, member).await?;
            Ok(shown)
        })
    }

    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()> {
        Box::pin(async {
            let removed = cluster.members.iter().find(|member| Some(&member.name) == self.removed.as_ref());
            if let Some(member) = removed {
                member.join_from_now_on();
                member.start()?;
                until_voter(cluster, member).await;
            }
            Ok(())
        })
    }
}

/// Removes a member from the cluster, ends it, and wipes its disk.
async fn leave(cluster: &Cluster, member: &Member) -> Result<()> {
    // It may end when it hears that it is no member any more.
    member.may_end();
    let removed = until(async || {
        // What was removed already is refused.
        let _ = cluster.admin().remove_member(&member.name).await;
        cluster.role(&member.name).await.is_ok_and(|role| role.is_none())
    });
    if !removed.await {
        cluster.report.found(format_args!("{} could not be removed within {LIMIT:?}", member.name));
    }
    member.kill().await?;
    member.may_not_end()?;
    member.disk.wipe()
}

async fn until_voter(cluster: &Cluster, member: &Member) {
    let is_voter =
        until(async || cluster.role(&member.name).await.is_ok_and(|role| role == Some(MemberRole::Voter)));
    if !is_voter.await {
        cluster.report.found(format_args!("{} joined and is no voter after {LIMIT:?}", member.name));
    }
}

/// Whether something comes true within the limit.
async fn until(mut comes_true: impl AsyncFnMut() -> bool) -> bool {
    let began = Instant::now();
    while !comes_true().await {
        if began.elapsed() > LIMIT {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}
