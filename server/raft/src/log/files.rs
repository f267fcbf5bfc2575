//! The log's files as raft-engine opens them, over a [`Disk`]. New files come from a stock of spare ones that
//! were filled with zeros before: a sync that need not allocate blocks costs half. Recovery cuts a torn tail
//! only when the file is written again, so that looking at a log changes nothing.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use crate::disk::{Access, Disk, DiskFile};
use crate::log::spare::Spares;
use crate::stats::Stats;

/// No cut is pending.
const WHOLE: u64 = u64::MAX;
/// Bytes of zeros written at once.
const ZEROS: usize = 1 << 20;

/// Opens log files.
pub(crate) struct LogFiles {
    disk: Arc<dyn Disk>,
    spares: Option<Arc<Spares>>,
    stats: Arc<Stats>,
    synced: bool,
    cuts: Arc<Mutex<Vec<(PathBuf, u64)>>>,
    failed: Arc<AtomicBool>,
}

impl LogFiles {
    /// Files that are synced, or, for a log that nobody will want back, not.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        spares: Option<Arc<Spares>>,
        stats: Arc<Stats>,
        synced: bool,
    ) -> Self {
        Self { disk, spares, stats, synced, cuts: Arc::default(), failed: Arc::default() }
    }

    /// Where recovery found that files end before their last byte.
    pub(crate) fn cuts(&self) -> Vec<(PathBuf, u64)> {
        self.cuts.lock().clone()
    }

    /// Whether a sync failed. raft-engine would panic if it were told, so it is not, and whoever writes asks here
    /// afterwards. A sync that failed is never tried again: the kernel may have dropped the pages that it could
    /// not write and marked them clean, so that a second one would succeed without them. From then on nothing
    /// more is written, until a restart has read what really is on the disk.
    pub(crate) fn failed(&self) -> Arc<AtomicBool> {
        self.failed.clone()
    }

    fn handle(&self, path: &Path, access: Access) -> io::Result<LogHandle> {
        Ok(LogHandle {
            path: path.to_owned(),
            file: self.disk.open(path, access)?,
            cut: AtomicU64::new(WHOLE),
            cuts: self.cuts.clone(),
            stats: self.stats.clone(),
            synced: self.synced,
            failed: self.failed.clone(),
        })
    }
}

impl FileSystem for LogFiles {
    type Handle = LogHandle;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogHandle> {
        let path = path.as_ref();
        let is_append = path.extension().is_some_and(|e| e == "raftlog");
        if let Some(spares) = self.spares.as_ref().filter(|_| is_append) {
            spares.take(path);
        }
        self.handle(path, Access::Create)
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<LogHandle> {
        let access = match permission {
            Permission::ReadOnly => Access::Read,
            Permission::ReadWrite => Access::Write,
        };
        self.handle(path.as_ref(), access)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        match &self.spares {
            Some(spares) if spares.put_back(path.as_ref()) => Ok(()),
            _ => self.disk.remove(path.as_ref()),
        }
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.disk.rename(from.as_ref(), to.as_ref())
    }

    fn new_reader(&self, handle: Arc<LogHandle>) -> io::Result<Cursor> {
        Ok(Cursor { handle, offset: 0 })
    }

    fn new_writer(&self, handle: Arc<LogHandle>) -> io::Result<Cursor> {
        Ok(Cursor { handle, offset: 0 })
    }
}

/// An open log file.
pub(crate) struct LogHandle {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Where recovery wants the file cut, once somebody writes to it; [`WHOLE`] if nowhere.
    cut: AtomicU64,
    cuts: Arc<Mutex<Vec<(PathBuf, u64)>>>,
    stats: Arc<Stats>,
    synced: bool,
    failed: Arc<AtomicBool>,
}

impl LogHandle {
    /// What has to be settled before a file is changed.
    fn prepare_change(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(io::Error::other("a sync of the log failed"));
        }
        match self.cut.load(Ordering::Acquire) {
            WHOLE => Ok(()),
            at => {
                self.file.set_len(at)?;
                self.cut.store(WHOLE, Ordering::Release);
                Ok(())
            }
        }
    }
}

impl Handle for LogHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.cut.store(offset as u64, Ordering::Release);
        self.cuts.lock().push((self.path.clone(), offset as u64));
        Ok(())
    }

    fn file_size(&self) -> io::Result<usize> {
        Ok(self.file.len()?.min(self.cut.load(Ordering::Acquire)) as usize)
    }

    fn sync(&self) -> io::Result<()> {
        if !self.synced || self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let began = Instant::now();
        match self.file.sync_data() {
            Ok(()) => self.stats.sync_us.record_us(began.elapsed()),
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "a sync of the log failed");
                self.failed.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// A place in a log file.
pub(crate) struct Cursor {
    handle: Arc<LogHandle>,
    offset: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let end = self.handle.file_size()? as u64;
        let most = usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(buf.len());
        let read = self.handle.file.read_at(&mut buf[..most], self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.handle.prepare_change()?;
        self.handle.file.write_all_at(buf, self.offset)?;
        self.offset += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.offset = match to {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self.offset.saturating_add_signed(by),
            SeekFrom::End(by) => (self.handle.file_size()? as u64).saturating_add_signed(by),
        };
        Ok(self.offset)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.handle.prepare_change()?;
        self.handle.file.set_len(offset as u64)?;
        self.offset = offset as u64;
        Ok(())
    }

    /// Fills the range with zeros. Merely allocated blocks would cost each sync a journal commit, as a growing
    /// file does. This is for what no spare file covers: the rest of the file that was open at the last stop.
    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.handle.prepare_change()?;
        if !self.handle.synced {
            return Ok(());
        }
        fill_with_zeros(&*self.handle.file, offset as u64, size as u64)
    }
}

/// Writes zeros, in pieces.
pub(crate) fn fill_with_zeros(file: &dyn DiskFile, from: u64, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min(bytes as usize)];
    let mut at = from;
    while at < from + bytes {
        let piece = zeros.len().min((from + bytes - at) as usize);
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}
