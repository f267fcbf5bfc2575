//! The operations and comparisons that a batch or a transaction is made of. Sends nothing.

use std::time::Duration;

use bytes::Bytes;
use konsul_proto::v1::compare::{Operator, Target};
use konsul_proto::v1::{self, operation};

use super::options::{preconditions, proto_duration};
use crate::keys::Keys;

/// One write of a batch or a transaction.
///
/// ```
/// use konsul_client::PutOperation;
///
/// let put = PutOperation::new("app/port", "8080").content_type("text/plain").if_absent();
/// # let _ = put;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PutOperation {
    inner: v1::PutOperation,
}

impl PutOperation {
    /// Writes `value` to `key`.
    pub fn new(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { inner: v1::PutOperation { key: key.into(), value: value.into(), ..Default::default() } }
    }

    /// A number that is stored and returned with the entry.
    pub fn flags(mut self, flags: u64) -> Self {
        self.inner.flags = flags;
        self
    }

    /// The value's media type, up to 128 bytes.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.inner.content_type = content_type.into();
        self
    }

    /// Returns the entry that was overwritten.
    pub fn previous(mut self) -> Self {
        self.inner.previous = true;
        self
    }

    /// Binds the key to a lease: it is deleted when the lease ends.
    pub fn lease(mut self, id: u64) -> Self {
        self.inner.lease = id;
        self
    }

    /// Deletes the key when it was not written again for this long, 1 s to 24 h.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.inner.ttl = Some(proto_duration(ttl));
        self
    }

    preconditions!(inner.precondition);
}

impl From<PutOperation> for v1::PutOperation {
    fn from(put: PutOperation) -> Self {
        put.inner
    }
}

/// One delete of a batch or a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteOperation {
    inner: v1::DeleteOperation,
}

impl DeleteOperation {
    /// Deletes `key`.
    pub fn new(key: impl Into<String>) -> Self {
        Self { inner: v1::DeleteOperation { key: key.into(), ..Default::default() } }
    }

    /// Returns the entry that was deleted.
    pub fn previous(mut self) -> Self {
        self.inner.previous = true;
        self
    }

    preconditions!(inner.precondition);
}

impl From<DeleteOperation> for v1::DeleteOperation {
    fn from(delete: DeleteOperation) -> Self {
        delete.inner
    }
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    inner: operation::Operation,
}

impl Operation {
    /// Writes `value` to `key`. [`PutOperation`] has the same with more options.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        PutOperation::new(key, value).into()
    }

    /// Deletes `key`. [`DeleteOperation`] has the same with more options.
    pub fn delete(key: impl Into<String>) -> Self {
        DeleteOperation::new(key).into()
    }

    /// Deletes the keys under a prefix or in a range.
    pub fn delete_range(keys: impl Into<Keys>) -> Self {
        let selector = Some(keys.into().into());
        Self {
            inner: operation::Operation::DeleteRange(v1::DeleteRangeOperation { previous: false, selector }),
        }
    }

    /// Reads `key`, as the operations before it left it.
    pub fn get(key: impl Into<String>) -> Self {
        Self { inner: operation::Operation::Get(v1::GetOperation { key: key.into() }) }
    }

    /// Claims a lock alone under a lease. The whole transaction is refused with FAILED_PRECONDITION (reason LOCK_TAKEN) when it can't be
    /// had at once. A lock that is shared, or held by several, is asked for in a message of the API: [`Txn::request`](super::Txn::request).
    pub fn lock(name: impl Into<String>, lease: u64) -> Self {
        let claim = v1::LockOperation { name: name.into(), lease, ..Default::default() };
        Self { inner: operation::Operation::Lock(claim) }
    }

    /// Gives a claim on a lock up. [`LockGuard::unlock_operation`](crate::LockGuard::unlock_operation) is that of a lock that is held.
    pub fn unlock(name: impl Into<String>, lease: u64, token: u64) -> Self {
        Self { inner: operation::Operation::Unlock(v1::UnlockOperation { name: name.into(), lease, token }) }
    }

    /// Lists up to `limit` keys (0 means 1,000), as the operations before it left them.
    pub fn list(keys: impl Into<Keys>, limit: u32) -> Self {
        let selector = Some(keys.into().into());
        Self { inner: operation::Operation::List(v1::ListOperation { keys_only: false, limit, selector }) }
    }
}

impl From<PutOperation> for Operation {
    fn from(put: PutOperation) -> Self {
        Self { inner: operation::Operation::Put(put.into()) }
    }
}

impl From<DeleteOperation> for Operation {
    fn from(delete: DeleteOperation) -> Self {
        Self { inner: operation::Operation::Delete(delete.into()) }
    }
}

impl From<Operation> for v1::Operation {
    fn from(operation: Operation) -> Self {
        Self { operation: Some(operation.inner) }
    }
}

/// Something that is true or false of a key, for [`Txn::compare`](super::Txn::compare).
///
/// ```
/// use konsul_client::{Compare, Operator};
///
/// let written_since = Compare::mod_revision("app/port", Operator::Greater, 17);
/// # let _ = written_since;
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    inner: v1::Compare,
}

impl Compare {
    fn new(key: impl Into<String>, operator: Operator, target: Target) -> Self {
        Self { inner: v1::Compare { key: key.into(), operator: operator.into(), target: Some(target) } }
    }

    /// The key exists.
    pub fn exists(key: impl Into<String>) -> Self {
        Self::new(key, Operator::Equal, Target::Exists(true))
    }

    /// The key does not exist.
    pub fn absent(key: impl Into<String>) -> Self {
        Self::new(key, Operator::Equal, Target::Exists(false))
    }

    /// The key's value compares like this, byte by byte.
    pub fn value(key: impl Into<String>, operator: Operator, value: impl Into<Bytes>) -> Self {
        Self::new(key, operator, Target::Value(value.into()))
    }

    /// The key's modify revision compares like this; a key that does not exist has 0.
    pub fn mod_revision(key: impl Into<String>, operator: Operator, revision: u64) -> Self {
        Self::new(key, operator, Target::ModRevision(revision))
    }

    /// The key's create revision compares like this; a key that does not exist has 0.
    pub fn create_revision(key: impl Into<String>, operator: Operator, revision: u64) -> Self {
        Self::new(key, operator, Target::CreateRevision(revision))
    }

    /// The key's version compares like this; a key that does not exist has 0.
    pub fn version(key: impl Into<String>, operator: Operator, version: u64) -> Self {
        Self::new(key, operator, Target::Version(version))
    }
}

impl From<Compare> for v1::Compare {
    fn from(compare: Compare) -> Self {
        compare.inner
    }
}
