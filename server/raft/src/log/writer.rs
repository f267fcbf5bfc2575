//! The thread that writes the log. What waits when it is free goes out as one write and one sync; then
//! everybody who waited is told.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use raft_engine::{Command, LogBatch};
use tokio::sync::{mpsc, oneshot};

use crate::disk::is_out_of_space;
use crate::health::Health;
use crate::log::frame::{Frame, Frames};
use crate::log::recent::Recent;
use crate::log::{Engine, REGION, marks};
use crate::space::{Space, Waits};
use crate::stats::Stats;
use crate::threads::Worker;
use crate::types::{LogId, RaftEntry, Types, Vote, entry_bytes};

/// Most bytes of entries in one write.
const MAX_WRITE_BYTES: usize = 32 << 20;
/// How long to wait before trying again for space.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// What is asked of the thread, in the order it was asked.
pub(crate) enum Job {
    /// Write entries.
    Append { entries: Vec<RaftEntry>, done: IOFlushed<Types> },
    /// Write a vote.
    Vote { vote: Vote, done: oneshot::Sender<io::Result<()>> },
    /// Forget the entries after `last`.
    Truncate { last: Option<LogId>, done: oneshot::Sender<io::Result<()>> },
    /// Forget the entries up to `upto`, and free their files.
    Purge { upto: LogId, done: oneshot::Sender<io::Result<()>> },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { entries, .. } => entries.iter().map(entry_bytes).sum(),
            Self::Vote { .. } | Self::Truncate { .. } | Self::Purge { .. } => 64,
        }
    }

    fn finish(self, result: io::Result<()>) {
        match self {
            Self::Append { done, .. } => done.io_completed(result),
            // Whoever asked may have gone away.
            Self::Vote { done, .. } | Self::Truncate { done, .. } | Self::Purge { done, .. } => {
                done.send(result).unwrap_or_default();
            }
        }
    }
}

/// What the thread works with.
pub(crate) struct Writer {
    pub(crate) engine: Arc<Engine>,
    /// Whether a sync failed; see [`LogFiles::failed`](crate::log::files::LogFiles::failed).
    pub(crate) failed: Arc<AtomicBool>,
    pub(crate) recent: Arc<Mutex<Recent>>,
    pub(crate) space: Arc<Space>,
    pub(crate) health: Arc<Health>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) stopping: Arc<AtomicBool>,
    /// The committed entry that was last written.
    pub(crate) committed: Option<LogId>,
    /// Whether the mark of a truncated end is set.
    pub(crate) has_end: bool,
}

impl Worker for Writer {
    type Job = Job;

    fn work(&mut self, first: Job, waiting: &mut mpsc::Receiver<Job>) {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while bytes < MAX_WRITE_BYTES
            && let Ok(job) = waiting.try_recv()
        {
            bytes += job.bytes();
            batch.push(job);
        }
        let result = self.write(&batch);
        if let Err(error) = &result {
            self.health.break_down(format!("the log could not be written: {error}"));
            self.recent.lock().fail();
        }
        for job in batch {
            job.finish(copy(&result));
        }
    }

    fn end(self) {}
}

impl Writer {
    fn write(&mut self, jobs: &[Job]) -> io::Result<()> {
        if let Some(error) = self.health.broken() {
            return Err(io::Error::other(error));
        }
        let began = Instant::now();
        let committed = self.recent.lock().committed;
        let written = loop {
            let mut batch = self.batch(jobs, committed).map_err(from_engine)?;
            match self.write_batch(&mut batch) {
                Err(error) if is_out_of_space(&error) && !self.stopping.load(Ordering::Acquire) => {
                    self.space.set_waiting(Waits::Log, true);
                    std::thread::sleep(RETRY_EVERY);
                }
                result => break result?,
            }
        };
        self.space.set_waiting(Waits::Log, false);
        self.stats.append_us.record_us(began.elapsed());
        self.stats.log_written_bytes.fetch_add(written as u64, Ordering::Relaxed);
        self.settle(jobs, committed);
        Ok(())
    }

    /// Writes and syncs. raft-engine panics where it can't go on, and then neither can this member.
    fn write_batch(&self, batch: &mut LogBatch) -> io::Result<usize> {
        let written = catch_unwind(AssertUnwindSafe(|| self.engine.write(batch, true)));
        let written = written.unwrap_or_else(|_| {
            self.failed.store(true, Ordering::Release);
            Err(io::Error::other("the log panicked").into())
        });
        match self.failed.load(Ordering::Acquire) {
            true => Err(io::Error::other("a sync of it failed")),
            false => written.map_err(from_engine),
        }
    }

    fn batch(&self, jobs: &[Job], committed: Option<LogId>) -> raft_engine::Result<LogBatch> {
        let mut batch = LogBatch::default();
        let mut has_end = self.has_end;
        for job in jobs {
            match job {
                Job::Append { entries, .. } => {
                    let frames: Vec<_> = entries.iter().cloned().map(Frame::new).collect();
                    batch.add_entries::<Frames>(REGION, &frames)?;
                    if std::mem::take(&mut has_end) {
                        marks::delete_end(&mut batch);
                    }
                }
                Job::Vote { vote, .. } => marks::put_vote(&mut batch, vote)?,
                Job::Truncate { last, .. } => {
                    marks::put_end(&mut batch, last.as_ref())?;
                    has_end = true;
                }
                Job::Purge { upto, .. } => {
                    batch.add_command(REGION, Command::Compact { index: upto.index + 1 });
                    marks::put_purged(&mut batch, upto)?;
                }
            }
        }
        if let Some(committed) = committed
            && self.committed != Some(committed)
        {
            marks::put_committed(&mut batch, &committed)?;
        }
        Ok(batch)
    }

    /// Notes what has become durable.
    fn settle(&mut self, jobs: &[Job], committed: Option<LogId>) {
        self.committed = committed;
        let mut purged = false;
        for job in jobs {
            match job {
                Job::Append { entries, .. } => {
                    self.has_end = false;
                    if let Some(entry) = entries.last() {
                        self.recent.lock().durable(entry.log_id);
                    }
                }
                Job::Truncate { .. } => self.has_end = true,
                Job::Purge { .. } => purged = true,
                Job::Vote { .. } => {}
            }
        }
        if purged && let Err(error) = self.engine.purge_expired_files() {
            tracing::warn!(%error, "old log files could not be removed; the next purge tries again");
        }
    }
}

fn copy(result: &io::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

pub(crate) fn from_engine(error: raft_engine::Error) -> io::Error {
    match error {
        raft_engine::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
