//! A member's disk: a file system of its own in a file, which can be filled up and emptied again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::command::run;

/// The file that holds it is sparse.
const DISK_BYTES: u64 = 2 << 30;
/// What the file system may need for itself, so that the last blocks are taken piecemeal.
const COARSE_BYTES: u64 = 1 << 20;
const FINE_BYTES: u64 = 32 << 10;

/// A mounted file system. It is gone when the last process of this mount namespace is.
#[derive(Debug)]
pub(crate) struct Disk {
    point: PathBuf,
}

impl Disk {
    /// Makes a file system in a new file of the folder and mounts it there.
    ///
    /// # Errors
    /// When mkfs.ext4 or mount fails.
    pub(crate) async fn mount(folder: &Path) -> Result<Self> {
        let (image, point) = (folder.join("disk.img"), folder.join("disk"));
        fs::create_dir_all(&point).with_context(|| format!("can't make {}", point.display()))?;
        File::create(&image)?.set_len(DISK_BYTES)?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-m".as_ref(), "0".as_ref(), image.as_os_str()])
            .await?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), point.as_os_str()]).await?;
        Ok(Self { point })
    }

    /// Where the server keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.point.join("data")
    }

    /// Loses all data. No server may be running.
    ///
    /// # Errors
    /// When it can't be removed.
    pub(crate) fn wipe(&self) -> Result<()> {
        fs::remove_dir_all(self.data()).context("can't wipe a member's disk")
    }

    /// Takes space until no more than this is left.
    ///
    /// # Errors
    /// When the ballast can't be written.
    pub(crate) fn fill(&self, left_bytes: u64) -> Result<()> {
        let ballast = File::options().create(true).append(true).open(self.ballast())?;
        let mut taken = ballast.metadata()?.len();
        while let Some(more) = self.free_bytes()?.checked_sub(left_bytes).filter(|more| *more > FINE_BYTES) {
            let more = if more > COARSE_BYTES { more - COARSE_BYTES / 2 } else { FINE_BYTES };
            if fallocate(&ballast, FallocateFlags::empty(), taken, more).is_err() {
                return Ok(());
            }
            taken += more;
        }
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// When the ballast can't be removed.
    pub(crate) fn empty(&self) -> Result<()> {
        match self.ballast().exists() {
            true => fs::remove_file(self.ballast()).context("can't free a member's disk"),
            false => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.point.join("ballast")
    }

    fn free_bytes(&self) -> Result<u64> {
        let disk = statvfs(&self.point)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }
}
