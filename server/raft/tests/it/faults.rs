//! A disk that fails on purpose: it loses what was not synced, runs out of space, and refuses to sync.
//!
//! The model of a power loss: a file keeps the content of its last sync, plus any of the 4 KiB blocks that
//! were written since, each or not at random, and its length is the old or the new one. Names are kept as they
//! are at that moment.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

use konsul_raft::disk::{Access, Disk, DiskFile};
use rand::Rng;
use rand::rngs::StdRng;

const BLOCK: usize = 4096;

#[derive(Default)]
pub struct FaultyDisk {
    files: Mutex<HashMap<PathBuf, Arc<Mutex<Image>>>>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    off: AtomicBool,
    full: AtomicBool,
    unsyncable: AtomicBool,
    held: Mutex<bool>,
    released: Condvar,
    free: AtomicU64,
    syncs: AtomicU64,
}

/// What of a file is durable, and which blocks were written since.
struct Image {
    durable: Vec<u8>,
    written: Vec<(usize, usize)>,
}

struct FaultyFile {
    file: File,
    image: Arc<Mutex<Image>>,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    pub fn new() -> Arc<Self> {
        let disk = Self::default();
        disk.faults.free.store(u64::MAX, SeqCst);
        Arc::new(disk)
    }

    /// Whether writes fail for lack of space.
    pub fn set_full(&self, full: bool) {
        self.faults.full.store(full, SeqCst);
    }

    /// How much space the disk says it has.
    pub fn set_free(&self, bytes: u64) {
        self.faults.free.store(bytes, SeqCst);
    }

    /// Makes syncs fail.
    pub fn fail_syncs(&self) {
        self.faults.unsyncable.store(true, SeqCst);
    }

    /// Holds syncs up, or lets them go on.
    pub fn hold_syncs(&self, hold: bool) {
        *self.faults.held.lock().unwrap() = hold;
        self.faults.released.notify_all();
    }

    /// Syncs that succeeded.
    pub fn syncs(&self) -> u64 {
        self.faults.syncs.load(SeqCst)
    }

    /// Cuts the power: from now on every call fails, and nothing more becomes durable.
    pub fn power_off(&self) {
        self.faults.off.store(true, SeqCst);
        // Calls that began before hold their file's image; wait for them.
        for image in self.files.lock().unwrap().values() {
            drop(image.lock().unwrap());
        }
    }

    /// Puts what survived into the files. To be called when nobody uses the disk any more.
    pub fn settle(&self, random: &mut StdRng) {
        let files = self.files.lock().unwrap();
        let mut paths: Vec<_> = files.keys().cloned().collect();
        paths.sort();
        for path in paths {
            let image = files[&path].lock().unwrap();
            if !path.exists() {
                continue;
            }
            let now = std::fs::read(&path).unwrap();
            let mut survived = image.durable.clone();
            if random.random() {
                survived.resize(now.len(), 0);
            }
            for &(from, to) in &image.written {
                for block in from / BLOCK..to.div_ceil(BLOCK) {
                    let (begin, end) =
                        (block * BLOCK, ((block + 1) * BLOCK).min(now.len()).min(survived.len()));
                    if begin < end && random.random() {
                        survived[begin..end].copy_from_slice(&now[begin..end]);
                    }
                }
            }
            std::fs::write(&path, survived).unwrap();
        }
    }
}

impl Faults {
    fn check_power(&self) -> io::Result<()> {
        match self.off.load(SeqCst) {
            true => Err(io::Error::other("the power is off")),
            false => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        self.faults.check_power()?;
        if access == Access::Create && self.faults.full.load(SeqCst) && !path.exists() {
            return Err(ErrorKind::StorageFull.into());
        }
        let create = access == Access::Create;
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        let mut files = self.files.lock().unwrap();
        let image = files.entry(path.to_owned()).or_insert_with(|| {
            let durable = std::fs::read(path).unwrap();
            Arc::new(Mutex::new(Image { durable, written: Vec::new() }))
        });
        Ok(Arc::new(FaultyFile { file, image: image.clone(), faults: self.faults.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.check_power()?;
        std::fs::rename(from, to)?;
        let mut files = self.files.lock().unwrap();
        if let Some(image) = files.remove(from) {
            files.insert(to.to_owned(), image);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.faults.check_power()?;
        self.files.lock().unwrap().remove(path);
        std::fs::remove_file(path)
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.faults.free.load(SeqCst))
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.faults.check_power()?;
        FileExt::read_at(&self.file, buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut image = self.image.lock().unwrap();
        self.faults.check_power()?;
        if self.faults.full.load(SeqCst) {
            // A write may get part of its way.
            FileExt::write_all_at(&self.file, &buf[..buf.len() / 2], offset)?;
            image.written.push((offset as usize, offset as usize + buf.len() / 2));
            return Err(ErrorKind::StorageFull.into());
        }
        FileExt::write_all_at(&self.file, buf, offset)?;
        image.written.push((offset as usize, offset as usize + buf.len()));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let _image = self.image.lock().unwrap();
        self.faults.check_power()?;
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.faults.check_power()?;
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        let held = self.faults.held.lock().unwrap();
        drop(self.faults.released.wait_while(held, |held| *held).unwrap());
        let mut image = self.image.lock().unwrap();
        self.faults.check_power()?;
        if self.faults.unsyncable.load(SeqCst) {
            return Err(io::Error::other("the disk failed"));
        }
        let now = self.file.metadata()?.len() as usize;
        let Image { durable, written } = &mut *image;
        durable.resize(now, 0);
        for (from, to) in written.drain(..) {
            let to = to.min(now);
            if from < to {
                FileExt::read_exact_at(&self.file, &mut durable[from..to], from as u64)?;
            }
        }
        self.faults.syncs.fetch_add(1, SeqCst);
        Ok(())
    }
}
