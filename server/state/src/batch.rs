//! What one revision changed, as it is recorded, published and replayed to watchers.

use crate::command::KvRecord;
use crate::ids::{Key, Namespace, Revision};

/// All changes of one revision, in the order they were made.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The revision they took.
    pub revision: Revision,
    /// State time of the commit, in ms since 1970.
    pub time_ms: u64,
    /// The changes; never empty.
    pub changes: Vec<Change>,
    /// About how many bytes the changes hold, for whoever keeps Batches within a bound.
    pub bytes: usize,
}

/// One change of one row. A variant a table that readers can follow.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A KV entry was written or deleted.
    Kv(KvChange),
}

/// A KV entry before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct KvChange {
    /// The entry's namespace.
    pub namespace: Namespace,
    /// The entry's key.
    pub key: Key,
    /// The entry before; `None` if the change created it.
    pub before: Option<KvRecord>,
    /// The entry after; `None` if the change deleted it.
    pub after: Option<KvRecord>,
}
