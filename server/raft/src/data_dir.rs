//! The data directory: `LOCK`, `VERSION`, `log/`, `state/`, `snapshots/`. It is locked and checked before
//! anything in it is changed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use konsul_state::Persistence;
use uuid::Uuid;

use crate::error::RaftError;
use crate::identity::Identity;
use crate::settings::Settings;

/// The format of data directories that this version writes, and the newest it reads.
const FORMAT: u32 = 2;
const LOCK: &str = "LOCK";
const VERSION: &str = "VERSION";
const VERSION_NEW: &str = "VERSION.new";

/// An open data directory, locked for as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    pub(crate) identity: Arc<Identity>,
    /// Removed at the end.
    is_temporary: bool,
    _lock: File,
}

/// What `VERSION` says.
struct Version {
    cluster_id: Option<Uuid>,
    member_id: u64,
    name: String,
}

impl DataDir {
    /// Opens the directory, or makes it.
    pub(crate) fn open(settings: &Settings) -> Result<Self, RaftError> {
        let is_temporary = settings.persistence == Persistence::Memory;
        let path = match is_temporary {
            true => std::env::temp_dir().join(format!("konsul-{}", Uuid::new_v4())),
            false => settings.data_dir.clone(),
        };
        let existing = Version::read(&path)?;
        if existing.is_none() {
            refuse_strangers(&path)?;
            fs::create_dir_all(&path).map_err(RaftError::file(&path))?;
        }
        let lock = lock(&path)?;
        // Another process may have made it between the look and the lock.
        let version = match Version::read(&path)? {
            Some(version) => version,
            None => Version::create(&path, settings)?,
        };
        if let Some(name) = &settings.member_name
            && *name != version.name
        {
            let (found, configured) = (version.name, name.clone());
            return Err(RaftError::OtherMember { path, found, configured });
        }
        let Version { member_id, name, cluster_id } = version;
        let identity = Arc::new(Identity::new(member_id, name, cluster_id, path.clone()));
        Ok(Self { path, identity, is_temporary, _lock: lock })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.is_temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a temporary directory could not be removed");
        }
    }
}

impl Version {
    fn read(dir: &Path) -> Result<Option<Self>, RaftError> {
        let path = dir.join(VERSION);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(RaftError::file(&path)(e)),
        };
        let mut lines = text.lines();
        let mut field = |name| lines.next()?.strip_prefix(name);
        let damaged = || RaftError::damaged(&path, "it does not describe a konsul data directory");
        let found = field("konsul data ").and_then(|f| f.parse().ok()).ok_or_else(damaged)?;
        if found > FORMAT {
            return Err(RaftError::Newer { path: dir.to_owned(), found, known: FORMAT });
        }
        if found == 1 {
            return Err(RaftError::Unreleased { path: dir.to_owned(), found });
        }
        let cluster_id = match field("cluster ") {
            Some("none") => Some(None),
            Some(id) => id.parse().ok().map(Some),
            None => None,
        };
        let member_id = field("member ").and_then(|id| id.parse().ok());
        let name = field("name ").map(str::to_owned);
        match (cluster_id, member_id, name) {
            (Some(cluster_id), Some(member_id), Some(name)) => Ok(Some(Self { cluster_id, member_id, name })),
            _ => Err(damaged()),
        }
    }

    /// A server by itself is member 1. One of several takes an id that no other has had, without asking anybody.
    fn create(dir: &Path, settings: &Settings) -> Result<Self, RaftError> {
        let member_id = match settings.peers {
            None => 1,
            Some(_) => u64::from(Uuid::new_v4().as_fields().0).max(2),
        };
        let name = settings.member_name.clone().unwrap_or_else(|| settings.default_member_name.clone());
        write_version(dir, member_id, &name, None)?;
        Ok(Self { cluster_id: None, member_id, name })
    }
}

/// Writes `VERSION`, whole or not at all.
pub(crate) fn write_version(
    dir: &Path,
    member_id: u64,
    name: &str,
    cluster_id: Option<Uuid>,
) -> Result<(), RaftError> {
    let cluster = cluster_id.map_or_else(|| "none".to_owned(), |id| id.to_string());
    let text = format!("konsul data {FORMAT}\ncluster {cluster}\nmember {member_id}\nname {name}\n");
    let path = dir.join(VERSION);
    let write = || {
        let fresh = dir.join(VERSION_NEW);
        let mut file = File::create(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(RaftError::file(&path))
}

/// Refuses a directory without `VERSION` that holds anything but what an interrupted creation leaves.
fn refuse_strangers(dir: &Path) -> Result<(), RaftError> {
    let found = match fs::read_dir(dir) {
        Ok(found) => found,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(RaftError::file(dir)(e)),
    };
    for entry in found {
        let name = entry.map_err(RaftError::file(dir))?.file_name();
        // A file system's root may be the data directory.
        if name != LOCK && name != VERSION_NEW && name != "lost+found" {
            return Err(RaftError::NotOurs { path: dir.to_owned() });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, RaftError> {
    let path = dir.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(RaftError::file(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RaftError::InUse { path: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(RaftError::file(&path)(e)),
    }
}
