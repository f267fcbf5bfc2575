//! What a watch tells its consumer.

use konsul_proto::v1::Entry;

use crate::error::Error;

/// An event of a [`Watch`](super::Watch).
///
/// A consumer that keeps a copy of what it watches clears it on `Reset`, inserts on `State` and `Put`, removes on
/// `Delete`, and may trust the copy from `Synced` on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The target is open: changes from now on will not be missed. Sent once, not again when the watch reconnects.
    Opened {
        /// Number of the target in the options, from 0.
        target: usize,
        /// Changes after this revision will follow.
        revision: u64,
    },
    /// The initial state begins, also when it has to begin again because the connection broke before it was complete, or because
    /// the whole store was restored from a backup: then to a target that did not ask for it, too.
    /// Whatever the consumer had from this target before is void.
    Reset {
        /// Number of the target in the options, from 0.
        target: usize,
        /// Revision of the store when the target was opened.
        revision: u64,
    },
    /// An entry of the initial state.
    State {
        /// Number of the target in the options, from 0.
        target: usize,
        /// Revision that the initial state shows.
        revision: u64,
        /// The entry.
        entry: Entry,
    },
    /// The initial state is complete. Changes follow.
    Synced {
        /// Number of the target in the options, from 0.
        target: usize,
        /// Revision that the initial state shows.
        revision: u64,
    },
    /// A key was written.
    Put {
        /// Number of the target in the options, from 0.
        target: usize,
        /// Revision of the write.
        revision: u64,
        /// The entry after the write.
        entry: Entry,
        /// The entry before, if asked for and there was one.
        previous: Option<Entry>,
        /// Whether this is the last change that the revision made to this target: a consumer that acts on whole
        /// revisions waits for it.
        last_of_revision: bool,
    },
    /// A key was deleted.
    Delete {
        /// Number of the target in the options, from 0.
        target: usize,
        /// Revision of the delete.
        revision: u64,
        /// The key, with the revision (`mod_revision`) and the time (`update_time`) of the delete.
        entry: Entry,
        /// The entry before, if asked for.
        previous: Option<Entry>,
        /// Whether this is the last change that the revision made to this target.
        last_of_revision: bool,
    },
    /// Nothing happened for the progress interval; everything up to this revision has been delivered.
    Progress {
        /// Number of the target in the options, from 0.
        target: usize,
        /// The revision.
        revision: u64,
    },
    /// The target ended while others of the same watch go on. When the last one ends, the watch ends with its error.
    Ended {
        /// Number of the target in the options, from 0.
        target: usize,
        /// The last revision of which everything has been delivered; 0 if none was.
        revision: u64,
        /// Why it ended.
        error: Error,
    },
}

impl WatchEvent {
    /// Number of the target in the options, from 0.
    pub fn target(&self) -> usize {
        match self {
            Self::Opened { target, .. }
            | Self::Reset { target, .. }
            | Self::State { target, .. }
            | Self::Synced { target, .. }
            | Self::Put { target, .. }
            | Self::Delete { target, .. }
            | Self::Progress { target, .. }
            | Self::Ended { target, .. } => *target,
        }
    }

    /// The revision that the event is about.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Opened { revision, .. }
            | Self::Reset { revision, .. }
            | Self::State { revision, .. }
            | Self::Synced { revision, .. }
            | Self::Put { revision, .. }
            | Self::Delete { revision, .. }
            | Self::Progress { revision, .. }
            | Self::Ended { revision, .. } => *revision,
        }
    }
}
