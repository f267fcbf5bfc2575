//! Decides when a snapshot is due, by bytes rather than by entries and by age, and has the log purged behind it; and when the state's
//! file is to be shrunk.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::apply::Work;
use crate::log::LogReader;
use crate::machine::Builder;
use crate::proposer::Raft;
use crate::space::Space;
use crate::types::log_id;

/// How long to wait after a snapshot that could not be made.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// How often to look whether the state's file should be shrunk.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Makes snapshots when enough was applied since the last one.
pub(crate) struct Keeper {
    pub(crate) raft: Raft,
    pub(crate) log: LogReader,
    pub(crate) builder: Builder,
    pub(crate) space: Arc<Space>,
    /// The index of the last entry applied.
    pub(crate) applied: watch::Receiver<u64>,
    /// Fewest bytes of entries between two snapshots.
    pub(crate) min_bytes: u64,
    /// How old an entry of the log may become, and at most twice that.
    pub(crate) max_age: Duration,
    /// How many bytes of the state's file may be unused; 0: any.
    pub(crate) max_unused_bytes: u64,
    /// To the state's thread.
    pub(crate) works: mpsc::Sender<Work>,
}

/// Somebody asks for the state's file to be shrunk.
pub(crate) type Asked = oneshot::Sender<Result<(), String>>;

/// Entries up to `begin` are older than the period when it ends.
struct Period {
    begin: u64,
    end: Instant,
}

enum Due {
    Growth,
    Age,
    Look,
    Asked(Asked),
}

impl Keeper {
    /// Works until `stop` turns true or its sender is gone.
    pub(crate) async fn run(self, mut asked: mpsc::Receiver<Asked>, mut stop: watch::Receiver<bool>) {
        self.set_threshold();
        self.builder.growth.add(0);
        let mut period = self.period();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.builder.growth.exceeded.notified() => Due::Growth,
                () = tokio::time::sleep_until(period.end) => Due::Age,
                _ = looks.tick() => Due::Look,
                Some(asked) = asked.recv() => Due::Asked(asked),
            };
            let done = match due {
                Due::Growth if !self.has_grown() => continue,
                Due::Growth => self.snapshot(0).await,
                Due::Age => self.end_period(&mut period).await,
                Due::Look if !self.has_holes() => continue,
                Due::Look => self.shrink().await,
                Due::Asked(asked) => {
                    // Whoever asked may have gone away.
                    let _ = asked.send(self.shrink().await);
                    continue;
                }
            };
            let Err(error) = done else { continue };
            if *stop.borrow() {
                return;
            }
            tracing::warn!(%error, "no snapshot was made; the log keeps growing until one is");
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(RETRY_EVERY) => self.builder.growth.exceeded.notify_one(),
            }
        }
    }

    fn period(&self) -> Period {
        Period { begin: *self.applied.borrow(), end: Instant::now() + self.max_age }
    }

    /// Drops what is too old from the log, if anything is.
    async fn end_period(&self, period: &mut Period) -> Result<(), String> {
        if self.log.bounds().1.is_none_or(|purged| purged.index < period.begin) {
            self.snapshot(period.begin).await?;
        }
        *period = self.period();
        Ok(())
    }

    fn has_grown(&self) -> bool {
        let growth = &self.builder.growth;
        growth.bytes.load(Relaxed) >= growth.threshold.load(Relaxed)
    }

    /// A snapshot costs as much as the state is big, so it should save at least half as much log.
    fn set_threshold(&self) {
        let used = self.builder.state.size_bytes().map_or(0, |(used, _)| used);
        self.builder.growth.threshold.store(self.min_bytes.max(used / 2), Relaxed);
    }

    /// Makes a snapshot, and drops the log up to it but for what is in memory anyway; up to `outdated` it is dropped in any case.
    async fn snapshot(&self, outdated: u64) -> Result<(), String> {
        let used = self.builder.state.size_bytes().map_or(0, |(used, _)| used);
        if !self.space.has_room_for(used) {
            return Err(format!("it needs {used} bytes, and the disk has not that much left"));
        }
        let snapshot = self.builder.make().await.map_err(|e| e.to_string())?;
        let applied = log_id(snapshot.applied);
        *self.builder.ready.lock() = Some(snapshot);
        self.set_threshold();
        let stopped = |e: &dyn std::fmt::Display| format!("consensus has stopped: {e}");
        let mut progress = self.raft.watch_snapshot_progress();
        self.raft.trigger().snapshot().await.map_err(|e| stopped(&e))?;
        progress.wait_until_ge(&Some(applied)).await.map_err(|e| stopped(&e))?;
        // What stays is for members that are a little behind.
        let upto = self.log.first_in_memory().saturating_sub(1).max(outdated).min(applied.index);
        self.raft.trigger().purge_log(upto).await.map_err(|e| stopped(&e))
    }
}
