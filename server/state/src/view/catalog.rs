//! Reads of the catalog: nodes, services, instances and their checks.

use prost::Message;

use super::coordination::encoded;
use super::walk::{Bounds, Step};
use super::{Direction, View};
use crate::LeaseId;
use crate::command::{CheckRecord, InstanceRecord, NodeRecord, ServiceRecord};
use crate::error::{ReadError, StateError};
use crate::ids::{CheckId, CheckOwner, InstanceId, Label, Namespace, NodeId, Revision, ServiceId};
use crate::tables::found::{self, By};
use crate::tables::kv::END;
use crate::tables::{ObjectTable, bound, check, instance, node, service};

/// Where a listing goes on: behind this row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowCursor(Vec<u8>);

impl RowCursor {
    /// The cursor that [`RowCursor::as_bytes`] told.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The cursor behind an instance, in a listing of instances.
    #[must_use]
    pub fn behind_instance(id: &InstanceId) -> Self {
        Self(encoded::<instance::Instance>(id))
    }

    /// The cursor behind a node, in a listing of nodes.
    #[must_use]
    pub fn behind_node(id: &NodeId) -> Self {
        Self(encoded::<node::Node>(id))
    }

    /// The cursor as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a listing of rows is bounded by.
#[derive(Debug, Clone, Copy)]
pub struct Paging<'a> {
    /// The revision to read at; `None` is now.
    pub at: Option<Revision>,
    /// The last row of the page before.
    pub after: Option<&'a RowCursor>,
    /// Most rows in the page.
    pub limit: usize,
    /// Bytes of records after which the page ends.
    pub max_bytes: usize,
    /// Rows looked at after which the page ends.
    pub max_rows: usize,
}

/// A page of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows<K, R> {
    /// The rows, in the order of their keys.
    pub rows: Vec<(K, R)>,
    /// Where to go on; `None` when this was the last page.
    pub next: Option<RowCursor>,
}

