//! Decides when a snapshot is due, by bytes rather than by entries, and has the log purged behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;

use crate::log::LogReader;
use crate::machine::Builder;
use crate::proposer::Raft;
use crate::space::Space;
use crate::types::log_id;

/// How long to wait after a snapshot that could not be made.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Makes snapshots when enough was applied since the last one.
pub(crate) struct Keeper {
    pub(crate) raft: Raft,
    pub(crate) log: LogReader,
    pub(crate) builder: Builder,
    pub(crate) space: Arc<Space>,
    /// Fewest bytes of entries between two snapshots.
    pub(crate) min_bytes: u64,
}

impl Keeper {
    /// Works until `stop` turns true or its sender is gone.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        self.set_threshold();
        self.builder.growth.add(0);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = self.builder.growth.exceeded.notified() => {}
            }
            let growth = &self.builder.growth;
            if growth.bytes.load(Relaxed) < growth.threshold.load(Relaxed) {
                continue;
            }
            if let Err(error) = self.snapshot().await {
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
    }

    /// A snapshot costs as much as the state is big, so it should save at least half as much log.
    fn set_threshold(&self) {
        let used = self.builder.state.size_bytes().map_or(0, |(used, _)| used);
        self.builder.growth.threshold.store(self.min_bytes.max(used / 2), Relaxed);
    }

    async fn snapshot(&self) -> Result<(), String> {
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
        // What is in memory anyway stays, for members that are a little behind.
        if let Some(upto) = self.log.first_in_memory().checked_sub(1) {
            self.raft.trigger().purge_log(upto.min(applied.index)).await.map_err(|e| stopped(&e))?;
        }
        Ok(())
    }
}
