//! Writing the copy of the state that a snapshot is made of: summed on its way, synced in steps, and no faster than it
//! may go, so that writes and reads hardly notice. What a snapshot is, is not known here.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use konsul_state::State;
use rustix::fs::{Advice, fadvise};
use tokio::sync::watch;
use xxhash_rust::xxh3::Xxh3;

use crate::error::RaftError;

/// Bytes between two syncs of the copy: a sync of the log waits behind no more than these.
const STEP_BYTES: usize = 4 << 20;
/// Bytes read at a time, and held by the pipe if the kernel allows it.
const READ_BYTES: usize = 1 << 20;
/// How often a copy that waits looks whether it is still wanted.
const LOOK_UP: Duration = Duration::from_millis(50);
/// The lowest priority a thread may have (setpriority(2)).
const LOWEST: i32 = 19;

/// How fast a copy may be written, and until when.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    pub(crate) bytes_per_second: u64,
    /// Turns true when the member stops: a copy that is not complete is given up.
    pub(crate) stop: watch::Receiver<bool>,
}

/// What was written.
pub(crate) struct Written {
    pub(crate) checksum: u128,
    pub(crate) bytes: u64,
}

/// Writes a consistent copy of the state to the new file `to`, and syncs it. What is there of it after a failure is the
/// caller's to remove.
pub(crate) fn copy(state: &State, to: &Path, pace: &Pace) -> Result<Written, RaftError> {
    let failed = |error| RaftError::file(to)(error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(&reader, READ_BYTES) {
        tracing::debug!(%error, "a snapshot goes through a small pipe, in more steps");
    }
    std::thread::scope(|scope| {
        let copying = std::thread::Builder::new().name("snapshot-read".to_owned());
        let copying = copying
            .spawn_scoped(scope, move || {
                give_way();
                state.copy_into(&mut File::from(OwnedFd::from(writer)))
            })
            .map_err(failed)?;
        give_way();
        // It takes the reader along, so that the other side ends too when this one fails.
        let written = write(reader, to, pace);
        match (written, copying.join()) {
            (Ok(written), Ok(Ok(()))) => Ok(written),
            (Err(error), _) => Err(failed(error)),
            (Ok(_), Ok(Err(error))) => Err(error.into()),
            (Ok(_), Err(_)) => Err(failed(io::Error::other("the thread that read the state panicked"))),
        }
    })
}

fn write(mut from: PipeReader, to: &Path, pace: &Pace) -> io::Result<Written> {
    let mut file = File::create(to)?;
    let mut hash = Xxh3::new();
    let mut buf = vec![0; READ_BYTES];
    let (mut bytes, mut unsynced) = (0, 0);
    let began = Instant::now();
    loop {
        let n = from.read(&mut buf)?;
        hash.update(&buf[..n]);
        file.write_all(&buf[..n])?;
        bytes += n as u64;
        unsynced += n;
        if n == 0 {
            file.sync_all()?;
            return Ok(Written { checksum: hash.digest128(), bytes });
        }
        if unsynced >= STEP_BYTES {
            file.sync_data()?;
            forget(&file, bytes);
            unsynced = 0;
            pace.wait(bytes, began)?;
        }
    }
}

/// Lets the kernel drop the pages of what is written and synced: nobody reads it soon, the state's own pages are worth more,
/// and filling fresh pages was four fifths of what a snapshot cost.
fn forget(file: &File, bytes: u64) {
    if let Err(error) = fadvise(file, 0, NonZeroU64::new(bytes), Advice::DontNeed) {
        tracing::debug!(%error, "a snapshot takes up page cache");
    }
}

impl Pace {
    /// Waits for as long as what was written since `began` is too much; fails when the member stops.
    pub(crate) fn wait(&self, bytes: u64, began: Instant) -> io::Result<()> {
        while !*self.stop.borrow() {
            match ahead(bytes, began.elapsed(), self.bytes_per_second) {
                Duration::ZERO => return Ok(()),
                ahead => std::thread::sleep(ahead.min(LOOK_UP)),
            }
        }
        Err(stopping())
    }

    /// The same for a task, which must not block.
    pub(crate) async fn rest(&mut self, bytes: u64, began: Instant) -> io::Result<()> {
        let ahead = ahead(bytes, began.elapsed(), self.bytes_per_second);
        tokio::select! {
            _ = self.stop.wait_for(|stop| *stop) => Err(stopping()),
            () = tokio::time::sleep(ahead) => Ok(()),
        }
    }
}

fn stopping() -> io::Error {
    io::Error::other("the member stops")
}

/// How long to wait after so many bytes in so much time.
fn ahead(bytes: u64, took: Duration, bytes_per_second: u64) -> Duration {
    let due = Duration::from_secs_f64(bytes as f64 / bytes_per_second.max(1) as f64);
    due.saturating_sub(took)
}

/// Lets every other thread go first.
fn give_way() {
    let thread = Some(rustix::thread::gettid());
    if let Err(error) = rustix::process::setpriority_process(thread, LOWEST) {
        tracing::debug!(%error, "a snapshot is made at the common priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_waits_for_what_it_is_ahead() {
        let half_done = ahead(50, Duration::from_millis(100), 100);
        assert_eq!(half_done, Duration::from_millis(400));
        assert_eq!(ahead(50, Duration::from_secs(9), 100), Duration::ZERO);
        assert_eq!(ahead(0, Duration::ZERO, 0), Duration::ZERO);
    }
}
