//! Backups that a member makes by itself: every so often, into a folder, each restored for a trial before it has a name there, and
//! no more of them than asked for.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use konsul_state::State;
use konsul_state::backup::{Maker, Source};
use konsul_state::propose::{Propose, ProposeError};
use tokio_util::sync::CancellationToken;

use super::{BackupFailure, Summary, verify};
use crate::config::BackupSettings;

/// What a backup's file is named with, around revision and time.
const BEGIN: &str = "konsul-";
const END: &str = ".backup";
/// With what the name of one begins that is still written, and how long that may take.
const UNFINISHED: &str = ".konsul-backup-";
const UNFINISHED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// How soon to try again after a failure, at most.
const AGAIN: Duration = Duration::from_secs(60);

/// How the backups went, for metrics.
#[derive(Debug, Default)]
pub(crate) struct BackupStats {
    /// When the last one was made, in seconds since 1970; 0 if none was.
    pub(crate) last_s: AtomicU64,
    /// Its bytes.
    pub(crate) last_bytes: AtomicU64,
    /// How many were made, and how many failed, since the start.
    pub(crate) made: AtomicU64,
    pub(crate) failed: AtomicU64,
}

/// Makes backups.
pub(crate) struct Schedule {
    pub(crate) settings: BackupSettings,
    pub(crate) state: State,
    pub(crate) propose: Arc<dyn Propose>,
    pub(crate) stats: Arc<BackupStats>,
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
enum ScheduleError {
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    State(#[from] konsul_state::StateError),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("it was made, and is not whole: {0}")]
    NotWhole(#[from] BackupFailure),
    #[error("the task failed")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Schedule {
    /// Makes backups until it is stopped. The first one is due when the newest in the folder is old enough.
    pub(crate) async fn run(self, folder: PathBuf, stop: CancellationToken) {
        let mut wait = self.due_in(&folder);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let made = tokio::select! {
                () = stop.cancelled() => return,
                made = self.make(&folder, &stop) => made,
            };
            wait = match made {
                Ok(summary) => {
                    tracing::info!(revision = summary.revision, bytes = summary.bytes, "made a backup");
                    self.stats.made.fetch_add(1, Relaxed);
                    self.stats.last_bytes.store(summary.bytes, Relaxed);
                    self.stats.last_s.store(summary.created_ms / 1_000, Relaxed);
                    self.settings.interval
                }
                Err(error) => {
                    tracing::error!(%error, folder = %folder.display(), "no backup was made");
                    self.stats.failed.fetch_add(1, Relaxed);
                    self.settings.interval.min(AGAIN)
                }
            };
        }
    }

    /// When the next one is due.
    fn due_in(&self, folder: &Path) -> Duration {
        let Some(newest) = backups(folder).ok().and_then(|mut all| all.pop()) else { return Duration::ZERO };
        let made = newest.metadata().and_then(|found| found.modified()).unwrap_or(UNIX_EPOCH);
        let age = SystemTime::now().duration_since(made).unwrap_or_default();
        let made_s = made.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.stats.last_s.store(made_s, Relaxed);
        self.settings.interval.saturating_sub(age)
    }

    async fn make(&self, folder: &Path, stop: &CancellationToken) -> Result<Summary, ScheduleError> {
        self.propose.read_barrier().await?;
        let view = self.state.view()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let maker = Maker {
            cluster_id: self.propose.cluster_id(),
            version: crate::VERSION.to_owned(),
            created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
        };
        let source = Source::new(view, maker)?;
        let (folder, keep, stop) = (folder.to_owned(), self.settings.keep, stop.clone());
        tokio::task::spawn_blocking(move || {
            let summary = write(source, &folder, &stop)?;
            retire(&folder, keep).map_err(|error| ScheduleError::File { path: folder, error })?;
            Ok(summary)
        })
        .await?
    }
}

/// Writes a backup, restores it for a trial, and gives it its name. A server that stops does not wait for all of it.
fn write(mut source: Source, folder: &Path, stop: &CancellationToken) -> Result<Summary, ScheduleError> {
    let failed = |error| ScheduleError::File { path: folder.to_owned(), error };
    let go_on = || match stop.is_cancelled() {
        true => Err(std::io::Error::other("the server is stopping")),
        false => Ok(()),
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder).map_err(failed)?;
    while let Some(piece) = source.next_piece()? {
        go_on().map_err(failed)?;
        file.write_all(&piece).map_err(failed)?;
    }
    // The view is not held any longer than the writing takes.
    drop(source);
    file.as_file().sync_all().map_err(failed)?;
    let summary = verify(file.path(), |_, _| go_on())?;
    let stamp = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(summary.created_ms));
    // Sorted by name they are sorted by age; colons are no part of names everywhere.
    let stamp = stamp.to_string().replace(':', "");
    let path = folder.join(format!("{BEGIN}{stamp}-r{}{END}", summary.revision));
    file.persist(&path).map_err(|error| ScheduleError::File { path, error: error.error })?;
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(failed)?;
    Ok(summary)
}

/// The backups in a folder, from the oldest on. What else is there is left alone.
fn backups(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(BEGIN) && name.ends_with(END) {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Removes the oldest beyond so many, and what a server that was killed has left unfinished.
fn retire(folder: &Path, keep: usize) -> std::io::Result<()> {
    let all = backups(folder)?;
    all.iter().take(all.len().saturating_sub(keep)).try_for_each(fs::remove_file)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let age = entry.metadata()?.modified()?.elapsed().unwrap_or_default();
        if is_unfinished && age > UNFINISHED_FOR {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
