//! `konsul import`.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures_util::{StreamExt, stream};
use konsul_client::{Error, Kv, PutOperation};

use super::format::Record;
use super::source::Source;
use crate::failure::Failure;
use crate::output::Imported;
use crate::session::Session;

/// Most keys that one call writes.
const BATCH_KEYS: usize = 256;
/// Bytes after which a batch takes in no further key: with one more value it fits into a request.
const BATCH_BYTES: usize = 1 << 20;
/// Batches under way.
const IN_FLIGHT: usize = 8;
/// How often a terminal is told how it goes.
const TELL_EVERY: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  konsul import backup.jsonl --dry-run                      what it would do
  konsul import backup.jsonl                                fails if a key is there already
  konsul import backup.jsonl --on-conflict overwrite
  konsul import --from etcd http://127.0.0.1:2379 --prefix /app/
  consul kv export > kv.json && konsul import --from consul kv.json

Keys are written in batches of 256, each all or none, some at a time. An import that failed tells the last key up to which all is done; it
goes on after that with --after, and with --on-conflict skip, for some later keys may be there. Keys of an etcd that are bound to a lease
are left out and counted: what they say is true only as long as somebody is alive.";

/// Write keys from an export, from an etcd, or from Consul
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Import {
    /// The file, `-` for stdin; with `--from etcd` the address of a server
    source: PathBuf,
    /// What the source is
    #[arg(long, value_enum, default_value_t = From::Export, value_name = "export|etcd|consul", hide_possible_values = true)]
    from: From,
    /// What to do about keys that are there already
    #[arg(long, value_enum, default_value_t = OnConflict::Fail, value_name = "fail|skip|overwrite", hide_possible_values = true)]
    on_conflict: OnConflict,
    /// Only keys that start with this
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only keys after this one, of a source that is in order
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    after: String,
    /// All keys at one revision or none; up to 256 keys
    #[arg(long)]
    atomic: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    Export,
    Etcd,
    Consul,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    Fail,
    Skip,
    Overwrite,
}

/// What became of a batch.
#[derive(Debug, Default)]
struct Done {
    written: u64,
    skipped: u64,
    overwritten: u64,
    last: String,
}

impl Import {
    pub(crate) async fn run(self, session: Session) -> Result<(), Failure> {
        let began = Instant::now();
        let mut source = match self.from {
            From::Export => Source::export(&self.source)?,
            From::Consul => Source::consul(&self.source)?,
            From::Etcd => {
                let endpoint = self.source.to_string_lossy();
                Source::etcd(&endpoint, &self.prefix, &self.after, session.timeout).await?
            }
        };
        let kv = session.client.kv();
        let mut total = Imported::new(self.dry_run);
        let written = match self.atomic {
            true => self.write_at_once(&kv, &mut source, &mut total).await,
            false => self.write_all(&kv, &mut source, &mut total).await,
        };
        total.took(began.elapsed());
        total.left_out(source.leased());
        match written {
            Ok(()) => session.output.made(&total),
            Err(failure) => {
                if total.keys() > 0 && !self.dry_run {
                    total.complain(self.on_conflict != OnConflict::Overwrite);
                }
                Err(failure)
            }
        }
    }

    async fn write_at_once(&self, kv: &Kv, source: &mut Source, total: &mut Imported) -> Result<(), Failure> {
        let batch = self.batch(source, usize::MAX).await?;
        if self.batch(source, usize::MAX).await?.is_empty() {
            total.add(self.write(kv, batch).await?);
            return Ok(());
        }
        Err(Failure::TooManyAtOnce { most: BATCH_KEYS })
    }

