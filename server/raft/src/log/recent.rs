//! What the log holds in memory: its bounds, the vote, and the newest entries, so that applying and
//! replicating them need not read the disk. Entries that are not durable yet are always here.

use std::collections::VecDeque;
use std::ops::Range;

use tokio::sync::watch;

use crate::types::{LogId, RaftEntry, Vote, entry_bytes};

/// The log as it is, including what is still being written.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<RaftEntry>,
    bytes: usize,
    /// Bytes of entries to keep once they are durable.
    max_bytes: usize,
    /// Entries before this index are durable. `None` when no more will be.
    durable_end: Option<watch::Sender<u64>>,
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

impl Recent {
    /// The log as recovery found it.
    pub(crate) fn new(max_bytes: usize, purged: Option<LogId>, last: Option<LogId>) -> Self {
        let durable_end = Some(watch::Sender::new(last.map_or(0, |id| id.index + 1)));
        Self { max_bytes, purged, last, durable_end, ..Self::default() }
    }

    /// Follows how far the log is durable: before which index. It ends when nothing more will be.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        // The receiver of a sender that is gone has ended.
        self.durable_end.as_ref().map_or_else(|| watch::channel(0).1, watch::Sender::subscribe)
    }

    /// Notes that nothing more will be durable.
    pub(crate) fn fail(&mut self) {
        self.durable_end = None;
    }

    /// The index of the first entry kept in memory, or of the next entry if there is none.
    pub(crate) fn first(&self) -> u64 {
        self.entries.front().map_or_else(|| self.end(), |entry| entry.log_id.index)
    }

    /// The index of the next entry.
    pub(crate) fn end(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    /// Limits a range to the entries that the log holds.
    pub(crate) fn clamp(&self, range: Range<u64>) -> Range<u64> {
        let start = range.start.max(self.purged.map_or(0, |id| id.index + 1));
        start..range.end.min(self.end()).max(start)
    }

    /// The entries of a range that are in memory.
    pub(crate) fn copy(&self, range: Range<u64>) -> Vec<RaftEntry> {
        let first = self.first();
        let skip = range.start.saturating_sub(first) as usize;
        let end = (range.end.saturating_sub(first) as usize).min(self.entries.len());
        self.entries.range(skip.min(end)..end).cloned().collect()
    }

    pub(crate) fn push(&mut self, entry: RaftEntry) {
        self.last = Some(entry.log_id);
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Notes that the log is durable up to this entry, and lets go of old ones. An entry that was truncated
    /// while it was being written says nothing about those that took its place.
    pub(crate) fn durable(&mut self, upto: LogId) {
        let first = self.first();
        let at = upto.index.checked_sub(first).and_then(|offset| self.entries.get(offset as usize));
        if at.is_some_and(|entry| entry.log_id != upto) {
            return;
        }
        let Some(durable_end) = &self.durable_end else { return };
        let end = self.end().min(upto.index + 1);
        durable_end.send_if_modified(|durable_end| {
            let grows = end > *durable_end;
            *durable_end = end.max(*durable_end);
            grows
        });
        let end = *durable_end.borrow();
        while self.bytes > self.max_bytes
            && self.entries.front().is_some_and(|entry| entry.log_id.index < end)
        {
            self.pop_front();
        }
    }

    /// Forgets the entries after `last`.
    pub(crate) fn truncate_after(&mut self, last: Option<LogId>) {
        let end = last.map_or(0, |id| id.index + 1);
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= end) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
        if let Some(durable_end) = &self.durable_end {
            durable_end.send_modify(|durable_end| *durable_end = end.min(*durable_end));
        }
        self.last = last.max(self.purged);
    }

    /// Forgets the entries up to `upto`.
    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.purged = Some(upto).max(self.purged);
        self.last = self.last.max(self.purged);
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderId, Payload};

    fn entry(term: u64, index: u64) -> RaftEntry {
        let leader_id = LeaderId { term, node_id: 1 };
        RaftEntry { log_id: LogId { leader_id, index }, payload: Payload::Blank }
    }

    #[test]
    fn what_was_truncated_while_it_was_written_makes_nothing_durable() {
        let mut recent = Recent::new(0, None, Some(entry(1, 7).log_id));
        let durable_end = recent.follow();
        for index in [8, 9] {
            recent.push(entry(1, index));
        }
        recent.truncate_after(Some(entry(1, 7).log_id));
        recent.durable(entry(1, 9).log_id);
        assert_eq!(*durable_end.borrow(), 8);
        for index in [8, 9] {
            recent.push(entry(2, index));
        }
        recent.durable(entry(1, 9).log_id);
        assert_eq!((*durable_end.borrow(), recent.first()), (8, 8), "nobody wrote these yet");
        recent.durable(entry(2, 8).log_id);
        assert_eq!((*durable_end.borrow(), recent.first()), (9, 9));
    }

    #[test]
    fn who_follows_learns_that_nothing_more_will_be_durable() {
        let mut recent = Recent::new(0, None, None);
        let durable_end = recent.follow();
        assert!(durable_end.has_changed().is_ok());
        recent.fail();
        assert!(durable_end.has_changed().is_err() && recent.follow().has_changed().is_err());
    }
}
