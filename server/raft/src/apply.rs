//! Applying, through the only handle that writes the state. A run of entries is one transaction; after its commit
//! the Batches are published, and only then anybody is answered. Runs are applied on a thread of their own, but
//! those of a few rows where they come in: two switches of threads would cost more than they do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use konsul_state::propose::BatchSink;
use konsul_state::snapshot::{Plan, Replacement, Retired};
use konsul_state::store::{Entry, Payload as StatePayload};
use konsul_state::{Command, CommandGroup, LogPosition, Run, StateError, StateWriter};
use openraft::storage::ApplyResponder;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::hashes::Hashes;
use crate::health::Health;
use crate::log::LogReader;
use crate::snapshots::{SnapshotDir, Snapshots};
use crate::space::{Space, Waits};
use crate::stats::Stats;
use crate::threads::Worker;
use crate::types::{Payload, RaftEntry, Types, encode_membership, entry_bytes, invalid, position};

/// How long to wait before trying again for space.
const RETRY_EVERY: Duration = Duration::from_millis(50);

/// Most bytes of entries that are applied to a copy at a time.
const MAX_CATCH_UP_BYTES: usize = 4 << 20;
/// Most Commands, and bytes of them, that are applied where they come in.
const MAX_COMMANDS_HERE: usize = 4;
const MAX_BYTES_HERE: usize = 16 << 10;
/// A run that takes longer than this where it came in held up everything else there: the kernel makes writers to a
/// mapped file wait for a slow disk, and a virtual processor may be taken away.
const SLOW: Duration = Duration::from_millis(2);
/// When such runs have taken so much of a period, the others of that period are left to the thread.
const MAX_SLOW: Duration = Duration::from_millis(50);
const PERIOD: Duration = Duration::from_secs(10);

/// A run of committed entries, with whom to tell how each came out.
pub(crate) type Entries = Vec<(RaftEntry, Option<ApplyResponder<Types>>)>;

/// What is asked of the thread.
pub(crate) enum Work {
    /// Apply these entries.
    Apply { entries: Entries, done: oneshot::Sender<io::Result<()>> },
    /// Replace the state by this copy.
    Install { from: PathBuf, done: oneshot::Sender<io::Result<()>> },
    /// Wait for a snapshot, and replace the state by it; it is no older than the state.
    Resync { from: oneshot::Receiver<SnapshotDir>, done: oneshot::Sender<io::Result<()>> },
    /// Say where a copy of the state is to be put together that will take its place.
    Plan { done: oneshot::Sender<io::Result<Plan>> },
    /// Bring a copy of the state up to date, and let it take its place.
    Replace { replacement: Replacement, log: LogReader, done: oneshot::Sender<io::Result<Retired>> },
    /// Say what is applied, and the last membership.
    Applied { done: oneshot::Sender<io::Result<Applied>> },
}

/// What is applied, and the last membership with its position.
pub(crate) type Applied = (LogPosition, Option<(LogPosition, Bytes)>);

/// What applies.
pub(crate) struct Applier {
    /// `None` once it is closed. openraft hands in one run at a time, so nobody ever waits for it.
    pub(crate) writer: Mutex<Option<StateWriter>>,
    /// Whether brief runs may be applied where they come in: not if every commit waits for the disk.
    pub(crate) may_apply_here: bool,
    /// When the present period began, and what slow runs have taken of it.
    pub(crate) slow: Mutex<(Instant, Duration)>,
    pub(crate) sink: Arc<dyn BatchSink>,
    pub(crate) space: Arc<Space>,
    pub(crate) health: Arc<Health>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) stopping: Arc<AtomicBool>,
    /// The index of the last entry applied and published.
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) growth: Arc<Growth>,
    pub(crate) hashes: Arc<Hashes>,
    pub(crate) snapshots: Snapshots,
    /// Entries up to this one are in a state that was taken from another member; 0: there is none.
    pub(crate) skip_upto: AtomicU64,
}

/// How much was applied since the last snapshot, and the call for another one.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    pub(crate) bytes: AtomicU64,
    pub(crate) threshold: AtomicU64,
    pub(crate) exceeded: Notify,
}

impl Growth {
    pub(crate) fn add(&self, bytes: u64) {
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total >= self.threshold.load(Ordering::Relaxed) {
            self.exceeded.notify_one();
        }
    }
}

impl Worker for Arc<Applier> {
    type Job = Work;

