//! Making a new cluster out of one survivor, when a majority of the voters is lost for good. It is done offline, on the
//! survivor's data directory: what its log has is kept, also what was not yet known to be committed, and the cluster gets another
//! id, so that a lost member that turns up after all is refused rather than believed.

use konsul_state::LogPosition;
use openraft::storage::{IOFlushed, RaftLogStorage};
use uuid::Uuid;

use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::log::Log;
use crate::recovery::{Common, Found, find};
use crate::settings::Settings;
use crate::snapshots::stored_membership;
use crate::space::Space;
use crate::stats::Stats;
use crate::types::{LeaderId, LogId, Member, Membership, Payload, RaftEntry, Vote};

/// What a survivor has, and what becomes of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The survivor's name.
    pub survivor: String,
    /// The other members, who are members no more.
    pub lost: Vec<String>,
    /// The last entry of the survivor's log, which is kept up to there.
    pub last_index: u64,
    /// The revision of its state; entries behind the state may add some.
    pub revision: u64,
    /// The new cluster's id; `None` if nothing was changed.
    pub cluster_id: Option<Uuid>,
}

/// Says what would be done, and does it if `go`.
///
/// # Errors
/// [`RaftError`] when the directory can't be used, or belongs to a server that runs or that never was a member.
pub async fn recover(settings: Settings, go: bool) -> Result<Recovery, RaftError> {
    if !settings.data_dir.join("VERSION").exists() {
        return Err(RaftError::Setting(format!("there is no data in {}", settings.data_dir.display())));
    }
    let data_dir = DataDir::open(&settings)?;
    let (path, identity) = (data_dir.path.clone(), data_dir.identity.clone());
    let stats = std::sync::Arc::new(Stats::default());
    let space = Space::new(settings.disk.clone(), path.clone(), 0, settings.map_bytes as u64, stats.clone());
    let common = Common { stats, health: std::sync::Arc::default(), space: std::sync::Arc::new(space) };
    let Found { data_dir: _locked, log, state, writer, .. } = find(&settings, data_dir, &common)?;
    let recorded = newest_membership(&log, writer.membership()?.as_ref())?;
    let revision = state.view()?.revision().0;
    // Nothing is applied here; the next start does it.
    writer.leave()?;
    let (last, _) = log.reader().bounds();
    let (Some(last), Some(me)) = (last, recorded.get_node(&identity.member_id).cloned()) else {
        let path = path.display();
        return Err(RaftError::Setting(format!("{path} is not the data of a member of a cluster")));
    };
    let lost =
        recorded.nodes().filter(|(id, _)| **id != me.id).map(|(_, member)| member.name.clone()).collect();
    let survivor = identity.name.clone();
    let mut recovery = Recovery { survivor, lost, last_index: last.index, revision, cluster_id: None };
    if go {
        let cluster = Uuid::new_v4();
        rewrite(log, last, me).await?;
        crate::data_dir::write_version(&path, identity.member_id, &identity.name, Some(cluster))?;
        recovery.cluster_id = Some(cluster);
    }
    Ok(recovery)
}

/// The newest membership there is: in the log, or else in the state.
fn newest_membership(
    log: &Log,
    applied: Option<&(LogPosition, bytes::Bytes)>,
) -> Result<Membership, RaftError> {
    let in_log = log.reader().last_membership().map_err(|e| RaftError::log(e.to_string()))?;
    match in_log {
        Some(membership) => Ok(membership),
        None => {
            let stored = stored_membership(applied).map_err(|e| RaftError::log(e.to_string()))?;
            Ok(stored.membership().clone())
        }
    }
}

/// Appends the membership of one, in a term that no other member has seen.
async fn rewrite(mut log: Log, last: LogId, me: Member) -> Result<(), RaftError> {
    log.start()?;
    let failed = |e: std::io::Error| RaftError::log(format!("the log could not be written: {e}"));
    let reader = log.reader();
    let seen = reader.vote().map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term);
    let leader_id = LeaderId { term: seen + 1, node_id: me.id };
    let id = me.id;
    let membership = Membership::new(vec![[id].into()], std::collections::BTreeMap::from([(id, me)]))
        .map_err(|e| RaftError::Consensus(e.to_string()))?;
    let log_id = LogId { leader_id, index: last.index + 1 };
    let entry = RaftEntry { log_id, payload: Payload::Membership(membership) };
    // Jobs are written in their order: when the vote is durable, so is the entry.
    log.append([entry], IOFlushed::noop()).await.map_err(failed)?;
    log.save_vote(&Vote { leader_id, committed: true }).await.map_err(failed)?;
    drop(log);
    reader.join().await;
    Ok(())
}
