//! What must hold whatever goes wrong, one file each. An invariant reads the record and says what contradicts it, if anything.

mod acknowledged;
mod agreement;
mod batches;
mod leaders;
mod linearizable;
mod once;
mod reads;
mod sound;

#[cfg(test)]
mod example;

use std::collections::BTreeMap;

use konsul_state::Change;

use crate::client::{key_number, value_number};
use crate::record::Record;

/// What must not be, and was.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// What must hold.
    pub invariant: &'static str,
    /// What contradicts it.
    pub what: String,
}

type Check = fn(&Record) -> Result<(), String>;

const ALL: [(&str, Check); 8] = [
    ("no member complains", sound::check),
    ("leaders succeed each other", leaders::check),
    ("members that applied the same have the same state", agreement::check),
    ("Batches are published in order, once, and after their commit", batches::check),
    ("acknowledged writes survive", acknowledged::check),
    ("a write happens once, or not at all if it was refused", once::check),
    ("reads and writes are linearizable", linearizable::check),
    ("a member's reads never go backwards", reads::check),
];

/// The invariants that the record contradicts.
pub(crate) fn broken(record: &Record) -> Vec<Violation> {
    let broken = |(invariant, check): (&'static str, Check)| {
        check(record).err().map(|what| Violation { invariant, what })
    };
    ALL.into_iter().filter_map(broken).collect()
}

/// What was written in the end: by revision, the key and its value from then on.
type Writes = BTreeMap<u64, (usize, Option<u64>)>;

/// The writes that the member with most of them has. Whether all have the same is for `agreement` to say.
fn writes(record: &Record) -> Writes {
    let longest = record.ends.values().max_by_key(|end| end.batches.len());
    let batches = longest.iter().flat_map(|end| &end.batches);
    let changed = batches.flat_map(|batch| batch.changes.iter().map(|change| (batch.revision.0, change)));
    let write = |(revision, change): (u64, &Change)| {
        let change = change.kv()?;
        let value = change.after.as_ref().and_then(|after| value_number(&after.value));
        Some((revision, (key_number(change.key.as_str())?, value)))
    };
    changed.filter_map(write).collect()
}
