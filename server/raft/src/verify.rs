//! Looking at everything in the data directory of a server that is stopped: log, snapshots and state, each by itself, and whether they
//! belong together. Nothing is changed, and what is wrong in one place does not keep the others from being looked at.

use std::fs;
use std::sync::Arc;

use konsul_state::snapshot::{self, SnapshotContent};
use konsul_state::store::StoreOptions;
use konsul_state::{LogPosition, Persistence};

use crate::data_dir::DataDir;
use crate::error::RaftError;
use crate::log::{Log, LogOptions};
use crate::settings::Settings;
use crate::snapshots::{SnapshotDir, Snapshots};
use crate::space::Space;
use crate::stats::Stats;
use crate::types::log_id;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The member's name.
    pub member: String,
    /// First and last entry of the log; `None` if it has none, or can't be read.
    pub log: Option<(u64, u64)>,
    /// The last entry of each snapshot.
    pub snapshots: Vec<u64>,
    /// Revision, last entry and hash of the state; `None` if there is none that can be trusted: after a power loss the next start
    /// makes it again, from the newest snapshot and the log.
    pub state: Option<(u64, u64, String)>,
    /// What is wrong, a line each.
    pub findings: Vec<String>,
}

/// Looks at everything, and tells `so_far` what was found after each part.
///
/// # Errors
/// [`RaftError`] when the directory can't be looked at: it is none, in use, or of a newer version.
pub fn verify(settings: &Settings, mut so_far: impl FnMut(&Verified)) -> Result<Verified, RaftError> {
    if !settings.data_dir.join("VERSION").exists() {
        return Err(RaftError::Setting(format!("there is no data in {}", settings.data_dir.display())));
    }
    let data_dir = DataDir::open(settings)?;
    let mut verified = Verified { member: data_dir.identity.name.clone(), ..Verified::default() };
    verified.look_at_log(settings, &data_dir);
    so_far(&verified);
    let newest = verified.look_at_snapshots(&data_dir);
    so_far(&verified);
    let state = verified.look_at_state(settings, &data_dir);
    verified.compare(newest.as_ref(), state.as_ref());
    Ok(verified)
}

impl Verified {
    fn found(&mut self, what: impl std::fmt::Display) {
        self.findings.push(what.to_string());
    }

    /// Every record's checksum, and that entry follows entry.
    fn look_at_log(&mut self, settings: &Settings, data_dir: &DataDir) {
        let is_log = |entry: fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "raftlog");
        let dir = data_dir.log();
        // Opened, it would be made.
        if !fs::read_dir(&dir).is_ok_and(|entries| entries.flatten().any(is_log)) {
            return self.found(format!("there is no log in {}", dir.display()));
        }
        let stats = Arc::new(Stats::default());
        let map_bytes = settings.map_bytes as u64;
        let space = Space::new(settings.disk.clone(), data_dir.path.clone(), 0, map_bytes, stats.clone());
        let log = Log::open(LogOptions {
            dir,
            file_bytes: settings.log_file_bytes,
            keep_bytes: settings.log_keep_bytes,
            reserve_bytes: settings.reserve_bytes,
            synced: settings.persistence != Persistence::Memory,
            disk: settings.disk.clone(),
            threads: settings.threads,
            stats,
            health: Arc::default(),
            space: Arc::new(space),
        });
        let log = match log {
            Ok(log) => log,
            Err(error) => return self.found(error),
        };
        let reader = log.reader();
        let (last, purged) = reader.bounds();
        self.log = last.map(|last| (purged.map_or(0, |id| id.index + 1), last.index));
        if let Err(error) = reader.verify() {
            self.found(error);
        }
    }

    /// Each snapshot's checksum, and all that is in it. Returns the newest, if it is whole.
    fn look_at_snapshots(&mut self, data_dir: &DataDir) -> Option<SnapshotContent> {
        let all = match Snapshots::new(data_dir.snapshots()).all() {
            Ok(all) => all,
            Err(error) => {
                self.found(error);
                return None;
            }
        };
        let mut newest = None;
        for found in all {
            newest = match found.and_then(|snapshot| self.look_at_snapshot(&snapshot)) {
                Ok(content) => content,
                Err(error) => {
                    self.found(error);
                    None
                }
            };
        }
        newest
    }

    fn look_at_snapshot(&mut self, snapshot: &SnapshotDir) -> Result<Option<SnapshotContent>, RaftError> {
        self.snapshots.push(snapshot.applied.index);
        snapshot.verify()?;
        let (content, findings) = snapshot::verify(&snapshot.path)?;
        let name = snapshot.path.display();
        for finding in &findings {
            self.found(format!("snapshot {name}: {finding}"));
        }
        if content.applied != snapshot.applied {
            let (holds, says) = (content.applied.index, snapshot.applied.index);
            self.found(format!("snapshot {name} holds the state at entry {holds}, and says {says}"));
        }
        Ok(findings.is_empty().then_some(content))
    }

    fn look_at_state(&mut self, settings: &Settings, data_dir: &DataDir) -> Option<SnapshotContent> {
        let options = StoreOptions {
            dir: data_dir.state(),
            map_bytes: settings.map_bytes,
            persistence: settings.persistence,
            durability: settings.durability,
            boot_id: settings.boot_id.clone(),
        };
        match snapshot::verify_store(&options) {
            Ok(None) => None,
            Ok(Some((content, findings))) => {
                self.state = Some((content.revision.0, content.applied.index, content.hash.to_string()));
                for finding in findings {
                    self.found(format!("state: {finding}"));
                }
                Some(content)
            }
            Err(error) => {
                self.found(format!("state: {error}"));
                None
            }
        }
    }

    /// The log has to begin where the newest snapshot or the state ends, and to reach as far as the state.
    fn compare(&mut self, snapshot: Option<&SnapshotContent>, state: Option<&SnapshotContent>) {
        let at = |content: Option<&SnapshotContent>| content.map(|content| content.applied);
        let (snapshot_at, state_at) = (at(snapshot), at(state));
        let base = snapshot_at.max(state_at);
        let index = |at: Option<LogPosition>| at.map_or(0, |at| log_id(at).index);
        if let Some((first, _)) = self.log
            && first > index(base) + 1
        {
            self.found(format!(
                "the log begins at entry {first}, and what is before ends at {}",
                index(base)
            ));
        }
        let last = self.log.map_or(0, |(_, last)| last);
        if last < index(state_at) && index(snapshot_at) < index(state_at) {
            self.found(format!("the log ends at entry {last}, and the state has entry {}", index(state_at)));
        }
        if let (Some(snapshot), Some(state)) = (snapshot, state)
            && snapshot.applied == state.applied
            && snapshot.hash != state.hash
        {
            let (theirs, ours, index) = (snapshot.hash, state.hash, state.applied.index);
            self.found(format!("at entry {index} the state's hash is {ours}, and the snapshot's {theirs}"));
        }
    }
}
