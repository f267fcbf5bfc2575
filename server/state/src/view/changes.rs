//! Reading history: Batches by revision, and the versions of one key.

use std::ops::Bound;
use std::sync::Arc;

use heed::{RoTxn, WithoutTls};

use super::{Direction, View};
use crate::batch::{Batch, Change};
use crate::command::KvRecord;
use crate::error::StateError;
use crate::ids::{Key, Namespace, Revision};
use crate::tables::{self, Tables, history, kv};

/// Which versions of a key to read.
#[derive(Debug, Clone)]
pub struct VersionsQuery<'a> {
    /// The key's namespace.
    pub namespace: &'a Namespace,
    /// The key.
    pub key: &'a Key,
    /// Only versions up to this revision.
    pub until: Revision,
    /// Oldest or newest first.
    pub direction: Direction,
    /// The last version of the page before; this page begins after it.
    pub after: Option<Revision>,
    /// Most versions.
    pub limit: usize,
    /// About how many bytes the page may have.
    pub max_bytes: usize,
}

/// A page of a key's versions.
#[derive(Debug, Default)]
pub struct Versions {
    /// The versions in the order asked for.
    pub versions: Vec<KvVersion>,
    /// Whether there are more.
    pub more: bool,
}

/// What one revision made of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct KvVersion {
    /// The revision.
    pub revision: Revision,
    /// When it was committed.
    pub time_ms: u64,
    /// The entry after it; `None` if it was deleted.
    pub record: Option<KvRecord>,
}

impl View {
    /// Reads versions of a key that are not compacted.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn kv_versions(&self, query: &VersionsQuery<'_>) -> Result<Versions, StateError> {
        let mut row_key = Vec::with_capacity(64);
        kv::row_key(query.namespace, query.key.as_str().as_bytes(), &mut row_key);
        let mut first = self.compact_revision().next();
        let mut last = query.until;
        match (query.after, query.direction) {
            (Some(after), Direction::Ascending) => first = first.max(after.next()),
            (Some(after), Direction::Descending) => last = last.min(Revision(after.0.saturating_sub(1))),
            (None, _) => {}
        }
        let mut page = Versions::default();
        if first > last {
            return Ok(page);
        }
        let bound = |revision: Revision| {
            let mut by_key = Vec::with_capacity(row_key.len() + 16);
            history::by_key_prefix(kv::TABLE.number, &row_key, &mut by_key);
            by_key.extend_from_slice(&revision.0.to_be_bytes());
            by_key
        };
        let (from, to) = (bound(first), bound(last));
        let bounds = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let by_key = self.store.tables.history_by_key;
        match query.direction {
            Direction::Ascending => {
                self.collect_versions(by_key.range(&self.txn, &bounds)?, query, &mut page)?
            }
            Direction::Descending => {
                self.collect_versions(by_key.rev_range(&self.txn, &bounds)?, query, &mut page)?
            }
        }
        Ok(page)
    }

    fn collect_versions<'t>(
        &self,
        rows: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>,
        query: &VersionsQuery<'_>,
        page: &mut Versions,
    ) -> Result<(), StateError> {
        let mut bytes = 0;
        for row in rows {
            if page.versions.len() == query.limit || bytes >= query.max_bytes {
                page.more = true;
                break;
            }
            let (by_key, place) = row?;
            let revision = history::parse_by_key(by_key)?.1;
            let change = history::change(&self.store.tables, &self.txn, revision, place)?;
            let record: Option<KvRecord> =
                change.after.map(|row| tables::decode(kv::TABLE, row)).transpose()?;
            bytes += record.as_ref().map_or(0, |r| r.value.len()) + by_key.len();
            page.versions.push(KvVersion { revision, time_ms: change.time_ms, record });
        }
        Ok(())
    }
}

/// See [`View::batches`].
pub(super) fn batches(
    tables: &Tables,
    txn: &RoTxn<'_, WithoutTls>,
    from: Revision,
    max_bytes: usize,
) -> Result<Vec<Arc<Batch>>, StateError> {
    let mut batches = Vec::new();
    let mut current: Option<Batch> = None;
    let mut bytes = 0;
    let first = history::row_key(from, 0);
    for row in tables.history.range(txn, &(Bound::Included(&first[..]), Bound::Unbounded))? {
        let (row_key, row) = row?;
        let (revision, _) = history::parse_row_key(row_key)?;
        if let Some(done) = current.take_if(|batch| batch.revision != revision) {
            batches.push(Arc::new(done));
            if bytes >= max_bytes {
                return Ok(batches);
            }
        }
        bytes += row.len();
        let (time_ms, change) = decode(row)?;
        let batch = current.get_or_insert_with(|| Batch { revision, time_ms, changes: Vec::new(), bytes: 0 });
        batch.changes.push(change);
        batch.bytes += row.len();
    }
    batches.extend(current.map(Arc::new));
    Ok(batches)
}

fn decode(row: &[u8]) -> Result<(u64, Change), StateError> {
    let record = history::decode(row)?;
    let change = tables::decode_change(record.table, &record.key, record.before, record.after)?;
    Ok((record.time_ms, change))
}
