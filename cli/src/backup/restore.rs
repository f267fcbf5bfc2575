//! `konsul backup restore`.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use konsul_client::Error;
use konsul_server::backup::Checker;
use tokio::sync::mpsc;

use super::Told;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::session::Session;

/// How much is sent at a time.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces that wait to be sent.
const WAITING: usize = 4;

/// Put a backup in the place of the whole store
///
/// What was written since the backup is gone, on all members at once, and so is all history. The store's revision only moves forward,
/// and every watch is sent the new state. Leases begin their time anew. The file is checked before anything is sent, and checked
/// again by the cluster; nothing changes until all of it is there.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The file
    file: PathBuf,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Restore it although it is of another cluster
    #[arg(long)]
    other_cluster: bool,
}

impl Restore {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        self.check(&session.output)?;
        if !self.yes && !confirmed()? {
            return Err(Failure::NotConfirmed);
        }
        let bytes = self.file.metadata().map_err(|error| self.unreadable(error))?.len();
        let mut file = File::open(&self.file).map_err(|error| self.unreadable(error))?;
        let (pieces, sent) = mpsc::channel::<Bytes>(WAITING);
        let pieces_sent =
            futures_util::stream::unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) });
        let admin = session.client.admin();
        let restored = admin.restore(pieces_sent.boxed(), self.other_cluster);
        let feed = async {
            let mut progress = Progress::new("restoring");
            let (mut piece, mut done) = (vec![0; PIECE_BYTES], 0);
            loop {
                let read = file.read(&mut piece).map_err(|error| self.unreadable(error))?;
                // Whoever takes no more has an answer, and that says why.
                if read == 0 || pieces.send(Bytes::copy_from_slice(&piece[..read])).await.is_err() {
                    break;
                }
                done += read as u64;
                progress.show(done, Some(bytes));
            }
            drop(pieces);
            Ok::<(), Failure>(())
        };
        let restored = async { restored.await.map_err(Failure::from) };
        let (restored, fed) = tokio::join!(restored, feed);
        let outcome = match (restored, fed) {
            (_, Err(failure)) => return Err(failure),
            (Err(Failure::Client(error)), _) if is_unknown(&error) => {
                crate::failure::complain(
                    "it is not known whether the store was restored: look at its revision",
                );
                return Err(error.into());
            }
            (restored, Ok(())) => restored?,
        };
        session.output.message(&outcome)
    }

    /// Reads all of the file before anything of it is sent, and shows what it is.
    fn check(&self, output: &Output) -> Result<(), Failure> {
        let damaged = |error| Failure::Backup { path: self.file.clone(), error };
        let mut file = File::open(&self.file).map_err(|error| self.unreadable(error))?;
        let bytes = file.metadata().map_err(|error| self.unreadable(error))?.len();
        let mut checker = Checker::default();
        let mut progress = Progress::new("checking");
        let (mut piece, mut done) = (vec![0; PIECE_BYTES], 0);
        loop {
            let read = file.read(&mut piece).map_err(|error| self.unreadable(error))?;
            if read == 0 {
                break;
            }
            checker.push(&piece[..read]).map_err(damaged)?;
            done += read as u64;
            progress.show(done, Some(bytes));
        }
        let summary = checker.end().map_err(damaged)?;
        drop(progress);
        if output.is_text() && !self.yes && std::io::stdin().is_terminal() {
            output.made(&Told::new("backup", &self.file, summary))?;
        }
        Ok(())
    }

    fn unreadable(&self, error: std::io::Error) -> Failure {
        Failure::Read { path: self.file.clone(), error }
    }
}

/// Asks on a terminal.
fn confirmed() -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(false);
    }
    write!(std::io::stderr(), "replace the whole store by this? [y/N] ")?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether the error leaves open what became of the call.
fn is_unknown(error: &Error) -> bool {
    use konsul_client::Code;
    matches!(error.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
}
