//! Reading history: Batches by revision, and the versions of one key.

use std::ops::Bound;
use std::sync::Arc;

use heed::{RoTxn, WithoutTls};

use super::{Direction, View};
use crate::batch::{Batch, Change};
use crate::command::KvRecord;
use crate::error::StateError;
use crate::ids::{Key, Namespace, Revision};
use crate::tables::chain::{Link, Position};
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
        let mut page = Versions::default();
        let Some(head) = self.head(&row_key)? else { return Ok(page) };
        let compacted = self.compact_revision();
        let last_until = |revision| head.link.last_until(revision, compacted, |at| self.link(at));
        match query.direction {
            Direction::Descending => {
                let until = match query.after {
                    Some(after) => query.until.min(Revision(after.0.saturating_sub(1))),
                    None => query.until,
                };
                let mut next = last_until(until)?;
                self.collect_versions(query, &mut page, || {
                    let link = next.take();
                    next = link.map_or(Ok(None), |link| link.before(compacted, |at| self.link(at)))?;
                    Ok(link)
                })?;
            }
            Direction::Ascending => {
                if let Some(last) = last_until(query.until)? {
                    let mut links = self.ascending_links(last, query)?;
                    self.collect_versions(query, &mut page, || Ok(links.pop()))?;
                }
            }
        }
        Ok(page)
    }

    /// The links of a page in ascending order, and one more if there is one; the first of them last.
    fn ascending_links(&self, last: Link, query: &VersionsQuery<'_>) -> Result<Vec<Link>, StateError> {
        let compacted = self.compact_revision();
        let after = query.after.unwrap_or(compacted).max(compacted);
        let Some(first) = last.first_after(after, |at| self.link(at))? else { return Ok(Vec::new()) };
        let depth = last.depth.min(first.depth.saturating_add(query.limit as u64));
        let mut link = last.at_depth(depth, |at| self.link(at))?;
        let mut links = vec![link];
        while link.depth > first.depth
            && let Some(before) = link.before(compacted, |at| self.link(at))?
        {
            link = before;
            links.push(link);
        }
        Ok(links)
    }

    fn collect_versions(
        &self,
        query: &VersionsQuery<'_>,
        page: &mut Versions,
        mut next: impl FnMut() -> Result<Option<Link>, StateError>,
    ) -> Result<(), StateError> {
        let mut bytes = 0;
        while let Some(link) = next()? {
            if page.versions.len() == query.limit || bytes >= query.max_bytes {
                page.more = true;
                break;
            }
            let change = history::change(&self.tables, &self.txn, link.at)?;
            let record: Option<KvRecord> =
                change.after.map(|row| tables::decode(kv::TABLE, row)).transpose()?;
            bytes += record.as_ref().map_or(0, |r| r.value.len()) + change.key.len();
            let revision = link.at.revision;
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
    let first = history::first_row_key(from);
    for row in tables.history.range(txn, &(Bound::Included(&first[..]), Bound::Unbounded))? {
        let (row_key, row) = row?;
        let at = history::parse_row_key(row_key)?;
        let revision = at.revision;
        if let Some(done) = current.take_if(|batch| batch.revision != revision) {
            batches.push(Arc::new(done));
            if bytes >= max_bytes {
                return Ok(batches);
            }
        }
        bytes += row.len();
        let (time_ms, change) = decode(at, row)?;
        let batch = current.get_or_insert_with(|| Batch { revision, time_ms, changes: Vec::new(), bytes: 0 });
        batch.changes.push(change);
        batch.bytes += row.len();
    }
    batches.extend(current.map(Arc::new));
    Ok(batches)
}

fn decode(at: Position, row: &[u8]) -> Result<(u64, Change), StateError> {
    let (_, record) = history::decode(at, row)?;
    let change = tables::decode_change(record.table, &record.key, record.before, record.after)?;
    Ok((record.time_ms, change))
}
