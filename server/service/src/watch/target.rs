//! What a target of a watch stream is, and whether a change concerns it. How each service's requests name theirs is in `query`.

use konsul_state::batch::{Change, CheckChange, InstanceChange, KvChange, NodeChange, ServiceChange};
use konsul_state::command::KeySpan;
use konsul_state::{CheckOwner, Key, Label, Namespace, Revision};

/// What a target watches and how it is told. Watchers with equal ones share their encoded messages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TargetSpec {
    pub(super) namespace: Namespace,
    pub(super) watched: Watched,
    pub(super) filter: Filter,
    /// Send with each event what was there before it.
    pub(super) previous: bool,
}

/// What a target watches. Each service has variants of its own, and only they are in its streams.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Watched {
    Kv(Keys),
    Catalog(Listed),
    Health(Checks),
}

/// Which keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Keys {
    One(Key),
    Span(KeySpan),
}

/// Which part of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Listed {
    /// A service with its instances.
    Service(Label),
    /// All services, without their instances.
    Services,
    Nodes,
    Everything,
}

/// Which checks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Checks {
    /// Those of all instances of a service.
    OfService(Label),
    OfNode(Label),
    Everything,
}

/// Which events a target is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Puts,
    Deletes,
}

/// Where a target begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With what comes after the opening.
    Now,
    /// With this revision.
    At(Revision),
    /// With what is there.
    State,
}

impl Filter {
    /// Whether a change of this kind is sent.
    pub(super) fn admits(self, is_delete: bool) -> bool {
        match self {
            Self::All => true,
            Self::Puts => !is_delete,
            Self::Deletes => is_delete,
        }
    }
}

impl TargetSpec {
    /// Whether the target is sent this change.
    pub(super) fn admits(&self, change: &Change) -> bool {
        match (&self.watched, change) {
            (Watched::Kv(keys), Change::Kv(change)) => self.admits_kv(keys, change),
            (Watched::Catalog(listed), change) => self.admits_listed(listed, change),
            (Watched::Health(checks), Change::Check(change)) => self.admits_check(checks, change),
            (Watched::Kv(_) | Watched::Health(_), _) => false,
        }
    }

    fn admits_kv(&self, keys: &Keys, change: &KvChange) -> bool {
        let watches = match keys {
            Keys::One(key) => *key == change.key,
            Keys::Span(span) => span.contains(change.key.as_str()),
        };
        watches && self.filter.admits(change.after.is_none()) && self.namespace == change.namespace
    }

    fn admits_listed(&self, listed: &Listed, change: &Change) -> bool {
        match change {
            Change::Service(ServiceChange { id, .. }) => {
                let watches = match listed {
                    Listed::Service(name) => *name == id.name,
                    Listed::Services | Listed::Everything => true,
                    Listed::Nodes => false,
                };
                watches && id.namespace == self.namespace
            }
            Change::Instance(InstanceChange { id, .. }) => {
                let watches = match listed {
                    Listed::Service(name) => *name == id.service,
                    Listed::Everything => true,
                    Listed::Services | Listed::Nodes => false,
                };
                watches && id.namespace == self.namespace
            }
            Change::Node(NodeChange { id, .. }) => {
                matches!(listed, Listed::Nodes | Listed::Everything) && id.namespace == self.namespace
            }
            Change::Kv(_) | Change::Lease(_) | Change::Lock(_) | Change::Claim(_) | Change::Check(_) => false,
        }
    }

    fn admits_check(&self, checks: &Checks, CheckChange { id, .. }: &CheckChange) -> bool {
        let watches = match (checks, &id.owner) {
            (Checks::Everything, _) => true,
            (Checks::OfService(name), CheckOwner::Instance(instance)) => *name == instance.service,
            (Checks::OfNode(name), CheckOwner::Node(node)) => *name == node.name,
            (Checks::OfService(_), CheckOwner::Node(_)) | (Checks::OfNode(_), CheckOwner::Instance(_)) => {
                false
            }
        };
        watches && *id.owner.namespace() == self.namespace
    }
}
