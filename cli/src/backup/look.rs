//! `konsul backup inspect` and `verify`: no server is asked.

use std::path::PathBuf;

use clap::Args;
use konsul_server::backup;

use super::Told;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;

/// Say what a backup holds, by its head
///
/// The rest of the file is not looked at: see `verify`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The file
    file: PathBuf,
}

/// Restore a backup for a trial, in a store that is thrown away, and check everything in it
///
/// No server is asked. The trial takes a few times the file's size in the directory for temporary files (TMPDIR).
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The file
    file: PathBuf,
}

impl Inspect {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let damaged = |error| Failure::Backup { path: self.file.clone(), error };
        let summary = backup::inspect(&self.file).map_err(damaged)?;
        output.made(&Told::new("backup", &self.file, summary))
    }
}

impl Verify {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let damaged = |error| Failure::Backup { path: self.file.clone(), error };
        let mut progress = Progress::new("verifying");
        let show = |done, of| {
            progress.show(done, Some(of));
            Ok(())
        };
        let summary = backup::verify(&self.file, show).map_err(damaged)?;
        drop(progress);
        output.made(&Told::new("whole:", &self.file, summary))
    }
}
