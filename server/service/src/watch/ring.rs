//! The ring of recent Batches: consecutive revisions up to the newest, within a bound of count and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use konsul_state::{Batch, Revision};

/// Recent Batches, one a revision, without gaps.
pub(super) struct Ring {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The newest revision published; the last Batch's, unless that did not fit.
    head: Revision,
    max_batches: usize,
    max_bytes: usize,
}

/// What the ring has from a revision on.
pub(super) enum Recent {
    /// Batches from that revision on; none if it is still to come.
    Batches(Vec<Arc<Batch>>),
    /// It is not in the ring any more. The newest revision is this one.
    Gone(Revision),
}

impl Ring {
    pub(super) fn new(head: Revision, max_batches: usize, max_bytes: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, head, max_batches, max_bytes }
    }

    /// Takes in the next Batch. One that is there already is left out; after a gap the ring begins anew.
    pub(super) fn push(&mut self, batch: Arc<Batch>) {
        if batch.revision <= self.head {
            return;
        }
        if batch.revision != self.head.next() {
            self.reset(Revision(batch.revision.0 - 1));
        }
        self.head = batch.revision;
        self.bytes += batch.bytes;
        self.batches.push_back(batch);
        while self.bytes > self.max_bytes || self.batches.len() > self.max_batches {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }

    /// Begins anew after `head`.
    pub(super) fn reset(&mut self, head: Revision) {
        self.batches.clear();
        self.bytes = 0;
        self.head = head;
    }

    pub(super) fn head(&self) -> Revision {
        self.head
    }

    /// The Batches from a revision on, at most `max` of them.
    pub(super) fn from(&self, revision: Revision, max: usize) -> Recent {
        let first = Revision(self.head.0 + 1 - self.batches.len() as u64);
        if revision < first {
            return Recent::Gone(self.head);
        }
        let skip = (revision.0 - first.0).min(self.batches.len() as u64) as usize;
        Recent::Batches(self.batches.range(skip..).take(max).cloned().collect())
    }

    /// How many Batches it has, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.batches.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: u64, bytes: usize) -> Arc<Batch> {
        Arc::new(Batch { revision: Revision(revision), time_ms: 0, changes: vec![], bytes })
    }

    fn revisions(ring: &Ring, from: u64) -> Option<Vec<u64>> {
        match ring.from(Revision(from), 100) {
            Recent::Batches(batches) => Some(batches.iter().map(|b| b.revision.0).collect()),
            Recent::Gone(_) => None,
        }
    }

    #[test]
    fn keeps_the_newest_within_both_bounds() {
        let mut ring = Ring::new(Revision(10), 3, 100);
        (11..=15).for_each(|r| ring.push(batch(r, 10)));
        assert_eq!(ring.size(), (3, 30));
        assert_eq!(revisions(&ring, 13), Some(vec![13, 14, 15]));
        assert_eq!(revisions(&ring, 15), Some(vec![15]));
        assert_eq!(revisions(&ring, 16), Some(vec![]));
        assert_eq!(revisions(&ring, 12), None);
        ring.push(batch(16, 90));
        assert_eq!(ring.size(), (2, 100));
        ring.push(batch(17, 101));
        assert_eq!(ring.size(), (0, 0), "a Batch beyond the bound is read from history");
        assert_eq!(ring.head(), Revision(17));
        assert_eq!(revisions(&ring, 17), None);
        assert_eq!(revisions(&ring, 18), Some(vec![]));
    }

    #[test]
    fn a_gap_begins_anew_and_a_repetition_is_left_out() {
        let mut ring = Ring::new(Revision(0), 10, 100);
        ring.push(batch(1, 1));
        ring.push(batch(1, 1));
        assert_eq!(ring.size(), (1, 1));
        ring.push(batch(5, 1));
        assert_eq!(revisions(&ring, 5), Some(vec![5]));
        assert_eq!(revisions(&ring, 2), None);
    }
}
