//! Who watches what: for each change, the targets it concerns, without looking at any other.

use std::collections::HashMap;
use std::sync::Arc;

use konsul_state::batch::{Batch, Change, KvChange};
use konsul_state::{Key, Namespace, Revision};
use slab::Slab;

use super::shard::WatcherCell;
use super::spans::Spans;
use super::target::{Filter, TargetSpec, Watched};

/// The targets of one shard's watchers.
#[derive(Default)]
pub(super) struct Index {
    namespaces: HashMap<Namespace, InNamespace>,
    targets: usize,
}

struct InNamespace {
    keys: HashMap<Key, Members>,
    spans: Spans<Members>,
}

/// The targets that watch the same keys.
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
        let empty = || InNamespace { keys: HashMap::new(), spans: Spans::new() };
        let namespace = self.namespaces.entry(spec.namespace.clone()).or_insert_with(empty);
        let members = match &spec.keys {
            Watched::Key(key) => namespace.keys.entry(key.clone()).or_default(),
            Watched::Span(span) => namespace.spans.entry(span.start.as_bytes(), &span.end),
        };
        members.members.insert(Member { cell, target, filter: spec.filter })
    }

    /// Takes a target out.
    pub(super) fn remove(&mut self, spec: &TargetSpec, place: usize) {
        let Some(namespace) = self.namespaces.get_mut(&spec.namespace) else { return };
        let members = match &spec.keys {
            Watched::Key(key) => namespace.keys.get_mut(key),
            Watched::Span(span) => namespace.spans.get_mut(span.start.as_bytes(), &span.end),
        };
        let Some(members) = members else { return };
        if members.members.try_remove(place).is_none() {
            return;
        }
        self.targets -= 1;
        if members.members.is_empty() {
            match &spec.keys {
                Watched::Key(key) => drop(namespace.keys.remove(key)),
                Watched::Span(span) => namespace.spans.remove(span.start.as_bytes(), &span.end),
            }
        }
        if namespace.keys.is_empty() && namespace.spans.is_empty() {
            self.namespaces.remove(&spec.namespace);
        }
    }

    /// Marks and wakes every target that a Batch concerns.
    pub(super) fn mark(&mut self, batch: &Batch) {
        for change in batch.changes.iter().filter_map(Change::kv) {
            if let Some(namespace) = self.namespaces.get_mut(&change.namespace) {
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
            for members in namespace.keys.values() {
                members.members.iter().for_each(|(_, member)| visit(member));
            }
            namespace.spans.visit_all(&mut |members| {
                members.members.iter().for_each(|(_, member)| visit(member));
            });
        }
    }
}

impl InNamespace {
    fn mark(&mut self, revision: Revision, change: &KvChange) {
        let is_delete = change.after.is_none();
        if let Some(members) = self.keys.get_mut(&change.key) {
            members.mark(revision, is_delete);
        }
        self.spans.visit(change.key.as_str().as_bytes(), &mut |members| members.mark(revision, is_delete));
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
