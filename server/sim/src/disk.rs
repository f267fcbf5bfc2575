//! The disk under a member's log: real files, but nobody waits for them, and their file system has room enough. What a crash
//! does to writes that were not synced is tested where the log is; here a crash takes what was not written yet.

use std::io;
use std::path::Path;
use std::sync::Arc;

use konsul_raft::disk::{Access, Disk, DiskFile, RealDisk};

/// Bytes that are always free.
const FREE_BYTES: u64 = 1 << 40;

/// A disk with room that syncs at once.
pub(crate) struct SimDisk;

struct SimFile(Arc<dyn DiskFile>);

impl Disk for SimDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SimFile(RealDisk.open(path, access)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(FREE_BYTES)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
