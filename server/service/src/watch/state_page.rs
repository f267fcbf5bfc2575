//! The initial state of a target, read page by page at one pinned revision. If that is compacted meanwhile, the
//! target ends with OUT_OF_RANGE, and the client opens it again.

use bytes::Bytes;
use konsul_proto::v1::catalog_object::Object;
use konsul_proto::v1::{self, catalog_watch_response, health_watch_response, watch_response::Kind};
use konsul_state::command::KeySpan;
use konsul_state::view::{Cursor, Direction, Item, ListQuery, Paging, RowCursor, Rows};
use konsul_state::{CheckOwner, Label, Namespace, NodeId, ReadError, Revision, View};

use super::hub::Hub;
use super::messages;
use super::target::{Checks, Keys, Listed, TargetSpec, Watched};
use crate::catalog::shown;
use crate::convert;
use crate::error::ServiceError;
use crate::limits;

/// A message of the initial state, and where the next one goes on.
pub(super) struct StatePage {
    /// The message; `None` if there is nothing to send yet.
    pub(super) message: Option<Bytes>,
    /// `None` when the state is complete.
    pub(super) next: Option<StateCursor>,
}

/// Where the initial state goes on.
pub(super) enum StateCursor {
    /// After this key.
    Key(Cursor),
    /// In this one of the sections that a target of the catalog has, after this row.
    Row(usize, Option<RowCursor>),
}

/// What a target of the catalog begins with, table by table.
#[derive(Clone, Copy)]
enum Section<'a> {
    Services,
    Service(&'a Label),
    Instances(Option<&'a Label>),
    Nodes,
}

/// Reads the next page.
pub(super) fn read(
    hub: &Hub,
    spec: &TargetSpec,
    pinned: Revision,
    after: Option<&StateCursor>,
) -> Result<StatePage, ServiceError> {
    let view = hub.state.view()?;
    let page = Page { view, namespace: &spec.namespace, pinned, max_bytes: hub.limits.watch_batch_bytes };
    match &spec.watched {
        Watched::Kv(keys) => {
            let after = match after {
                Some(StateCursor::Key(cursor)) => Some(cursor),
                Some(StateCursor::Row(..)) | None => None,
            };
            page.of_keys(keys, after)
        }
        Watched::Catalog(listed) => {
            let (at, after) = row(after);
            page.of_catalog(listed, at, after)
        }
        Watched::Health(checks) => page.of_checks(checks, row(after).1),
    }
}

fn row(after: Option<&StateCursor>) -> (usize, Option<&RowCursor>) {
    match after {
        Some(StateCursor::Row(section, after)) => (*section, after.as_ref()),
        Some(StateCursor::Key(_)) | None => (0, None),
    }
}

struct Page<'a> {
    view: View,
    namespace: &'a Namespace,
    pinned: Revision,
    max_bytes: usize,
}

