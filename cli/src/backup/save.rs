//! `konsul backup save`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::TryStreamExt;
use konsul_server::backup::Checker;

use super::Told;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::session::Session;

/// Save a backup of the running cluster to a file
///
/// Any member gives it, and nothing waits for it. The file appears under its name when all of it is there and its checksums are right.
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// The file, which is replaced
    file: PathBuf,
    /// Take it as the server that answers has it, without a leader: for a cluster that has lost its majority
    #[arg(long)]
    stale: bool,
}

impl Save {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let failed = |error| Failure::Write { path: self.file.clone(), error };
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut fresh = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        let mut pieces = session.client.admin().snapshot(self.stale).await?;
        let mut checker = Checker::default();
        let mut progress = Progress::new("saving");
        let mut done = 0;
        let damaged = |error| Failure::Backup { path: self.file.clone(), error };
        while let Some(piece) = pieces.try_next().await? {
            checker.push(&piece).map_err(damaged)?;
            fresh.write_all(&piece).map_err(failed)?;
            done += piece.len() as u64;
            progress.show(done, checker.expected_bytes());
        }
        let summary = checker.end().map_err(damaged)?;
        drop(progress);
        let synced = fresh.as_file().sync_all();
        let kept = synced.and_then(|()| fresh.persist(&self.file).map_err(|error| error.error));
        kept.map_err(failed)?;
        session.output.made(&Told::new("saved", &self.file, summary))
    }
}
