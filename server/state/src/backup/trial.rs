//! Restoring a backup for a trial: the very Commands of a real restore, in a store that is thrown away.

use std::path::Path;

use super::{BackupError, Part, Reader};
use crate::command::{
    self, BackupHeader, BackupTrailer, Command, CommandGroup, Outcome, RestoreBegin, RestoreCommit,
    RestoreRows, command::Op, outcome, refusal::Reason,
};
use crate::error::StateError;
use crate::hash::StateHash;
use crate::ids::LogPosition;
use crate::store::{self, Durability, Entry, Payload, Persistence, StateWriter, StoreOptions};
use crate::verify::Finding;

/// The only restore of its store.
const ID: u64 = 1;

/// A trial that is under way.
pub struct Trial {
    writer: StateWriter,
    reader: Reader,
    index: u64,
    parts: u64,
    header: Option<BackupHeader>,
    trailer: Option<BackupTrailer>,
}

/// Why a backup could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It can't be read.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// A state would refuse it.
    #[error("it would not be restored: {0}")]
    Refused(String),
    /// It was restored, and does not hang together.
    #[error("what it holds does not hang together: {0}")]
    Wrong(Finding),
    /// The store for the trial failed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Trial {
    /// Begins one in a directory that the caller throws away. The store may become as large as `map_bytes`.
    ///
    /// # Errors
    /// [`StateError`] when there can be no store.
    pub fn begin(dir: &Path, map_bytes: usize) -> Result<Self, TrialError> {
        let (_, writer, _) = store::open(StoreOptions {
            dir: dir.to_owned(),
            map_bytes: map_bytes.next_multiple_of(store::MAP_UNIT_BYTES),
            persistence: Persistence::Memory,
            durability: Durability::Log,
            boot_id: String::new(),
        })?;
        let reader = Reader::default();
        Ok(Self { writer, reader, index: 0, parts: 0, header: None, trailer: None })
    }

    /// Takes in the next bytes of the backup.
    ///
    /// # Errors
    /// [`TrialError`]
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TrialError> {
        self.reader.push(bytes);
        while let Some(part) = self.reader.next_part()? {
            match part {
                Part::Header(header) => {
                    self.header = Some(header);
                    self.apply(Op::RestoreBegin(RestoreBegin { id: ID }))?;
                }
                Part::Rows(rows) => {
                    let part = self.parts;
                    self.parts += 1;
                    self.apply(Op::RestoreRows(RestoreRows { id: ID, part, rows }))?;
                }
                Part::Trailer(trailer) => self.trailer = Some(trailer),
            }
        }
        Ok(())
    }

    /// All bytes are in: restores, and looks at everything.
    ///
    /// # Errors
    /// [`TrialError`]
    pub fn end(mut self) -> Result<(BackupHeader, BackupTrailer), TrialError> {
        self.reader.end()?;
        let (Some(header), Some(trailer)) = (self.header.take(), self.trailer) else {
            // A reader that is at its end has had both.
            return Err(TrialError::Refused("it has no header".to_owned()));
        };
        let meant = StateHash::from_halves((trailer.hash_high, trailer.hash_low));
        self.apply(Op::RestoreCommit(RestoreCommit {
            id: ID,
            rows: trailer.rows,
            hash_high: trailer.hash_high,
            hash_low: trailer.hash_low,
            revision: header.revision,
            time_ms: header.time_ms,
            steady_ms: header.steady_ms,
        }))?;
        let view = self.writer.state().view()?;
        match view.verify()?.pop() {
            Some(finding) => Err(TrialError::Wrong(finding)),
            None if view.hash() != meant => {
                Err(TrialError::Refused("another state came out of it".to_owned()))
            }
            None => Ok((header, trailer)),
        }
    }

    fn apply(&mut self, op: Op) -> Result<(), TrialError> {
        self.index += 1;
        let command = Command { format: command::FORMAT, op: Some(op), ..Command::default() };
        let position = LogPosition { term: 1, leader: 1, index: self.index };
        let payload = Payload::Commands(CommandGroup { commands: vec![command] });
        let run = self.writer.apply(vec![Entry { position, payload }])?;
        match run.outcomes.into_iter().flatten().next() {
            Some(Outcome { result: Some(outcome::Result::Restore(_)), .. }) => Ok(()),
            Some(Outcome { result: Some(outcome::Result::Refused(refusal)), .. }) => match refusal.reason {
                Some(Reason::RestoreRefused(refused)) => Err(TrialError::Refused(refused.what)),
                reason => Err(TrialError::Refused(format!("{reason:?}"))),
            },
            outcome => Err(TrialError::Refused(format!("{outcome:?}"))),
        }
    }
}