    fn work(&mut self, work: Work, _: &mut mpsc::Receiver<Work>) {
        let mut writer = self.writer.lock();
        // It is taken at the end and nowhere else.
        let Some(writer) = writer.as_mut() else { return };
        // Whoever asked may have gone away.
        match work {
            Work::Apply { entries, done } => {
                done.send(self.apply(writer, entries)).unwrap_or_default();
            }
            Work::Install { from, done } => {
                done.send(self.install(writer, &from)).unwrap_or_default();
            }
            Work::Resync { from, done } => {
                done.send(self.resync(writer, from)).unwrap_or_default();
            }
            Work::Plan { done } => {
                // Whoever asked may have gone away.
                let _ = done.send(writer.plan().map_err(io::Error::other));
            }
            Work::Replace { mut replacement, log, done } => {
                let replaced = catch_up(&mut replacement, &log, writer.state().applied().index);
                let replaced = replaced.and_then(|()| writer.replace(replacement).map_err(io::Error::other));
                let _ = done.send(replaced);
            }
            Work::Applied { done } => {
                let applied = || Ok((writer.state().view()?.applied(), writer.membership()?));
                done.send(applied().map_err(|e: StateError| self.broken(&e))).unwrap_or_default();
            }
        }
    }

    /// Closes the state.
    fn end(self) {
        let writer = self.writer.lock().take();
        // A state that failed must not be trusted by the next start only because it was closed.
        if self.health.broken().is_none()
            && let Some(writer) = writer
            && let Err(error) = writer.close()
        {
            tracing::error!(%error, "the state was not closed cleanly; the next start checks it");
        }
    }
}

impl Applier {
    /// Applies a run on the calling thread if that is a matter of microseconds; otherwise gives it back, for the
    /// thread.
    pub(crate) fn apply_here(&self, entries: Entries) -> Result<io::Result<()>, Entries> {
        let may_apply_here = self.may_apply_here && self.skip_upto.load(Ordering::Relaxed) == 0;
        if !may_apply_here || !is_short(&entries) || self.was_slow() {
            return Err(entries);
        }
        let decoded = entries.iter().map(|(entry, _)| decode(entry)).collect::<io::Result<Vec<_>>>();
        // The thread says what is wrong with what does not decode.
        let Some(decoded) = decoded.ok().filter(|run| run.iter().all(Entry::is_brief)) else {
            return Err(entries);
        };
        let Some(mut writer) = self.writer.try_lock() else { return Err(entries) };
        let Some(writer) = writer.as_mut().filter(|_| self.health.broken().is_none()) else {
            return Err(entries);
        };
        let began = Instant::now();
        match writer.apply(decoded) {
            Ok(run) => self.finish(began, entries, run),
            // The thread can wait for space.
            Err(error) if error.is_out_of_space() => return Err(entries),
            Err(error) => return Ok(Err(self.broken(&error))),
        }
        let took = began.elapsed();
        if took > SLOW {
            self.slow.lock().1 += took;
        }
        Ok(Ok(()))
    }

    fn was_slow(&self) -> bool {
        let mut slow = self.slow.lock();
        if slow.0.elapsed() > PERIOD {
            *slow = (Instant::now(), Duration::ZERO);
        }
        slow.1 > MAX_SLOW
    }

    fn apply(&self, writer: &mut StateWriter, mut entries: Entries) -> io::Result<()> {
        let began = Instant::now();
        // A state that was taken from another member may be ahead of what openraft hands out here.
        let skip_upto = self.skip_upto.load(Ordering::Relaxed);
        if skip_upto > 0 {
            entries.retain(|(entry, _)| entry.log_id.index > skip_upto);
            if !entries.is_empty() {
                self.skip_upto.store(0, Ordering::Relaxed);
            }
        }
        let run = self.commit(writer, &entries)?;
        self.finish(began, entries, run);
        Ok(())
    }

    /// Publishes what was committed, then answers.
    fn finish(&self, began: Instant, entries: Entries, run: Run) {
        if let Some(revision) = run.restored {
            self.sink.reset(revision);
        }
        self.sink.publish(&run.batches);
        self.hashes.note(&run.hashes);
        let bytes: usize = entries.iter().map(|(entry, _)| entry_bytes(entry)).sum();
        if let Some((last, _)) = entries.last() {
            self.applied.send_replace(last.log_id.index);
        }
        for ((_, responder), outcomes) in entries.into_iter().zip(run.outcomes) {
            if let Some(responder) = responder {
                responder.send(outcomes);
            }
        }
        self.stats.apply_us.record_us(began.elapsed());
        self.growth.add(bytes as u64);
        self.space.wrote(bytes as u64);
    }

