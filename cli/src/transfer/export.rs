//! `konsul export`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::TryStreamExt;

use super::format::{Head, Record, Tail};
use crate::failure::Failure;
use crate::session::Session;

/// Most entries that the API gives in one page.
const PAGE_MAX_ENTRIES: u32 = 10_000;

const EXAMPLES: &str = "\
Examples:
  konsul export backup.jsonl                  all keys of the namespace
  konsul export - --prefix app/ | gzip > app.jsonl.gz
  konsul export app.jsonl --prefix app/ --revision 17";

/// Write keys to a file, as JSON lines
///
/// All keys are of one revision. Keys that are bound to a lease are left out, unless asked for: what they say is true only as long as
/// somebody is alive.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// The file, which is replaced when all is written; `-` is stdout, and a device or a pipe is written to
    file: PathBuf,
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// The keys as they were at this revision
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    revision: u64,
    /// Also keys that are bound to a lease; an import makes them permanent
    #[arg(long)]
    with_leased: bool,
}

impl Export {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        if self.file == Path::new("-") {
            self.write(&session, &mut BufWriter::new(std::io::stdout().lock())).await?;
            return Ok(());
        }
        let failed = |error| Failure::Write { path: self.file.clone(), error };
        let named = |failure| match failure {
            Failure::Output(error) => failed(error),
            other => other,
        };
        // A device or a pipe can't be replaced, only written to.
        if std::fs::metadata(&self.file).is_ok_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(&self.file).map_err(failed)?;
            let entries = self.write(&session, &mut BufWriter::new(file)).await.map_err(named)?;
            return session.output.done(&format!("exported {entries} keys"));
        }
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let fresh = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(failed)?;
        let mut out = BufWriter::new(fresh.as_file());
        let entries = self.write(&session, &mut out).await.map_err(named)?;
        drop(out);
        let synced = fresh.as_file().sync_all();
        let kept = synced.and_then(|()| fresh.persist(&self.file).map_err(|error| error.error));
        kept.map_err(failed)?;
        session.output.done(&format!("exported {entries} keys"))
    }

    /// Writes all lines; how many keys there are.
    async fn write(&self, session: &Session, out: &mut impl Write) -> Result<u64, Failure> {
        let kv = session.client.kv();
        let mut pages = kv.list(&self.prefix).at_revision(self.revision).page_size(PAGE_MAX_ENTRIES).pages();
        let mut tail = Tail { entries: 0 };
        let mut head_is_out = false;
        while let Some(page) = pages.try_next().await? {
            if !std::mem::replace(&mut head_is_out, true) {
                let head = Head::new(session.namespace.clone(), self.prefix.clone(), page.revision);
                writeln!(out, "{}", serde_json::to_string(&head).map_err(std::io::Error::from)?)?;
            }
            for entry in page.entries {
                if entry.lease == 0 || self.with_leased {
                    writeln!(out, "{}", Record::of(entry).line().map_err(std::io::Error::from)?)?;
                    tail.entries += 1;
                }
            }
        }
        writeln!(out, "{}", serde_json::to_string(&tail).map_err(std::io::Error::from)?)?;
        out.flush()?;
        Ok(tail.entries)
    }
}
