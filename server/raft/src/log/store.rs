//! Opening the log, and openraft's view of it. Reading takes from memory what is there; writing hands over to
//! the one thread that writes.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::{Mutex, RwLock};
use raft_engine::{Config, ReadableSize, RecoveryMode};
use tokio::sync::{mpsc, oneshot, watch};

use crate::disk::Disk;
use crate::error::RaftError;
use crate::health::Health;
use crate::log::files::LogFiles;
use crate::log::frame::Frames;
use crate::log::marks::Marks;
use crate::log::recent::Recent;
use crate::log::spare::Spares;
use crate::log::writer::{Job, Writer, from_engine};
use crate::log::{Engine, REGION, damage};
use crate::space::Space;
use crate::stats::Stats;
use crate::threads::{Threads, Working};
use crate::types::{LogId, Membership, Payload, RaftEntry, Types, Vote};

/// Requests that may wait for the writing thread.
const MAX_JOBS: usize = 1024;
/// About how many bytes of entries are read from the disk at once.
const MAX_READ_BYTES: usize = 4 << 20;

/// How to open a log.
pub(crate) struct LogOptions {
    pub(crate) dir: PathBuf,
    pub(crate) file_bytes: u64,
    /// Bytes of entries kept in memory, and so in the log after a purge.
    pub(crate) keep_bytes: usize,
    pub(crate) reserve_bytes: u64,
    pub(crate) synced: bool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) threads: Threads,
    pub(crate) stats: Arc<Stats>,
    pub(crate) health: Arc<Health>,
    pub(crate) space: Arc<Space>,
}

/// The log. The thread that writes ends when all clones are gone.
#[derive(Clone)]
pub(crate) struct Log {
    reader: LogReader,
    jobs: mpsc::Sender<Job>,
}

/// Reads the log.
#[derive(Clone)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    /// None when the log is closed, so that its files are.
    engine: RwLock<Option<Arc<Engine>>>,
    recent: Arc<Mutex<Recent>>,
    spares: Option<Arc<Spares>>,
    stopping: Arc<AtomicBool>,
    /// What the thread begins with, until it is started.
    idle: Mutex<Option<(Writer, mpsc::Receiver<Job>)>>,
    threads: Threads,
    writing: Mutex<Option<Working>>,
}

/// A log as it was found.
struct Opened {
    engine: Arc<Engine>,
    failed: Arc<AtomicBool>,
    marks: Marks,
    last: Option<LogId>,
}

impl Log {
    /// Opens the log, or makes it. Nothing on the disk changes when that fails.
    pub(crate) fn open(options: LogOptions) -> Result<Self, RaftError> {
        let dir = &options.dir;
        fs::create_dir_all(dir).map_err(RaftError::file(dir))?;
        let new_spares = || Spares::new(dir, options.file_bytes, options.reserve_bytes, options.disk.clone());
        let spares = options.synced.then(new_spares);
        let Opened { engine, failed, marks, last } = Self::open_engine(&options, spares.clone())?;
        let mut recent = Recent::new(options.keep_bytes, marks.purged, last);
        (recent.vote, recent.committed) = (marks.vote, marks.committed);
        let shared = Arc::new(Shared {
            dir: dir.clone(),
            engine: RwLock::new(Some(engine.clone())),
            recent: Arc::new(Mutex::new(recent)),
            spares,
            stopping: Arc::default(),
            idle: Mutex::default(),
            threads: options.threads,
            writing: Mutex::default(),
        });
        let writer = Writer {
            engine,
            failed,
            recent: shared.recent.clone(),
            space: options.space,
            health: options.health,
            stats: options.stats,
            stopping: shared.stopping.clone(),
            committed: marks.committed,
            has_end: marks.end.is_some(),
        };
        let (jobs, waiting) = mpsc::channel(MAX_JOBS);
        *shared.idle.lock() = Some((writer, waiting));
        Ok(Self { reader: LogReader { shared }, jobs })
    }

