//! openraft's view of the state: it collects committed entries into runs for the thread that applies, and
//! makes and installs snapshots. Nothing here touches the state itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use konsul_state::State;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::apply::{Applier, Entries, Growth, Work};
use crate::copy::Pace;
use crate::snapshots::{SnapshotDir, Snapshots, stored_membership};
use crate::stats::Stats;
use crate::threads::Threads;
use crate::types::{LogId, Snapshot, SnapshotMeta, StoredMembership, Types, applied_id, entry_bytes};

/// Most entries in one transaction.
const MAX_RUN_ENTRIES: usize = 256;
/// About how many bytes of entries one transaction takes at most.
const MAX_RUN_BYTES: usize = 16 << 20;

/// The state, for openraft.
pub(crate) struct Machine {
    pub(crate) works: mpsc::Sender<Work>,
    pub(crate) applier: Arc<Applier>,
    pub(crate) builder: Builder,
    /// How far the log is durable.
    pub(crate) durable_end: watch::Receiver<u64>,
}

/// Makes snapshots.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) state: State,
    pub(crate) snapshots: Snapshots,
    pub(crate) pace: Pace,
    pub(crate) threads: Threads,
    pub(crate) growth: Arc<Growth>,
    pub(crate) stats: Arc<Stats>,
    /// A snapshot that is made and that openraft has yet to hear of.
    pub(crate) ready: Arc<Mutex<Option<SnapshotDir>>>,
    /// Held while one is made.
    pub(crate) making: Arc<tokio::sync::Mutex<()>>,
}

impl Builder {
    /// Makes a snapshot.
    pub(crate) async fn make(&self) -> io::Result<SnapshotDir> {
        let _making = self.making.lock().await;
        let Self { state, snapshots, growth, stats, pace, threads, .. } = self.clone();
        let make = move || {
            let began = Instant::now();
            let before = growth.bytes.load(Ordering::Relaxed);
            let snapshot = snapshots.make(&state, &pace).map_err(io::Error::other)?;
            growth.bytes.fetch_sub(before, Ordering::Relaxed);
            let took_ms = began.elapsed().as_millis() as u64;
            stats.snapshots.fetch_add(1, Ordering::Relaxed);
            stats.snapshot_ms.store(took_ms, Ordering::Relaxed);
            tracing::info!(index = snapshot.applied.index, took_ms, "made a snapshot");
            Ok(snapshot)
        };
        threads.run("snapshot", make).await
    }
}

impl Machine {
    /// Waits until this member's own log has the entries of a run on its disk. openraft applies what a quorum has, and this
    /// member may be none of it; but a state that is ahead of its log can't be told from a log that lost its end.
    async fn wait_for_log(&mut self, run: &Entries) -> io::Result<()> {
        let Some((last, _)) = run.last() else { return Ok(()) };
        let durable = self.durable_end.wait_for(|end| *end > last.log_id.index).await;
        durable.map(|_| ()).map_err(|_| io::Error::other("the log could not be written"))
    }

    async fn ask<T>(&self, work: Work, answer: oneshot::Receiver<io::Result<T>>) -> io::Result<T> {
        self.works.send(work).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the state has been closed")
}

fn openraft_snapshot(snapshot: SnapshotDir) -> io::Result<Snapshot<SnapshotDir>> {
    Ok(Snapshot { meta: snapshot.meta()?, snapshot })
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let (done, answer) = oneshot::channel();
        let (applied, membership) = self.ask(Work::Applied { done }, answer).await?;
        Ok((applied_id(applied), stored_membership(membership.as_ref())?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut next = entries.next().await;
        while next.is_some() {
            let mut run = Vec::new();
            let mut bytes = 0;
            while let Some(entry) = next {
                let entry = entry?;
                bytes += entry_bytes(&entry.0);
                run.push(entry);
                next = entries.next().await;
                if run.len() >= MAX_RUN_ENTRIES || bytes >= MAX_RUN_BYTES {
                    break;
                }
            }
            self.wait_for_log(&run).await?;
            match self.applier.apply_here(run) {
                Ok(applied) => applied?,
                Err(entries) => {
                    let (done, answer) = oneshot::channel();
                    self.ask(Work::Apply { entries, done }, answer).await?;
                }
            }
        }
        Ok(())
    }

    /// openraft takes the failure of a snapshot for the failure of the member, but a snapshot may fail for lack
    /// of space. So it is made first, and openraft is asked for one when there is one.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let has_one = self.builder.ready.lock().is_some();
        (force || has_one).then(|| self.builder.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotDir) -> io::Result<()> {
        let snapshots = self.builder.snapshots.clone();
        // Both take as long as the snapshot is big, which must not hold up the runtime's other work.
        let adopt = move || {
            snapshot.verify().map_err(io::Error::other)?;
            snapshots.adopt(&snapshot).map_err(io::Error::other)
        };
        let snapshot = self.builder.threads.run("snapshot-check", adopt).await?;
        let (done, answer) = oneshot::channel();
        self.ask(Work::Install { from: snapshot.path, done }, answer).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<SnapshotDir>>> {
        let newest = self.builder.snapshots.newest().map_err(io::Error::other)?;
        newest.map(openraft_snapshot).transpose()
    }
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<SnapshotDir>> {
        let ready = self.ready.lock().take();
        let snapshot = match ready {
            Some(ready) => ready,
            None => self.make().await?,
        };
        openraft_snapshot(snapshot)
    }
}
