//! The initial state of a target, read page by page at one pinned revision. If that is compacted meanwhile, the
//! target ends with OUT_OF_RANGE, and the client opens it again.

use bytes::Bytes;
use konsul_proto::v1::{self, watch_response::Kind};
use konsul_state::Revision;
use konsul_state::view::{Cursor, Direction, Item, ListQuery};

use super::hub::Hub;
use super::messages;
use super::target::{TargetSpec, Watched};
use crate::convert;
use crate::error::ServiceError;
use crate::limits;

/// A message of the initial state, and where the next one goes on.
pub(super) struct StatePage {
    /// The message; `None` if there is nothing to send yet.
    pub(super) message: Option<Bytes>,
    /// `None` when the state is complete.
    pub(super) next: Option<Cursor>,
}

/// Reads the next page.
pub(super) fn read(
    hub: &Hub,
    spec: &TargetSpec,
    pinned: Revision,
    after: Option<&Cursor>,
) -> Result<StatePage, ServiceError> {
    let view = hub.state.view()?;
    let (entries, next) = match &spec.keys {
        Watched::Key(key) => {
            let record = view.kv_get(&spec.namespace, key, Some(pinned))?;
            let entry = record.map(|record| convert::entry(key.as_str().to_owned(), record));
            (entry.into_iter().collect(), None)
        }
        Watched::Span(span) => {
            let page = view.kv_list(&ListQuery {
                namespace: &spec.namespace,
                span,
                at: Some(pinned),
                direction: Direction::Ascending,
                after,
                separator: "",
                keys_only: false,
                limit: limits::LIST_PAGE.max as usize,
                max_bytes: hub.limits.watch_batch_bytes,
                max_rows: limits::PAGE_ROWS,
            })?;
            (page.items.into_iter().filter_map(entry).collect::<Vec<_>>(), page.next)
        }
    };
    let message = (!entries.is_empty()).then(|| {
        let kind = Kind::State.into();
        messages::encode(&v1::WatchResponse { kind, revision: pinned.0, entries, ..Default::default() })
    });
    Ok(StatePage { message, next })
}

fn entry(item: Item) -> Option<v1::Entry> {
    match item {
        Item::Entry(key, record) => Some(convert::entry(key, record)),
        // Only a listing with a separator has folders.
        Item::Folder(_) => None,
    }
}