    fn open_engine(options: &LogOptions, spares: Option<Arc<Spares>>) -> Result<Opened, RaftError> {
        let dir =
            options.dir.to_str().ok_or_else(|| RaftError::log("the data directory's name is not UTF-8"))?;
        let files =
            Arc::new(LogFiles::new(options.disk.clone(), spares, options.stats.clone(), options.synced));
        let config = Config {
            dir: dir.to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: 2,
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(options.file_bytes),
            // Two files are enough to begin purging, which a snapshot has to precede anyway.
            purge_threshold: ReadableSize(options.file_bytes),
            // Files are taken back by `Spares`, which also keeps them over a restart.
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = Engine::open_with_file_system(config, files.clone())
            .map_err(|e| RaftError::log(format!("the log is damaged or unreadable: {e}")))?;
        for (path, at) in files.cuts() {
            if damage::has_record_after(&*options.disk, &path, at).map_err(RaftError::file(&path))? {
                let path = path.display();
                return Err(RaftError::log(format!(
                    "the log is damaged: {path} has a broken record at byte {at}"
                )));
            }
        }
        let marks = Marks::read(&engine).map_err(|e| RaftError::log(format!("the log is damaged: {e}")))?;
        let last = last_entry(&engine, &marks)?;
        Ok(Opened { engine: Arc::new(engine), failed: files.failed(), marks, last })
    }

    /// Starts the threads. Apart from `open`, because what is opened may yet be found unusable.
    pub(crate) fn start(&self) -> Result<(), RaftError> {
        let shared = &self.reader.shared;
        if let Some(spares) = &shared.spares {
            spares.start(shared.threads).map_err(RaftError::file(&shared.dir))?;
        }
        if let Some((writer, waiting)) = shared.idle.lock().take() {
            let working = shared.threads.start("log-writer", writer, waiting);
            *shared.writing.lock() = Some(working.map_err(RaftError::file(&shared.dir))?);
        }
        Ok(())
    }

    /// The handle that reads.
    pub(crate) fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    async fn ask(&self, job: Job, answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl LogReader {
    /// The last entry, and the last that was purged.
    pub(crate) fn bounds(&self) -> (Option<LogId>, Option<LogId>) {
        let recent = self.shared.recent.lock();
        (recent.last, recent.purged)
    }

    /// The last vote given.
    pub(crate) fn vote(&self) -> Option<Vote> {
        self.shared.recent.lock().vote
    }

    /// The newest membership in the log.
    pub(crate) fn last_membership(&self) -> io::Result<Option<Membership>> {
        let (last, purged) = self.bounds();
        let after = |id: Option<LogId>| id.map_or(0, |id| id.index + 1);
        let (mut next, end) = (after(purged), after(last));
        let mut found = None;
        while next < end {
            let entries = self.read(next..end, MAX_READ_BYTES)?;
            next = entries.last().map_or(end, |entry| entry.log_id.index + 1);
            let memberships = entries.into_iter().filter_map(|entry| match entry.payload {
                Payload::Membership(membership) => Some(membership),
                Payload::Blank | Payload::Normal(_) => None,
            });
            found = memberships.last().or(found);
        }
        Ok(found)
    }

    /// The index of the oldest entry that is held in memory.
    pub(crate) fn first_in_memory(&self) -> u64 {
        self.shared.recent.lock().first()
    }

    /// Follows how far the log is durable: before which index. It ends when nothing more will be.
    pub(crate) fn follow_durable(&self) -> watch::Receiver<u64> {
        self.shared.recent.lock().follow()
    }

    /// Bytes of the log on disk, with its spare files.
    pub(crate) fn disk_bytes(&self) -> u64 {
        directory_bytes(&self.shared.dir).unwrap_or_default()
    }

    /// Lets entries that wait for space go. Nobody was told that they are durable.
    pub(crate) fn give_up_waiting(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }

    /// Waits for the threads, which end when nobody can write any more.
    pub(crate) async fn join(&self) {
        self.give_up_waiting();
        let writing = self.shared.writing.lock().take();
        if let Some(writing) = writing {
            writing.join().await;
        }
        self.shared.engine.write().take();
        if let Some(spares) = &self.shared.spares {
            spares.stop().await;
        }
    }

    /// Reads the whole log, to find an entry that is not what was written before anything builds on the others.
    ///
    /// # Errors
    /// [`RaftError::Log`] when there is one.
    pub(crate) fn verify(&self) -> Result<(), RaftError> {
        let (last, purged) = self.bounds();
        let after = |id: Option<LogId>| id.map_or(0, |id| id.index + 1);
        let (mut next, end) = (after(purged), after(last));
        while next < end {
            let damaged = |what: &dyn Debug| {
                RaftError::log(format!("the log is damaged: entry {next} or one after it: {what:?}"))
            };
            match self.read(next..end, MAX_READ_BYTES) {
                Ok(entries) if entries.is_empty() => return Err(damaged(&"missing")),
                Ok(entries) => next += entries.len() as u64,
                Err(error) => return Err(damaged(&error.to_string())),
            }
        }
        Ok(())
    }

    /// The entries of a range, as many as there are, until about so many bytes are reached.
    pub(crate) fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<RaftEntry>> {
        let (range, in_memory) = {
            let recent = self.shared.recent.lock();
            let range = recent.clamp(range);
            let copied = recent.copy(recent.first().clamp(range.start, range.end)..range.end);
            (range, copied)
        };
        let disk_end = range.end - in_memory.len() as u64;
        if range.start >= disk_end {
            return Ok(in_memory);
        }
        let mut frames = Vec::new();
        let engine = self.shared.engine.read().clone().ok_or_else(stopped)?;
        engine
            .fetch_entries_to::<Frames>(REGION, range.start, disk_end, Some(max_bytes), &mut frames)
            .map_err(from_engine)?;
        let is_all = frames.len() as u64 == disk_end - range.start;
        let mut entries = frames.into_iter().map(|f| f.into_entry()).collect::<io::Result<Vec<_>>>()?;
        if is_all {
            entries.extend(in_memory);
        }
        Ok(entries)
    }
}

/// The last entry of the log: the end mark where it was truncated, otherwise what was written last.
fn last_entry(engine: &Engine, marks: &Marks) -> Result<Option<LogId>, RaftError> {
    if let Some(end) = marks.end {
        return Ok(end.max(marks.purged));
    }
    let Some(index) = engine.last_index(REGION) else { return Ok(marks.purged) };
    let frame = engine
        .get_entry::<Frames>(REGION, index)
        .map_err(|e| RaftError::log(format!("the log is damaged: {e}")))?
        .ok_or_else(|| RaftError::log("the log is damaged: its last entry is missing"))?;
    let entry =
        frame.into_entry().map_err(|e| RaftError::log(format!("the log's last entry is damaged: {e}")))?;
    Ok(Some(entry.log_id).max(marks.purged))
}

fn directory_bytes(dir: &Path) -> io::Result<u64> {
    fs::read_dir(dir)?.map(|found| Ok(found?.metadata()?.len())).sum()
}

fn stopped() -> io::Error {
    io::Error::other("the log has been stopped")
}

fn limits(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(at) => *at,
        Bound::Excluded(at) => at + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(at) => at + 1,
        Bound::Excluded(at) => *at,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

impl RaftLogReader<Types> for LogReader {
    async fn try_get_log_entries<R>(&mut self, range: R) -> io::Result<Vec<RaftEntry>>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(limits(&range), usize::MAX)
    }

    /// Reads in pieces, so that a long log is never in memory as a whole.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<RaftEntry>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let mut rest = limits(&range);
        let mut ready = Vec::new().into_iter();
        futures_util::stream::iter(std::iter::from_fn(move || {
            if let Some(entry) = ready.next() {
                return Some(Ok(entry));
            }
            if rest.is_empty() {
                return None;
            }
            match self.read(rest.clone(), MAX_READ_BYTES) {
                Ok(entries) => {
                    rest.start = entries.last().map_or(rest.end, |entry: &RaftEntry| entry.log_id.index + 1);
                    ready = entries.into_iter();
                    ready.next().map(Ok)
                }
                Err(error) => {
                    rest.start = rest.end;
                    Some(Err(error))
                }
            }
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<RaftEntry>> {
        self.read(start..end, MAX_READ_BYTES)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.recent.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let (last_log_id, last_purged_log_id) = self.reader.bounds();
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.ask(Job::Vote { vote: *vote, done }, answer).await?;
        self.reader.shared.recent.lock().vote = Some(*vote);
        Ok(())
    }

    /// Only remembered, and written with the next entries: it is a lower bound that spares replication a
    /// round after a restart, and a write of its own would cost a sync.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.reader.shared.recent.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.reader.shared.recent.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        {
            let mut recent = self.reader.shared.recent.lock();
            entries.iter().for_each(|entry| recent.push(entry.clone()));
        }
        self.jobs.send(Job::Append { entries, done }).await.map_err(|_| stopped())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.reader.shared.recent.lock().truncate_after(last);
        let (done, answer) = oneshot::channel();
        self.ask(Job::Truncate { last, done }, answer).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.reader.shared.recent.lock().purge(upto);
        let (done, answer) = oneshot::channel();
        self.ask(Job::Purge { upto, done }, answer).await
    }
}
