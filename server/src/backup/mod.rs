//! Backup files: looked at without a server, and made by one at its own times (`schedule`).

mod schedule;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use konsul_state::StateHash;
use konsul_state::backup::{BackupError, Part, Reader, Trial, TrialError};
use konsul_state::command::{BackupHeader, BackupTrailer};

pub(crate) use schedule::{BackupStats, Schedule};

/// How much is read at a time.
const PIECE_BYTES: usize = 256 << 10;
/// The store of a trial may be this many times as large as the backup, and this much larger: rows in whole pages.
const TRIAL_GROWTH: u64 = 8;
const TRIAL_BYTES: u64 = 1 << 30;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The cluster's id, a UUID.
    pub cluster_id: String,
    /// The konsul that made it.
    pub version: String,
    /// When it was made, in ms since 1970.
    pub created_ms: u64,
    /// The state's revision.
    pub revision: u64,
    /// KV entries.
    pub entries: u64,
    /// Leases.
    pub leases: u64,
    /// Locks and elections.
    pub locks: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Of all rows, once they were read.
    pub hash: Option<String>,
}

/// Why a backup file is not what it should be. One line.
#[derive(Debug, thiserror::Error)]
pub enum BackupFailure {
    /// The file can't be read.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// It is no backup, or damaged, or does not restore.
    #[error(transparent)]
    Trial(#[from] TrialError),
}

impl From<BackupError> for BackupFailure {
    fn from(error: BackupError) -> Self {
        Self::Trial(error.into())
    }
}

impl Summary {
    fn of(header: BackupHeader, bytes: u64, trailer: Option<&BackupTrailer>) -> Self {
        let hash = trailer.map(|t| StateHash::from_halves((t.hash_high, t.hash_low)).to_string());
        let BackupHeader { cluster_id, version, created_ms, revision, entries, leases, locks, .. } = header;
        Self { cluster_id, version, created_ms, revision, entries, leases, locks, bytes, hash }
    }
}

/// Checks the bytes of a backup as they pass by.
#[derive(Default)]
pub struct Checker {
    reader: Reader,
    header: Option<BackupHeader>,
    trailer: Option<BackupTrailer>,
    bytes: u64,
}

impl Checker {
    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`BackupFailure::Trial`] when they are not a backup's.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), BackupFailure> {
        self.bytes += bytes.len() as u64;
        self.reader.push(bytes);
        while let Some(part) = self.reader.next_part()? {
            match part {
                Part::Header(header) => self.header = Some(header),
                Part::Rows(_) => {}
                Part::Trailer(trailer) => self.trailer = Some(trailer),
            }
        }
        Ok(())
    }

    /// About how many bytes there will be, once that is known.
    #[must_use]
    pub fn expected_bytes(&self) -> Option<u64> {
        self.header.as_ref().map(|header| header.bytes)
    }

    /// All bytes were there.
    ///
    /// # Errors
    /// [`BackupFailure::Trial`] when they were not.
    pub fn end(self) -> Result<Summary, BackupFailure> {
        self.reader.end()?;
        let cut_off = BackupError::CutOff { bytes: self.bytes };
        Ok(Summary::of(self.header.ok_or(cut_off)?, self.bytes, self.trailer.as_ref()))
    }
}

/// Says what a backup file holds, by its head. The rest of the file is not looked at.
///
/// # Errors
/// [`BackupFailure`]
pub fn inspect(path: &Path) -> Result<Summary, BackupFailure> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut reader = Reader::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            reader.end()?;
        }
        reader.push(&piece[..read]);
        if let Some(Part::Header(header)) = reader.next_part()? {
            return Ok(Summary::of(header, bytes, None));
        }
    }
}

/// Reads all of a backup file, restores it in a store that is thrown away, and looks at everything in it. `progress` is
/// told how many bytes of how many are done, and may end it with an error.
///
/// # Errors
/// [`BackupFailure`]
pub fn verify(
    path: &Path,
    mut progress: impl FnMut(u64, u64) -> std::io::Result<()>,
) -> Result<Summary, BackupFailure> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let scratch = tempfile::tempdir()?;
    let map_bytes = usize::try_from(bytes * TRIAL_GROWTH + TRIAL_BYTES).unwrap_or(usize::MAX / 2);
    let mut trial = Trial::begin(scratch.path(), map_bytes)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        trial.push(&piece[..read])?;
        done += read as u64;
        progress(done, bytes)?;
    }
    let (header, trailer) = trial.end()?;
    Ok(Summary::of(header, bytes, Some(&trailer)))
}
