//! A member's clock, which can jump: libfaketime in the member's process adds what a file says. Only the time of day jumps; what
//! measures how long something takes goes on as ever.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where Debian's package libfaketime puts its library, below the folder of the processor's kind.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The time of day as one member sees it.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, and whose setting is kept in `file`.
    ///
    /// # Errors
    /// When libfaketime is not installed or the file can't be written.
    pub(crate) fn right(file: PathBuf) -> Result<Self> {
        let clock = Self { library: library()?, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Makes the clock differ from the true one by so many seconds from now on.
    ///
    /// # Errors
    /// When the file can't be written.
    pub(crate) fn set(&self, ahead_s: i64) -> Result<()> {
        let partial = self.file.with_extension("partial");
        let write =
            fs::write(&partial, format!("{ahead_s:+}")).and_then(|()| fs::rename(&partial, &self.file));
        write.with_context(|| format!("can't write {}", self.file.display()))
    }

    /// What a process needs in its environment to have this clock.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 4] {
        [
            ("LD_PRELOAD", &self.library),
            ("FAKETIME_TIMESTAMP_FILE", &self.file),
            // Seconds until a change of the file is seen.
            ("FAKETIME_CACHE_DURATION", Path::new("1")),
            ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
        ]
    }
}

fn library() -> Result<PathBuf> {
    let kinds = fs::read_dir("/usr/lib")?.filter_map(|kind| Some(kind.ok()?.path().join(LIBRARY)));
    let mut found = kinds.filter(|library| library.exists());
    found
        .next()
        .with_context(|| format!("there is no {LIBRARY} below /usr/lib: install the package libfaketime"))
}
