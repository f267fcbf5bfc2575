//! Who watches what: for each change, the targets it concerns, without looking at any other.

use std::collections::HashMap;
use std::sync::Arc;

use konsul_state::batch::{Batch, Change, KvChange};
use konsul_state::{CheckOwner, Key, Namespace, Revision};
use slab::Slab;

use super::shard::WatcherCell;
use super::spans::Spans;
use super::target::{Checks, Filter, Keys, Listed, TargetSpec, Watched};

/// The targets of one shard's watchers.
#[derive(Default)]
pub(super) struct Index {
    namespaces: HashMap<Namespace, InNamespace>,
    targets: usize,
}

#[derive(Default)]
struct InNamespace {
    keys: HashMap<Key, Members>,
    spans: Spans<Members>,
    listed: HashMap<Listed, Members>,
    checks: HashMap<Checks, Members>,
}

/// The targets that watch the same.
#[derive(Default)]
struct Members {
    members: Slab<Member>,
    /// The last revision that was marked for them, and whether that was for puts and for deletes: one mark a
    /// revision is enough.
    marked: (Revision, bool, bool),
}

struct Member {
    cell: Arc<WatcherCell>,
    target: u32,
    filter: Filter,
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.targets == 0
    }

    /// Enters a target, and returns its place for [`Index::remove`].
    pub(super) fn insert(&mut self, spec: &TargetSpec, cell: Arc<WatcherCell>, target: u32) -> usize {
        self.targets += 1;
        let namespace = self.namespaces.entry(spec.namespace.clone()).or_default();
        let members = match &spec.watched {
            Watched::Kv(Keys::One(key)) => namespace.keys.entry(key.clone()).or_default(),
            Watched::Kv(Keys::Span(span)) => namespace.spans.entry(span.start.as_bytes(), &span.end),
            Watched::Catalog(listed) => namespace.listed.entry(listed.clone()).or_default(),
            Watched::Health(checks) => namespace.checks.entry(checks.clone()).or_default(),
        };
        members.members.insert(Member { cell, target, filter: spec.filter })
    }

    /// Takes a target out.
    pub(super) fn remove(&mut self, spec: &TargetSpec, place: usize) {
        let Some(namespace) = self.namespaces.get_mut(&spec.namespace) else { return };
        let members = match &spec.watched {
            Watched::Kv(Keys::One(key)) => namespace.keys.get_mut(key),
            Watched::Kv(Keys::Span(span)) => namespace.spans.get_mut(span.start.as_bytes(), &span.end),
            Watched::Catalog(listed) => namespace.listed.get_mut(listed),
            Watched::Health(checks) => namespace.checks.get_mut(checks),
        };
        let Some(members) = members else { return };
        if members.members.try_remove(place).is_none() {
            return;
        }
        self.targets -= 1;
        if members.members.is_empty() {
            match &spec.watched {
                Watched::Kv(Keys::One(key)) => drop(namespace.keys.remove(key)),
                Watched::Kv(Keys::Span(span)) => namespace.spans.remove(span.start.as_bytes(), &span.end),
                Watched::Catalog(listed) => drop(namespace.listed.remove(listed)),
                Watched::Health(checks) => drop(namespace.checks.remove(checks)),
            }
        }
        if namespace.is_empty() {
            self.namespaces.remove(&spec.namespace);
        }
    }

    /// Marks and wakes every target that a Batch concerns.
    pub(super) fn mark(&mut self, batch: &Batch) {
        for change in &batch.changes {
            let Some(namespace) = namespace_of(change) else { continue };
            if let Some(namespace) = self.namespaces.get_mut(namespace) {
                namespace.mark(batch.revision, change);
            }
        }
    }

    /// Marks and wakes every target: from `revision` on it is not known whom the changes concern.
    pub(super) fn mark_all(&mut self, revision: Revision) {
        self.visit_all(&mut |member| member.cell.mark(member.target, revision));
    }

    /// Wakes every watcher.
    pub(super) fn wake_all(&mut self) {
        self.visit_all(&mut |member| member.cell.wake());
    }

    fn visit_all(&mut self, visit: &mut impl FnMut(&Member)) {
        for namespace in self.namespaces.values_mut() {
            let named = namespace.keys.values().chain(namespace.listed.values());
            for members in named.chain(namespace.checks.values()) {
                members.members.iter().for_each(|(_, member)| visit(member));
            }
            namespace.spans.visit_all(&mut |members| {
                members.members.iter().for_each(|(_, member)| visit(member));
            });
        }
    }
}

/// The namespace that a change is of, if it is one that can be watched.
fn namespace_of(change: &Change) -> Option<&Namespace> {
    match change {
        Change::Kv(change) => Some(&change.namespace),
        Change::Service(change) => Some(&change.id.namespace),
        Change::Instance(change) => Some(&change.id.namespace),
        Change::Node(change) => Some(&change.id.namespace),
        Change::Check(change) => Some(change.id.owner.namespace()),
        Change::Lease(_) | Change::Lock(_) | Change::Claim(_) => None,
    }
}

impl InNamespace {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.spans.is_empty() && self.listed.is_empty() && self.checks.is_empty()
    }

    fn mark(&mut self, revision: Revision, change: &Change) {
        match change {
            Change::Kv(change) => self.mark_kv(revision, change),
            Change::Service(change) if !self.listed.is_empty() => {
                let named = Listed::Service(change.id.name.clone());
                self.mark_listed(revision, &[named, Listed::Services, Listed::Everything]);
            }
            Change::Instance(change) if !self.listed.is_empty() => {
                let named = Listed::Service(change.id.service.clone());
                self.mark_listed(revision, &[named, Listed::Everything]);
            }
            Change::Node(_) => self.mark_listed(revision, &[Listed::Nodes, Listed::Everything]),
            Change::Check(change) if !self.checks.is_empty() => {
                let named = match &change.id.owner {
                    CheckOwner::Instance(instance) => Checks::OfService(instance.service.clone()),
                    CheckOwner::Node(node) => Checks::OfNode(node.name.clone()),
                };
                for checks in [named, Checks::Everything] {
                    if let Some(members) = self.checks.get_mut(&checks) {
                        members.mark(revision, false);
                    }
                }
            }
            Change::Service(_)
            | Change::Instance(_)
            | Change::Check(_)
            | Change::Lease(_)
            | Change::Lock(_)
            | Change::Claim(_) => {}
        }
    }

    fn mark_kv(&mut self, revision: Revision, change: &KvChange) {
        let is_delete = change.after.is_none();
        if let Some(members) = self.keys.get_mut(&change.key) {
            members.mark(revision, is_delete);
        }
        self.spans.visit(change.key.as_str().as_bytes(), &mut |members| members.mark(revision, is_delete));
    }

    /// Those who watch one of these. They are sent puts and deletes alike.
    fn mark_listed(&mut self, revision: Revision, listed: &[Listed]) {
        for listed in listed {
            if let Some(members) = self.listed.get_mut(listed) {
                members.mark(revision, false);
            }
        }
    }
}

impl Members {
    fn mark(&mut self, revision: Revision, is_delete: bool) {
        if self.marked.0 != revision {
            self.marked = (revision, false, false);
        }
        let seen = if is_delete { &mut self.marked.2 } else { &mut self.marked.1 };
        if std::mem::replace(seen, true) {
            return;
        }
        for (_, member) in &self.members {
            if member.filter.admits(is_delete) {
                member.cell.mark(member.target, revision);
            }
        }
    }
}
