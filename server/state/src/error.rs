//! What can go wrong with this member's state. A lost precondition is none of it: that is an
//! [`Outcome`](crate::Outcome).

use std::path::PathBuf;

use crate::ids::Revision;

/// This member's state is broken or out of reach. Whoever holds one stops serving writes and says so.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// LMDB failed.
    #[error("the state store failed: {0}")]
    Lmdb(#[from] heed::Error),
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A row does not decode, or breaks an invariant of its table.
    #[error("the state store is damaged: {what} (table {table})")]
    Corrupt {
        /// The table's name.
        table: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The data was written by a newer version.
    #[error(
        "the state store has format {found}, and this version of konsul reads up to {known}: use a newer konsul"
    )]
    Newer {
        /// The format found.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// The log has a write of a newer version.
    #[error(
        "the log has a write of format {found}, and this version of konsul knows up to {known}: use a newer konsul"
    )]
    NewerCommand {
        /// The format found.
        found: u32,
        /// The newest that this binary knows.
        known: u32,
    },
    /// The data was written before the first release.
    #[error(
        "the state store has format {found}, which only builds before the first release wrote, and which no release \
         reads: read the data out with that build, and begin with an empty directory"
    )]
    Unreleased {
        /// The format found.
        found: u32,
    },
    /// Another open store of this process uses the same directory.
    #[error("the state store is already open")]
    InUse,
    /// A log entry was handed in out of order.
    #[error("log entry {got} came where {expected} was due")]
    OutOfOrder {
        /// The index that was due.
        expected: u64,
        /// The index that came.
        got: u64,
    },
}

impl StateError {
    /// Whether the cause is a full disk or a full map, so that it may go away by itself.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        let io_full = |e: &std::io::Error| {
            matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Lmdb(heed::Error::Mdb(heed::MdbError::MapFull)) => true,
            Self::Lmdb(heed::Error::Io(e)) | Self::File { error: e, .. } => io_full(e),
            _ => false,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }

    pub(crate) fn corrupt(table: &'static str, what: impl Into<String>) -> Self {
        Self::Corrupt { table, what: what.into() }
    }
}

/// Why a read was not served.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The state is broken.
    #[error(transparent)]
    State(#[from] StateError),
    /// The revision is compacted.
    #[error("revision {revision} is compacted; the oldest that can be read is {compact_revision}")]
    Compacted {
        /// The revision asked for.
        revision: Revision,
        /// Everything up to this one is compacted.
        compact_revision: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {revision} is in the future; the store is at {current}")]
    Future {
        /// The revision asked for.
        revision: Revision,
        /// The store's revision.
        current: Revision,
    },
}

impl From<heed::Error> for ReadError {
    fn from(error: heed::Error) -> Self {
        Self::State(error.into())
    }
}
