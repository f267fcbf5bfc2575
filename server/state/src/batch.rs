//! What one revision changed, as it is recorded, published and replayed to watchers.

use crate::command::{
    CheckRecord, ClaimRecord, InstanceRecord, KvRecord, LeaseRecord, LockRecord, NodeRecord, ServiceRecord,
};
use crate::ids::{CheckId, InstanceId, Key, LeaseId, LockId, Namespace, NodeId, Revision, ServiceId};

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
    /// A lease was made or ended.
    Lease(LeaseChange),
    /// A lock's claims changed in number, or it is held back.
    Lock(LockChange),
    /// A claim on a lock was made, granted, renewed or given up.
    Claim(ClaimChange),
    /// A node came, changed, or went.
    Node(NodeChange),
    /// A service came, changed its settings, or went.
    Service(ServiceChange),
    /// An instance came, changed (its health too), or went.
    Instance(InstanceChange),
    /// A check came, changed (its output too), or went.
    Check(CheckChange),
}

impl Change {
    /// The change, if it is one of a KV entry.
    #[must_use]
    pub fn kv(&self) -> Option<&KvChange> {
        match self {
            Self::Kv(change) => Some(change),
            Self::Lease(_)
            | Self::Lock(_)
            | Self::Claim(_)
            | Self::Node(_)
            | Self::Service(_)
            | Self::Instance(_)
            | Self::Check(_) => None,
        }
    }
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

/// A lease before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct LeaseChange {
    /// The lease's namespace.
    pub namespace: Namespace,
    /// Its id.
    pub id: LeaseId,
    /// The lease before; `None` if it was made.
    pub before: Option<LeaseRecord>,
    /// The lease after; `None` if it ended.
    pub after: Option<LeaseRecord>,
}

/// A lock before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct LockChange {
    /// Which lock.
    pub lock: LockId,
    /// The lock before; `None` if it was free.
    pub before: Option<LockRecord>,
    /// The lock after; `None` if it is free.
    pub after: Option<LockRecord>,
}

/// A claim before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimChange {
    /// On which lock.
    pub lock: LockId,
    /// The claim's token.
    pub token: u64,
    /// The claim before; `None` if it was made.
    pub before: Option<ClaimRecord>,
    /// The claim after; `None` if it was given up.
    pub after: Option<ClaimRecord>,
}

/// A node before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeChange {
    /// Which node.
    pub id: NodeId,
    /// The node before; `None` if it came.
    pub before: Option<NodeRecord>,
    /// The node after; `None` if it went.
    pub after: Option<NodeRecord>,
}

/// A service before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceChange {
    /// Which service.
    pub id: ServiceId,
    /// The service before; `None` if it came.
    pub before: Option<ServiceRecord>,
    /// The service after; `None` if it went.
    pub after: Option<ServiceRecord>,
}

/// An instance before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceChange {
    /// Which instance.
    pub id: InstanceId,
    /// The instance before; `None` if it came.
    pub before: Option<InstanceRecord>,
    /// The instance after; `None` if it went.
    pub after: Option<InstanceRecord>,
}

/// A check before and after; one of them is there.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckChange {
    /// Which check.
    pub id: CheckId,
    /// The check before; `None` if it came.
    pub before: Option<CheckRecord>,
    /// The check after; `None` if it went.
    pub after: Option<CheckRecord>,
}
