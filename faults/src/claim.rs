//! Names of runs. A run keeps a file locked for as long as it lives, so that a later one knows whose namespaces nobody needs any
//! more, and removes them.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::network;

/// Where the claims of this machine's runs are.
const FOLDER: &str = "/run/konsul-faults";
/// How the name of every run begins; its namespaces begin with that name.
const PREFIX: &str = "konsul-faults";

/// A name that this run alone has. Given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    name: String,
    path: PathBuf,
    /// Unlocked by the kernel when the process ends, however it ends.
    _locked: File,
}

impl Claim {
    /// Takes a name, after removing what runs left behind that were killed.
    ///
    /// # Errors
    /// When this is not root, or something can't be removed.
    pub(crate) async fn new() -> Result<Self> {
        let folder = Path::new(FOLDER);
        fs::create_dir_all(folder).with_context(|| format!("can't make {FOLDER}: be root"))?;
        // A claim that is being made must not look like one that was left behind.
        let turn =
            File::create(folder.join("turn")).with_context(|| format!("can't write to {FOLDER}: be root"))?;
        turn.lock()?;
        remove_dead(folder).await?;
        let name = format!("{PREFIX}-{}", std::process::id());
        let path = folder.join(&name);
        let locked = File::create(&path)?;
        locked.lock()?;
        Ok(Self { name, path, _locked: locked })
    }

    /// The name, which the names of all its namespaces begin with.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What stays is an unlocked file, which the next run removes.
        let _ = fs::remove_file(&self.path);
    }
}

async fn remove_dead(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with(PREFIX) {
            continue;
        }
        let file = File::open(entry.path())?;
        match file.try_lock() {
            Ok(()) => {
                network::remove(&name)
                    .await
                    .with_context(|| format!("can't remove what {name} left behind"))?;
                fs::remove_file(entry.path())?;
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Ok(())
}
