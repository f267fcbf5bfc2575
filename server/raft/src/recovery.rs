//! Opening what is on the disk: log, snapshots and state, and the checks that they belong together. Where they do
//! not, nothing is changed and nothing guessed.

use std::sync::Arc;

use konsul_state::store::{self, StoreOptions};
use konsul_state::{Origin, Persistence, State, StateWriter};

use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::health::Health;
use crate::log::{Log, LogOptions};
use crate::settings::Settings;
use crate::snapshots::{SnapshotDir, Snapshots};
use crate::space::Space;
use crate::stats::Stats;
use crate::types::{LogId, applied_id, log_id};

/// What opening found on the disk.
pub(crate) struct Found {
    pub(crate) data_dir: DataDir,
    pub(crate) log: Log,
    pub(crate) snapshots: Snapshots,
    pub(crate) state: State,
    pub(crate) writer: StateWriter,
}

/// What everything shares.
pub(crate) struct Common {
    pub(crate) stats: Arc<Stats>,
    pub(crate) health: Arc<Health>,
    pub(crate) space: Arc<Space>,
}

/// Opens what is on the disk, and checks that its parts belong together.
pub(crate) fn find(settings: &Settings, data_dir: DataDir, common: &Common) -> Result<Found, RaftError> {
    let log = Log::open(LogOptions {
        dir: data_dir.log(),
        file_bytes: settings.log_file_bytes,
        keep_bytes: settings.log_keep_bytes,
        reserve_bytes: settings.reserve_bytes,
        synced: settings.persistence != Persistence::Memory,
        disk: settings.disk.clone(),
        threads: settings.threads,
        stats: common.stats.clone(),
        health: common.health.clone(),
        space: common.space.clone(),
    })?;
    log.reader().verify()?;
    let snapshots = Snapshots::new(data_dir.snapshots());
    let snapshot = snapshots.newest()?;
    let options = StoreOptions {
        dir: data_dir.state(),
        map_bytes: settings.map_bytes,
        persistence: settings.persistence,
        durability: settings.durability,
        boot_id: settings.boot_id.clone(),
    };
    if store::judge(&options)? != Origin::Kept {
        check_rebuild(&data_dir, &log, snapshot.as_ref())?;
    }
    let (state, writer, origin) = store::open(options)?;
    tracing::info!(?origin, applied = state.applied().index, "opened the state");
    if let Err(error) = check_log_reaches(&data_dir, &log, applied_id(state.applied()), snapshot.as_ref()) {
        writer.leave()?;
        return Err(error);
    }
    Ok(Found { data_dir, log, snapshots, state, writer })
}

/// Checks that a state that is missing or can't be trusted can be made again: from the snapshot, if it is
/// whole, and the log after it.
fn check_rebuild(data_dir: &DataDir, log: &Log, snapshot: Option<&SnapshotDir>) -> Result<(), RaftError> {
    if let Some(snapshot) = snapshot {
        snapshot.verify()?;
    }
    let (_, purged) = log.reader().bounds();
    let from = snapshot.map(|s| log_id(s.applied));
    if purged > from {
        let begin = purged.map_or(0, |id| id.index + 1);
        return Err(RaftError::damaged(
            data_dir.snapshots(),
            format!("the log begins at entry {begin}, and there is no snapshot of what was before"),
        ));
    }
    Ok(())
}

/// Checks that the log reaches as far as the state. It does unless its end is lost, because an entry is durable
/// before it is applied.
fn check_log_reaches(
    data_dir: &DataDir,
    log: &Log,
    applied: Option<LogId>,
    snapshot: Option<&SnapshotDir>,
) -> Result<(), RaftError> {
    let (last, _) = log.reader().bounds();
    let reach = last.max(snapshot.map(|s| log_id(s.applied)));
    if applied > reach {
        let (applied, last) = (applied.map_or(0, |id| id.index), last.map_or(0, |id| id.index));
        return Err(RaftError::damaged(
            data_dir.log(),
            format!("it ends at entry {last}, but the state has entry {applied}"),
        ));
    }
    Ok(())
}