    /// Writes batch after batch, some at a time, and counts them in their order. After a failure none is begun; those under way are
    /// waited for and counted too.
    async fn write_all(&self, kv: &Kv, source: &mut Source, total: &mut Imported) -> Result<(), Failure> {
        let failed = Cell::new(false);
        let batches = stream::unfold(source, |source| async {
            if failed.get() {
                return None;
            }
            let batch = self.batch(source, BATCH_BYTES).await;
            failed.set(failed.get() || batch.is_err());
            match batch {
                Ok(batch) if batch.is_empty() => None,
                batch => Some((batch, source)),
            }
        });
        let written = batches.map(|batch| async {
            let done = match batch {
                Ok(batch) => self.write(kv, batch).await,
                Err(failure) => Err(failure),
            };
            failed.set(failed.get() || done.is_err());
            done
        });
        let mut written = std::pin::pin!(written.buffered(IN_FLIGHT));
        let (mut told, mut failure) = (Instant::now(), None);
        while let Some(done) = written.next().await {
            match done {
                Ok(done) if failure.is_none() => total.add(done),
                // What comes before them is not done.
                Ok(done) => total.add(Done { last: String::new(), ..done }),
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
            if told.elapsed() >= TELL_EVERY && std::io::stderr().is_terminal() {
                told = Instant::now();
                // What can't be told is no failure.
                let _ = write!(std::io::stderr(), "\r{} keys", total.keys());
            }
        }
        if std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r");
        }
        failure.map_or(Ok(()), Err)
    }

    /// The next keys that are to be imported.
    async fn batch(&self, source: &mut Source, most_bytes: usize) -> Result<Vec<Record>, Failure> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_KEYS
            && bytes < most_bytes
            && let Some(record) = source.next().await?
        {
            if record.key.starts_with(&self.prefix) && (self.after.is_empty() || record.key > self.after) {
                bytes += record.bytes();
                batch.push(record);
            }
        }
        Ok(batch)
    }

    async fn write(&self, kv: &Kv, batch: Vec<Record>) -> Result<Done, Failure> {
        let last = batch.last().map(|record| record.key.clone()).unwrap_or_default();
        let count = batch.len() as u64;
        if batch.is_empty() {
            return Ok(Done::default());
        }
        if self.dry_run {
            let there = there(kv, &batch).await?.len() as u64;
            let done = Done { written: count - there, last, ..Done::default() };
            return match self.on_conflict {
                OnConflict::Fail if there > 0 => Err(Failure::KeysExist { keys: there }),
                OnConflict::Fail | OnConflict::Skip => Ok(Done { skipped: there, ..done }),
                OnConflict::Overwrite => Ok(Done { overwritten: there, ..done }),
            };
        }
        match self.on_conflict {
            OnConflict::Overwrite => {
                kv.batch_put(batch.iter().map(put)).await?;
                Ok(Done { written: count, last, ..Done::default() })
            }
            OnConflict::Fail => {
                kv.batch_put(batch.iter().map(|record| put(record).if_absent())).await?;
                Ok(Done { written: count, last, ..Done::default() })
            }
            OnConflict::Skip => {
                let written = write_absent(kv, batch).await?;
                Ok(Done { written, skipped: count - written, last, ..Done::default() })
            }
        }
    }
}

/// Writes those that are not there; how many.
async fn write_absent(kv: &Kv, mut batch: Vec<Record>) -> Result<u64, Failure> {
    loop {
        if batch.is_empty() {
            return Ok(0);
        }
        match kv.batch_put(batch.iter().map(|record| put(record).if_absent())).await {
            Ok(_) => return Ok(batch.len() as u64),
            Err(Error::PreconditionFailed(_)) => {
                let there = there(kv, &batch).await?;
                batch.retain(|record| !there.contains(&record.key));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Those of the keys that are there.
async fn there(kv: &Kv, batch: &[Record]) -> Result<Vec<String>, Failure> {
    let mut there = Vec::new();
    let mut parts = vec![batch];
    while let Some(part) = parts.pop() {
        match kv.batch_get(part.iter().map(|record| record.key.clone())).await {
            Ok(found) => there.extend(found.entries.into_iter().map(|entry| entry.key)),
            // Their values come along, and an answer is bounded.
            Err(error) if error.reason() == Some("ANSWER_TOO_LARGE") && part.len() > 1 => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([first, second]);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(there)
}

fn put(record: &Record) -> PutOperation {
    PutOperation::new(&record.key, record.value.clone())
        .flags(record.flags)
        .content_type(&record.content_type)
}

impl Imported {
    fn add(&mut self, done: Done) {
        self.count(done.written, done.skipped, done.overwritten, done.last);
    }
}
