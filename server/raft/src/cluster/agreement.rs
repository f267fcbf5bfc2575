//! Whether this member's state is what the others have. All members apply the same log, so at the same index their hashes are
//! the same; if one differs, its disk, its memory or its code is wrong, and nobody can say what else of it is. It stops
//! serving, says so, and takes its state anew from the leader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};

use super::manager::Manager;
use crate::apply::Work;
use crate::hashes::Hashes;
use crate::health::Health;
use crate::leadership::Leader;
use crate::peer::{Lane, Links, fetch_snapshot, pb};
use crate::snapshots::{SnapshotDir, Snapshots};
use crate::stats::Stats;
use crate::threads::Threads;

/// How often to compare.
const EVERY: Duration = Duration::from_secs(1);
/// How long another member may take to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// Compares, and puts right.
pub(crate) struct Agreement {
    pub(crate) manager: Arc<Manager>,
    pub(crate) links: Arc<Links>,
    pub(crate) hashes: Arc<Hashes>,
    pub(crate) health: Arc<Health>,
    pub(crate) snapshots: Snapshots,
    pub(crate) works: tokio::sync::mpsc::Sender<Work>,
    pub(crate) threads: Threads,
    pub(crate) stats: Arc<Stats>,
}

/// What the others have at an index.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody contradicts, or too few answered.
    Fine,
    /// This member is wrong.
    Wrong,
}

impl Agreement {
    /// Works until `stop` turns true.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if self.health.diverged().is_none() && self.compare().await == Verdict::Fine {
                continue;
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                mended = self.mend() => match mended {
                    Ok(()) => tracing::warn!("this member's state is taken anew from the leader, and it serves again"),
                    Err(error) => tracing::error!(%error, "this member's state differs and could not be taken anew; trying again"),
                }
            }
        }
    }

    /// Asks the voters what they had at the newest index that this member has.
    async fn compare(&self) -> Verdict {
        let Some((index, mine)) = self.hashes.last() else { return Verdict::Fine };
        let membership = self.manager.membership();
        let me = self.manager.identity.member_id;
        let voters = membership.voter_ids().filter(|id| *id != me);
        let asked = voters.filter_map(|id| membership.get_node(&id)).map(|member| async move {
            let mut peer = self.links.to(&member.peer_address, Lane::Control).ok()?;
            let request = pb::StateHashRequest { index };
            let answer = tokio::time::timeout(LIMIT, peer.state_hash(request)).await.ok()?.ok()?.into_inner();
            (!answer.hash.is_empty()).then_some((member.id, answer.hash))
        });
        let answers: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        self.stats.hash_comparisons.fetch_add(answers.len() as u64, std::sync::atomic::Ordering::Relaxed);
        let leader = match self.manager.leadership.now() {
            Leader::Other(leader) => Some(leader.id),
            Leader::Me | Leader::Nobody => None,
        };
        let verdict = judge(&mine.to_bytes(), &answers, leader);
        if verdict == Verdict::Wrong {
            self.stats.divergences.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.health.diverge(index, &mine.to_string());
        }
        verdict
    }

    /// Takes the state anew from the leader. Applying stands still meanwhile; what was applied before is in the leader's state.
    async fn mend(&self) -> Result<(), String> {
        if self.manager.leadership.now() == Leader::Me {
            self.manager.transfer(None).await.map_err(|e| e.message().to_owned())?;
        }
        let Leader::Other(leader) = self.manager.leadership.now() else {
            return Err("no other member leads".to_owned());
        };
        let (fetched, awaited) = oneshot::channel::<SnapshotDir>();
        let (done, installed) = oneshot::channel();
        let resync = Work::Resync { from: awaited, done };
        self.works.send(resync).await.map_err(|_| "the state has been closed".to_owned())?;
        let mut peer = self.links.to(&leader.peer_address, Lane::Bulk).map_err(|e| e.message().to_owned())?;
        let snapshot = fetch_snapshot(&mut peer, &self.snapshots, self.threads, &self.stats)
            .await
            .map_err(|e| e.message().to_owned())?;
        // The thread waits for it.
        drop(fetched.send(snapshot));
        let installed = installed.await.map_err(|_| "the state has been closed".to_owned())?;
        installed.map_err(|e| e.to_string())?;
        self.health.agree();
        Ok(())
    }
}

/// A member is wrong when more others have the same as each other than have the same as it. When as many stand on each side,
/// the leader is believed: it is what clients were answered from.
fn judge(mine: &[u8], others: &[(u64, bytes::Bytes)], leader: Option<u64>) -> Verdict {
    let mut groups: HashMap<&[u8], usize> = HashMap::from([(mine, 1)]);
    for (_, hash) in others {
        *groups.entry(hash).or_default() += 1;
    }
    let with_me = groups.remove(mine).unwrap_or_default();
    let against = groups.values().copied().max().unwrap_or_default();
    let leader_differs = others.iter().any(|(id, hash)| Some(*id) == leader && hash != mine);
    if against > with_me || against == with_me && leader_differs { Verdict::Wrong } else { Verdict::Fine }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_is_right_and_otherwise_the_leader() {
        let others = |hashes: &[&'static str]| -> Vec<(u64, bytes::Bytes)> {
            (2..).zip(hashes.iter().map(|hash| (*hash).into())).collect()
        };
        assert_eq!(judge(b"a", &others(&[]), None), Verdict::Fine);
        assert_eq!(judge(b"a", &others(&["a", "a"]), Some(2)), Verdict::Fine);
        // One of three differs: it is wrong, whoever leads.
        assert_eq!(judge(b"b", &others(&["a", "a"]), Some(2)), Verdict::Wrong);
        assert_eq!(judge(b"b", &others(&["a", "a"]), None), Verdict::Wrong);
        assert_eq!(judge(b"a", &others(&["a", "b"]), Some(3)), Verdict::Fine);
        // Two of two, or the third is not there: the leader is right.
        assert_eq!(judge(b"b", &others(&["a"]), Some(2)), Verdict::Wrong);
        assert_eq!(judge(b"a", &others(&["b"]), None), Verdict::Fine);
        // All three differ.
        assert_eq!(judge(b"a", &others(&["b", "c"]), None), Verdict::Fine);
        assert_eq!(judge(b"a", &others(&["b", "c"]), Some(2)), Verdict::Wrong);
    }
}
