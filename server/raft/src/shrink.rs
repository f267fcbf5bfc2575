//! Giving back what the state's file does not use: a copy, which has no holes, is written beside the state at the pace of a
//! snapshot, brought up to date with the log, and takes the place of the state. Reads and writes go on.

use std::io;

use konsul_state::State;
use konsul_state::snapshot::Replacement;
use tokio::sync::oneshot;

use crate::apply::{Work, catch_up};
use crate::copy::copy;
use crate::keeper::Keeper;
use crate::log::LogReader;

/// A copy that is behind by so many entries is brought up to date by the thread that applies, and all others wait meanwhile.
const NEARLY_CAUGHT_UP: u64 = 500;
/// How often a copy runs after a state that goes on, at most.
const CATCH_UPS: usize = 20;

impl Keeper {
    /// Whether so much of the state's file is unused that it is worth a copy of the rest.
    pub(crate) fn has_holes(&self) -> bool {
        let Ok((used, file)) = self.builder.state.size_bytes() else { return false };
        self.max_unused_bytes > 0 && file > 2 * used && file - used > self.max_unused_bytes
    }

    /// Shrinks the file. The log that the copy needs stays: it is the keeper that has it purged.
    pub(crate) async fn shrink(&self) -> Result<(), String> {
        self.try_to_shrink().await.map_err(|error| format!("the state's file was not shrunk: {error}"))
    }

    async fn try_to_shrink(&self) -> io::Result<()> {
        let size = || self.builder.state.size_bytes().map_err(io::Error::other);
        let (used, before) = size()?;
        if !self.space.has_room_for(used) {
            let what =
                format!("it needs {used} bytes for the time being, and the disk has not that much left");
            return Err(io::Error::other(what));
        }
        let plan = self.ask(|done| Work::Plan { done }).await?;
        let (state, pace) = (self.builder.state.clone(), self.builder.pace.clone());
        let write = move || {
            copy(&state, &plan.data(), &pace).map_err(io::Error::other)?;
            plan.open().map_err(io::Error::other)
        };
        let copied = self.builder.threads.run("shrink", write).await?;
        // On another thread, for that one gives way to all others, and would never catch up with them.
        let (state, log) = (self.builder.state.clone(), self.log.clone());
        let follow = move || follow(copied, &state, &log);
        let replacement = self.builder.threads.run("shrink", follow).await?;
        let log = self.log.clone();
        let retired = self.ask(|done| Work::Replace { replacement, log, done }).await?;
        // Where a large file may be freed at leisure.
        let free = move || {
            drop(retired);
            Ok(())
        };
        self.builder.threads.run("shrink", free).await?;
        let (_, after) = size()?;
        tracing::info!(before, after, "gave space back to the file system");
        Ok(())
    }

    /// Has the thread of the state do something.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Work) -> io::Result<T> {
        let closed = || io::Error::other("the state has been closed");
        let (done, answer) = oneshot::channel();
        self.works.send(work(done)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// Brings a copy nearly up to date, so that the thread that applies has little left to do.
fn follow(mut copy: Replacement, state: &State, log: &LogReader) -> io::Result<Replacement> {
    for _ in 0..CATCH_UPS {
        copy.sync().map_err(io::Error::other)?;
        let upto = state.applied().index;
        if upto - copy.applied().map_err(io::Error::other)?.index <= NEARLY_CAUGHT_UP {
            break;
        }
        catch_up(&mut copy, log, upto)?;
    }
    Ok(copy)
}
