//! Listing and counting keys, at the present or a past revision, with folders.

use super::walk::{Bounds, Step};
use super::{Direction, View};
use crate::command::{KeySpan, KvRecord, prefix_end};
use crate::error::{ReadError, StateError};
use crate::ids::{Namespace, Revision};
use crate::tables::kv;

/// Which keys to list, and how.
#[derive(Debug, Clone)]
pub struct ListQuery<'a> {
    /// The namespace.
    pub namespace: &'a Namespace,
    /// The keys.
    pub span: &'a KeySpan,
    /// The revision to list at; `None` is the present.
    pub at: Option<Revision>,
    /// Which way.
    pub direction: Direction,
    /// The last item of the page before; this page begins after it.
    pub after: Option<&'a Cursor>,
    /// Keys that have this after the span's start are rolled up into folders. Empty: none are.
    pub separator: &'a str,
    /// Leave the values out.
    pub keys_only: bool,
    /// Most items.
    pub limit: usize,
    /// About how many bytes the page may have.
    pub max_bytes: usize,
    /// Most rows to look at, so that one page stays short however little it yields.
    pub max_rows: usize,
}

/// A place in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// After (or before, descending) this key.
    Key(String),
    /// After (or before) all keys of this folder.
    Folder(String),
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Listing {
    /// The items in the order asked for.
    pub items: Vec<Item>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Cursor>,
}

/// A thing in a listing.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A key and its record.
    Entry(String, KvRecord),
    /// All keys that start with this.
    Folder(String),
}

/// A part of a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Keys found.
    pub keys: u64,
    /// Where to go on; `None` when all were counted.
    pub next: Option<Cursor>,
}

impl View {
    /// Lists a page of keys.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] and [`ReadError::Future`] for a revision that can't be read.
    pub fn kv_list(&self, query: &ListQuery<'_>) -> Result<Listing, ReadError> {
        let at = self.readable(query.at)?;
        let mut page = Listing::default();
        let (mut bytes, mut rows) = (0, 0);
        let mut last = None;
        let mut bounds = bounds(query.namespace, query.span, query.direction, query.after);
        let complete = self.walk(
            (kv::TABLE, self.tables.kv),
            &mut bounds,
            query.direction,
            at,
            &mut |bounds, row_key, row| {
                if page.items.len() == query.limit || bytes >= query.max_bytes || rows == query.max_rows {
                    return Ok(Step::Stop);
                }
                rows += 1;
                let key = kv::key_of(row_key)?;
                let Some(row) = row else {
                    last = Some(Cursor::Key(key.to_owned()));
                    return Ok(Step::Next);
                };
                if let Some(folder) = folder_of(key, query) {
                    bytes += folder.len();
                    leave_out_folder(bounds, query, folder);
                    last = Some(Cursor::Folder(folder.to_owned()));
                    page.items.push(Item::Folder(folder.to_owned()));
                    return Ok(Step::Jump);
                }
                let record = decode(row, query.keys_only)?;
                bytes += key.len() + record.value.len();
                last = Some(Cursor::Key(key.to_owned()));
                page.items.push(Item::Entry(key.to_owned(), record));
                Ok(Step::Next)
            },
        )?;
        page.next = if complete { None } else { last };
        Ok(page)
    }

    /// Counts keys of a span, looking at no more than `max_rows` rows.
    ///
    /// # Errors
    /// As [`View::kv_list`].
    pub fn kv_count(
        &self,
        namespace: &Namespace,
        span: &KeySpan,
        at: Option<Revision>,
        after: Option<&Cursor>,
        max_rows: usize,
    ) -> Result<Count, ReadError> {
        let at = self.readable(at)?;
        let (mut keys, mut rows) = (0, 0);
        let mut last: Vec<u8> = Vec::new();
        let mut bounds = bounds(namespace, span, Direction::Ascending, after);
        let complete = self.walk(
            (kv::TABLE, self.tables.kv),
            &mut bounds,
            Direction::Ascending,
            at,
            &mut |_, row_key, row| {
                if rows == max_rows {
                    return Ok(Step::Stop);
                }
                rows += 1;
                keys += u64::from(row.is_some());
                last.clear();
                last.extend_from_slice(row_key);
                Ok(Step::Next)
            },
        )?;
        let next = if complete { None } else { Some(Cursor::Key(kv::key_of(&last)?.to_owned())) };
        Ok(Count { keys, next })
    }
}

/// The row keys of a span that come after a cursor.
fn bounds(namespace: &Namespace, span: &KeySpan, direction: Direction, after: Option<&Cursor>) -> Bounds {
    let (from, to) = kv::row_bounds(namespace, span);
    let mut bounds = Bounds { from, to };
    let row_key = |key: &[u8]| {
        let mut row_key = Vec::with_capacity(64);
        kv::row_key(namespace, key, &mut row_key);
        row_key
    };
    match (after, direction) {
        (None, _) => {}
        (Some(Cursor::Key(key)), _) => bounds.skip(&row_key(key.as_bytes()), direction),
        (Some(Cursor::Folder(folder)), Direction::Ascending) => {
            bounds.from = row_key(&prefix_end(folder.as_bytes()));
        }
        (Some(Cursor::Folder(folder)), Direction::Descending) => bounds.to = row_key(folder.as_bytes()),
    }
    bounds
}

/// The folder a key is rolled up into.
fn folder_of<'k>(key: &'k str, query: &ListQuery<'_>) -> Option<&'k str> {
    if query.separator.is_empty() {
        return None;
    }
    let start = query.span.start.len();
    // A range's later keys need not begin with its start, nor have a character begin there.
    let rest = key.get(start..)?;
    rest.find(query.separator).map(|at| &key[..start + at + query.separator.len()])
}

fn leave_out_folder(left: &mut Bounds, query: &ListQuery<'_>, folder: &str) {
    let cursor = Cursor::Folder(folder.to_owned());
    let rest = bounds(query.namespace, query.span, query.direction, Some(&cursor));
    match query.direction {
        Direction::Ascending => left.from = rest.from,
        Direction::Descending => left.to = rest.to,
    }
}

fn decode(row: &[u8], keys_only: bool) -> Result<KvRecord, StateError> {
    use prost::Message;
    let mut record = KvRecord::decode(row).map_err(|e| StateError::corrupt(kv::TABLE.name, e.to_string()))?;
    if keys_only {
        record.value = Default::default();
    }
    Ok(record)
}