    /// Commits a run of entries. They are durable in the log, so when space is short they wait until there is
    /// some; any other failure means that this member can't go on.
    fn commit(&self, writer: &mut StateWriter, entries: &Entries) -> io::Result<Run> {
        loop {
            if let Some(error) = self.health.broken() {
                return Err(io::Error::other(error));
            }
            let decoded = entries.iter().map(|(entry, _)| decode(entry)).collect::<io::Result<Vec<_>>>();
            let decoded = decoded.map_err(|e| self.broken(&e))?;
            match writer.apply(decoded) {
                Ok(run) => {
                    self.space.set_waiting(Waits::State, false);
                    return Ok(run);
                }
                Err(error) if error.is_out_of_space() && !self.stopping.load(Ordering::Acquire) => {
                    self.space.set_waiting(Waits::State, true);
                    std::thread::sleep(RETRY_EVERY);
                }
                // Stopping while out of space: the entries stay in the log, and are applied after the next start.
                Err(error) if error.is_out_of_space() => return Err(io::Error::other(error)),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    fn install(&self, writer: &mut StateWriter, from: &std::path::Path) -> io::Result<()> {
        writer.install(from).map_err(|e| self.broken(&e))?;
        self.replaced(writer)
    }

    /// Takes the state of another member. If there is none to be had, everything stays as it is.
    fn resync(&self, writer: &mut StateWriter, from: oneshot::Receiver<SnapshotDir>) -> io::Result<()> {
        let gone = || io::Error::other("no snapshot could be fetched");
        let snapshot = from.blocking_recv().map_err(|_| gone())?;
        let (theirs, mine) = (snapshot.applied.index, writer.state().applied().index);
        if theirs < mine {
            return Err(io::Error::other(format!(
                "the leader's state is at {theirs}, and this one at {mine}"
            )));
        }
        // The log may not reach as far yet: then a restart begins with the snapshot.
        let snapshot = self.snapshots.adopt(&snapshot).map_err(io::Error::other)?;
        writer.install(&snapshot.path).map_err(|e| self.broken(&e))?;
        self.skip_upto.store(theirs, Ordering::Relaxed);
        self.replaced(writer)
    }

    fn replaced(&self, writer: &StateWriter) -> io::Result<()> {
        self.hashes.clear();
        let view = writer.state().view().map_err(|e| self.broken(&e))?;
        self.sink.reset(view.revision());
        self.applied.send_replace(view.applied().index);
        self.growth.bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> io::Error {
        self.health.break_down(format!("the state could not be written: {error}"));
        io::Error::other(error.to_string())
    }
}

/// Applies the log's entries to a copy of the state, up to one that the state has.
pub(crate) fn catch_up(replacement: &mut Replacement, log: &LogReader, upto: u64) -> io::Result<()> {
    loop {
        let next = replacement.applied().map_err(io::Error::other)?.index + 1;
        if next > upto {
            return Ok(());
        }
        let entries = log.read(next..upto + 1, MAX_CATCH_UP_BYTES)?;
        let is_next = entries.first().is_some_and(|entry| entry.log_id.index == next);
        if !is_next {
            return Err(invalid(format!("the log has no entry {next} any more")));
        }
        let entries = entries.iter().map(decode).collect::<io::Result<Vec<_>>>()?;
        replacement.catch_up(entries).map_err(io::Error::other)?;
    }
}

/// Whether a run has few enough Commands to ask how much each of them does.
fn is_short(entries: &Entries) -> bool {
    let (mut commands, mut bytes) = (0, 0);
    for (entry, _) in entries {
        if let Payload::Normal(group) = &entry.payload {
            commands += group.commands().len();
        }
        bytes += entry_bytes(entry);
    }
    commands <= MAX_COMMANDS_HERE && bytes <= MAX_BYTES_HERE
}

fn decode(entry: &RaftEntry) -> io::Result<Entry> {
    let payload = match &entry.payload {
        Payload::Blank => StatePayload::Blank,
        Payload::Membership(membership) => StatePayload::Membership(encode_membership(membership)),
        Payload::Normal(group) => {
            let commands = group.commands().iter().map(|bytes| Command::decode(bytes.clone()));
            let commands = commands.collect::<Result<Vec<_>, _>>();
            let index = entry.log_id.index;
            let commands =
                commands.map_err(|e| invalid(format!("log entry {index} does not decode: {e}")))?;
            StatePayload::Commands(CommandGroup { commands })
        }
    };
    Ok(Entry { position: position(&entry.log_id), payload })
}
