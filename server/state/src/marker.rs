//! The marker file beside the state: which generation is current, and whether it can be trusted. It is
//! written, synced, before the first commit after an opening and after a clean close; nothing else is.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::StateError;
use crate::store::{Durability, Origin, Persistence, StoreOptions};

/// First line of the file; another one means that it is not ours.
const MAGIC: &str = "konsul state 1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) generation: u64,
    /// The file as it was found; `None` if there was none.
    found: Option<String>,
}

/// Reads the marker and says what the state it names is worth.
pub(crate) fn judge(options: &StoreOptions) -> Result<(Marker, Origin), StateError> {
    let path = path(&options.dir);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Ok((Marker { generation: 1, found: None }, Origin::Created));
        }
        Err(error) => return Err(StateError::File { path, error }),
    };
    let (generation, opened_by) = parse(&text)
        .ok_or_else(|| StateError::corrupt("meta", format!("{} is not a state marker", path.display())))?;
    let trusted = opened_by.is_none_or(|boot| boot == options.boot_id)
        || options.durability == Durability::Synced && was_synced(&text);
    let origin = if trusted { Origin::Kept } else { Origin::Discarded };
    Ok((Marker { generation, found: Some(text) }, origin))
}

/// The generation, and the boot that has it open, if it was not closed cleanly.
fn parse(text: &str) -> Option<(u64, Option<&str>)> {
    let mut lines = text.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
    match lines.next()? {
        "closed" => Some((generation, None)),
        open => Some((generation, Some(open.strip_prefix("open ")?))),
    }
}

/// Whether each commit of the session that wrote the marker was synced.
fn was_synced(text: &str) -> bool {
    text.lines().nth(3) == Some("synced")
}

impl Marker {
    /// The same for another generation.
    pub(crate) fn of_generation(&self, generation: u64) -> Self {
        Self { generation, ..self.clone() }
    }

    /// Marks the state as open under this boot.
    pub(crate) fn begin(&self, options: &StoreOptions) -> Result<(), StateError> {
        let synced = match (options.persistence, options.durability) {
            (Persistence::Memory, _) => return Ok(()),
            (Persistence::Lmdb, Durability::Synced) => "synced",
            (Persistence::Lmdb, Durability::Log) => "unsynced",
        };
        self.write(options, &format!("open {}\n{synced}", options.boot_id))
    }

    /// Marks the state as closed cleanly.
    pub(crate) fn end(&self, options: &StoreOptions) -> Result<(), StateError> {
        self.write(options, "closed")
    }

    /// Marks the state as it was found.
    pub(crate) fn restore(&self, options: &StoreOptions) -> Result<(), StateError> {
        let Some(found) = &self.found else { return Ok(()) };
        let path = path(&options.dir);
        replace_synced(&path, found.as_bytes()).map_err(StateError::file(&path))
    }

    fn write(&self, options: &StoreOptions, standing: &str) -> Result<(), StateError> {
        let path = path(&options.dir);
        let text = format!("{MAGIC}\ngeneration {}\n{standing}\n", self.generation);
        replace_synced(&path, text.as_bytes()).map_err(StateError::file(&path))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("MARKER")
}

/// Puts `content` in the place of a file so that a crash leaves either the old or the new one.
fn replace_synced(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