impl Page<'_> {
    fn of_keys(&self, keys: &Keys, after: Option<&Cursor>) -> Result<StatePage, ServiceError> {
        let (entries, next) = match keys {
            Keys::One(key) => {
                let record = self.view.kv_get(self.namespace, key, Some(self.pinned))?;
                let entry = record.map(|record| convert::entry(key.as_str().to_owned(), record));
                (entry.into_iter().collect(), None)
            }
            Keys::Span(span) => self.of_span(span, after)?,
        };
        let message = (!entries.is_empty()).then(|| {
            let (kind, revision) = (Kind::State.into(), self.pinned.0);
            messages::encode(&v1::WatchResponse { kind, revision, entries, ..Default::default() })
        });
        Ok(StatePage { message, next: next.map(StateCursor::Key) })
    }

    fn of_span(
        &self,
        span: &KeySpan,
        after: Option<&Cursor>,
    ) -> Result<(Vec<v1::Entry>, Option<Cursor>), ServiceError> {
        let page = self.view.kv_list(&ListQuery {
            namespace: self.namespace,
            span,
            at: Some(self.pinned),
            direction: Direction::Ascending,
            after,
            separator: "",
            keys_only: false,
            limit: limits::LIST_PAGE.max as usize,
            max_bytes: self.max_bytes,
            max_rows: limits::PAGE_ROWS,
        })?;
        Ok((page.items.into_iter().filter_map(entry).collect(), page.next))
    }

    fn of_catalog(
        &self,
        listed: &Listed,
        at: usize,
        after: Option<&RowCursor>,
    ) -> Result<StatePage, ServiceError> {
        let sections: &[Section<'_>] = match listed {
            Listed::Service(name) => &[Section::Service(name), Section::Instances(Some(name))],
            Listed::Services => &[Section::Services],
            Listed::Nodes => &[Section::Nodes],
            Listed::Everything => &[Section::Services, Section::Instances(None), Section::Nodes],
        };
        let Some(section) = sections.get(at) else { return Ok(StatePage { message: None, next: None }) };
        let (objects, rest) = self.of_section(*section, after)?;
        let next = match rest {
            rest @ Some(_) => Some(StateCursor::Row(at, rest)),
            None => (at + 1 < sections.len()).then_some(StateCursor::Row(at + 1, None)),
        };
        let objects: Vec<_> =
            objects.into_iter().map(|object| v1::CatalogObject { object: Some(object) }).collect();
        let message = (!objects.is_empty()).then(|| {
            let (kind, revision) = (catalog_watch_response::Kind::State.into(), self.pinned.0);
            messages::encode(&v1::CatalogWatchResponse { kind, revision, objects, ..Default::default() })
        });
        Ok(StatePage { message, next })
    }

    fn of_section(
        &self,
        section: Section<'_>,
        after: Option<&RowCursor>,
    ) -> Result<(Vec<Object>, Option<RowCursor>), ReadError> {
        let (view, namespace) = (&self.view, self.namespace);
        let paging = self.paging(after);
        Ok(match section {
            Section::Services => objects(view.services(Some((namespace, "")), &paging)?, |id, record| {
                Object::Service(shown::service(&id.name, record))
            }),
            Section::Service(name) => {
                // The first whose name begins with it is the one of that name, if that is there.
                let first =
                    view.services(Some((namespace, name.as_str())), &Paging { limit: 1, ..paging })?;
                let named = first.rows.into_iter().filter(|(id, _)| id.name == *name);
                let shown = |(_, record)| Object::Service(shown::service(name, record));
                (named.map(shown).collect(), None)
            }
            Section::Instances(service) => {
                objects(view.instances(Some((namespace, service)), &paging)?, |id, record| {
                    Object::Instance(shown::instance(&id, record))
                })
            }
            Section::Nodes => objects(view.nodes(Some(namespace), &paging)?, |id, record| {
                Object::Node(shown::node(&id.name, record))
            }),
        })
    }

    fn of_checks(&self, checks: &Checks, after: Option<&RowCursor>) -> Result<StatePage, ServiceError> {
        let (view, namespace) = (&self.view, self.namespace);
        let paging = self.paging(after);
        let rows = match checks {
            Checks::OfService(name) => view.checks(Some((namespace, Some(name))), &paging)?,
            Checks::OfNode(name) => {
                let node = NodeId { namespace: namespace.clone(), name: name.clone() };
                view.checks_of_owner(&CheckOwner::Node(node), &paging)?
            }
            Checks::Everything => view.checks(Some((namespace, None)), &paging)?,
        };
        let (checks, rest) = objects(rows, |id, record| shown::check(&id, record));
        let message = (!checks.is_empty()).then(|| {
            let (kind, revision) = (health_watch_response::Kind::State.into(), self.pinned.0);
            messages::encode(&v1::HealthWatchResponse { kind, revision, checks, ..Default::default() })
        });
        Ok(StatePage { message, next: rest.map(|rest| StateCursor::Row(0, Some(rest))) })
    }

    fn paging<'p>(&self, after: Option<&'p RowCursor>) -> Paging<'p> {
        Paging {
            at: Some(self.pinned),
            after,
            limit: limits::LIST_PAGE.max as usize,
            max_bytes: self.max_bytes,
            max_rows: limits::PAGE_ROWS,
        }
    }
}

fn objects<K, R, O>(page: Rows<K, R>, shown: impl Fn(K, R) -> O) -> (Vec<O>, Option<RowCursor>) {
    (page.rows.into_iter().map(|(id, record)| shown(id, record)).collect(), page.next)
}

fn entry(item: Item) -> Option<v1::Entry> {
    match item {
        Item::Entry(key, record) => Some(convert::entry(key, record)),
        // Only a listing with a separator has folders.
        Item::Folder(_) => None,
    }
}