impl View {
    /// A node.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn node(&self, id: &NodeId) -> Result<Option<NodeRecord>, StateError> {
        self.record::<node::Node>(id)
    }

    /// A service.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn service(&self, id: &ServiceId) -> Result<Option<ServiceRecord>, StateError> {
        self.record::<service::Service>(id)
    }

    /// An instance.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn instance(&self, id: &InstanceId) -> Result<Option<InstanceRecord>, StateError> {
        self.record::<instance::Instance>(id)
    }

    /// A check.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn check(&self, id: &CheckId) -> Result<Option<CheckRecord>, StateError> {
        self.record::<check::Check>(id)
    }

    /// The checks of an instance or a node, in the order of their ids.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn checks_of(&self, owner: &CheckOwner) -> Result<Vec<(CheckId, CheckRecord)>, StateError> {
        check::of_owner(&self.tables, &self.txn, owner)
    }

    /// How many instances end with a lease.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn lease_instances(&self, namespace: &Namespace, id: LeaseId) -> Result<u64, StateError> {
        Ok(bound::instances(&self.tables, &self.txn, namespace, id)?.len() as u64)
    }

    /// How many instances are found by something.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn count_instances(&self, namespace: &Namespace, by: &By<'_>) -> Result<u64, StateError> {
        found::counted(&self.tables, &self.txn, namespace, by)
    }

    /// The present instances that run on a node, or have a tag or an item of metadata, after one of them, in the order of services and
    /// ids, at most `most`.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn instances_by(
        &self,
        namespace: &Namespace,
        by: &By<'_>,
        after: Option<&InstanceId>,
        most: usize,
    ) -> Result<Vec<(InstanceId, InstanceRecord)>, StateError> {
        let ids = found::instances(&self.tables, &self.txn, namespace, by, after, most)?;
        let read = |id: InstanceId| Ok(self.instance(&id)?.map(|record| (id, record)));
        ids.into_iter().filter_map(|id| read(id).transpose()).collect()
    }

    /// Lists the nodes of a namespace, or of all.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] and [`ReadError::Future`] for a revision that can't be read.
    pub fn nodes(
        &self,
        within: Option<&Namespace>,
        paging: &Paging<'_>,
    ) -> Result<Rows<NodeId, NodeRecord>, ReadError> {
        self.page::<node::Node>(begin(within, &[]), paging)
    }

    /// Lists the services of a namespace whose names begin with `prefix`, or of all namespaces.
    ///
    /// # Errors
    /// As [`View::nodes`].
    pub fn services(
        &self,
        within: Option<(&Namespace, &str)>,
        paging: &Paging<'_>,
    ) -> Result<Rows<ServiceId, ServiceRecord>, ReadError> {
        let (namespace, prefix) = within.unzip();
        self.page::<service::Service>(begin(namespace, prefix.unwrap_or_default().as_bytes()), paging)
    }

    /// Lists the instances of a service, of a namespace, or of all.
    ///
    /// # Errors
    /// As [`View::nodes`].
    pub fn instances(
        &self,
        within: Option<(&Namespace, Option<&Label>)>,
        paging: &Paging<'_>,
    ) -> Result<Rows<InstanceId, InstanceRecord>, ReadError> {
        let (namespace, service) = within.unzip();
        let service = service.flatten().map(|service| [service.as_str().as_bytes(), &[END]].concat());
        self.page::<instance::Instance>(begin(namespace, &service.unwrap_or_default()), paging)
    }

    /// Lists the checks of all instances of a service, of a namespace, or of all.
    ///
    /// # Errors
    /// As [`View::nodes`].
    pub fn checks(
        &self,
        within: Option<(&Namespace, Option<&Label>)>,
        paging: &Paging<'_>,
    ) -> Result<Rows<CheckId, CheckRecord>, ReadError> {
        let (namespace, service) = within.unzip();
        let service = service.flatten().map(check::of_service);
        self.page::<check::Check>(begin(namespace, &service.unwrap_or_default()), paging)
    }

    /// Lists the checks of an instance or a node, as they were at a revision.
    ///
    /// # Errors
    /// As [`View::nodes`].
    pub fn checks_of_owner(
        &self,
        owner: &CheckOwner,
        paging: &Paging<'_>,
    ) -> Result<Rows<CheckId, CheckRecord>, ReadError> {
        let mut prefix = Vec::with_capacity(96);
        check::prefix(owner, &mut prefix);
        self.page::<check::Check>(prefix, paging)
    }

    /// Rows of a table whose keys begin with a prefix.
    fn page<T: ObjectTable>(
        &self,
        prefix: Vec<u8>,
        paging: &Paging<'_>,
    ) -> Result<Rows<T::Key, T::Record>, ReadError> {
        let at = self.readable(paging.at)?;
        let mut bounds = Bounds { to: after_all(&prefix), from: prefix };
        if let Some(RowCursor(after)) = paging.after
            && *after >= bounds.from
        {
            bounds.skip(after, Direction::Ascending);
        }
        let mut page = Vec::new();
        let (mut bytes, mut rows) = (0, 0);
        let mut last = Vec::new();
        let table = (T::SPEC, T::db(&self.tables));
        let complete =
            self.walk(table, &mut bounds, Direction::Ascending, at, &mut |_, row_key, record| {
                if page.len() == paging.limit || bytes >= paging.max_bytes || rows == paging.max_rows {
                    return Ok(Step::Stop);
                }
                rows += 1;
                last.clear();
                last.extend_from_slice(row_key);
                if let Some(record) = record {
                    bytes += row_key.len() + record.len();
                    let record = T::Record::decode(record);
                    let record = record.map_err(|e| StateError::corrupt(T::SPEC.name, e.to_string()))?;
                    page.push((T::decode_key(row_key)?, record));
                }
                Ok(Step::Next)
            })?;
        Ok(Rows { rows: page, next: (!complete).then_some(RowCursor(last)) })
    }
}

/// What the row keys of a namespace begin with that go on with `rest`; of all namespaces without one.
fn begin(namespace: Option<&Namespace>, rest: &[u8]) -> Vec<u8> {
    namespace.map_or_else(
        // LMDB has no empty keys, and none begins with less.
        || vec![END],
        |namespace| [namespace.as_str().as_bytes(), &[END], rest].concat(),
    )
}

/// The first point behind all row keys that begin with a prefix.
fn after_all(prefix: &[u8]) -> Vec<u8> {
    match prefix {
        // All namespaces: they begin with a letter or a digit.
        [END] => vec![0x7f],
        _ => {
            let mut end = prefix.to_vec();
            if let Some(last) = end.last_mut() {
                *last += 1;
            }
            end
        }
    }
}
