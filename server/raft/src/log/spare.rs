//! A stock of log files to come: filled with zeros and synced by a thread of its own before they are needed,
//! or taken back from the log when it is purged. What is left in such a file from before can't be mistaken
//! for entries, because raft-engine signs each record with the number of its file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::disk::{Access, Disk};
use crate::log::files::fill_with_zeros;
use crate::threads::{Threads, Worker, Working};

/// Most spare files kept.
const MAX_SPARES: usize = 2;
/// Bytes filled between two syncs, so that the log's own syncs need not wait long behind them.
const PIECE_BYTES: u64 = 1 << 20;
const SUFFIX: &str = "spare";

/// The stock.
pub(crate) struct Spares {
    dir: PathBuf,
    file_bytes: u64,
    /// Space that making a spare file must leave.
    reserve_bytes: u64,
    disk: Arc<dyn Disk>,
    stock: Mutex<Stock>,
    order: Mutex<Option<Sender<()>>>,
    working: Mutex<Option<Working>>,
}

#[derive(Default)]
struct Stock {
    ready: Vec<PathBuf>,
    next: u64,
}

impl Spares {
    /// The stock of the log in `dir`; empty until it is started.
    pub(crate) fn new(dir: &Path, file_bytes: u64, reserve_bytes: u64, disk: Arc<dyn Disk>) -> Arc<Self> {
        Arc::new(Self {
            dir: dir.to_owned(),
            file_bytes,
            reserve_bytes,
            disk,
            stock: Mutex::default(),
            order: Mutex::default(),
            working: Mutex::default(),
        })
    }

    /// Clears away what the last run left, and begins to prepare files.
    pub(crate) fn start(self: &Arc<Self>, threads: Threads) -> io::Result<()> {
        self.stock.lock().next = left_over(&self.dir)?;
        let (order, orders) = channel(1);
        *self.working.lock() = Some(threads.start("log-spares", self.clone(), orders)?);
        *self.order.lock() = Some(order);
        self.wake();
        Ok(())
    }

    /// Puts a spare file at `path`, if there is one.
    pub(crate) fn take(&self, path: &Path) {
        let taken = self.stock.lock().ready.pop();
        if let Some(spare) = taken
            && let Err(error) = self.disk.rename(&spare, path)
        {
            tracing::warn!(%error, spare = %spare.display(), "a spare log file could not be used");
        }
        self.wake();
    }

    /// Takes a file that the log no longer needs; false if there are enough.
    pub(crate) fn put_back(&self, path: &Path) -> bool {
        let is_append = path.extension().is_some_and(|e| e == "raftlog");
        let mut stock = self.stock.lock();
        if !is_append || stock.ready.len() >= MAX_SPARES {
            return false;
        }
        let is_whole =
            self.disk.open(path, Access::Read).and_then(|f| f.len()).is_ok_and(|l| l >= self.file_bytes);
        let spare = stock.name(&self.dir);
        if !is_whole || self.disk.rename(path, &spare).is_err() {
            return false;
        }
        stock.ready.push(spare);
        true
    }

    /// Ends the thread.
    pub(crate) async fn stop(&self) {
        self.order.lock().take();
        let working = self.working.lock().take();
        if let Some(working) = working {
            working.join().await;
        }
    }

    fn wake(&self) {
        if let Some(order) = &*self.order.lock() {
            // A full channel is an order that is still to be looked at.
            match order.try_send(()) {
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Closed(())) => {}
            }
        }
    }

    fn keep_up(&self) {
        if !self.stock.lock().ready.is_empty() {
            return;
        }
        let path = self.stock.lock().name(&self.dir);
        match self.make(&path) {
            Ok(true) => self.stock.lock().ready.push(path),
            Ok(false) => self.remove(&path),
            Err(error) => {
                tracing::warn!(%error, "a spare log file could not be made; the log goes on without");
                self.remove(&path);
            }
        }
    }

    /// Makes a spare file; false if it was not worth it.
    fn make(&self, path: &Path) -> io::Result<bool> {
        if self.disk.free_bytes(&self.dir)? < self.file_bytes + 2 * self.reserve_bytes {
            return Ok(false);
        }
        let file = self.disk.open(path, Access::Create)?;
        let mut at = 0;
        while at < self.file_bytes {
            if self.order.lock().is_none() {
                return Ok(false);
            }
            let piece = PIECE_BYTES.min(self.file_bytes - at);
            fill_with_zeros(&*file, at, piece)?;
            file.sync_data()?;
            at += piece;
        }
        Ok(true)
    }

    fn remove(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "a spare log file could not be removed");
        }
    }
}

impl Worker for Arc<Spares> {
    type Job = ();

    fn work(&mut self, (): (), _: &mut Receiver<()>) {
        self.keep_up();
    }

    fn end(self) {}
}

impl Stock {
    fn name(&mut self, dir: &Path) -> PathBuf {
        self.next += 1;
        dir.join(format!("{:016}.{SUFFIX}", self.next))
    }
}

/// Removes the spare files of the last run, which may be half filled, and returns the greatest number among
/// them.
fn left_over(dir: &Path) -> io::Result<u64> {
    let mut greatest = 0;
    for found in fs::read_dir(dir)? {
        let path = found?.path();
        if path.extension().is_none_or(|e| e != SUFFIX) {
            continue;
        }
        let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
        greatest = greatest.max(number.unwrap_or(0));
        fs::remove_file(&path)?;
    }
    Ok(greatest)
}
