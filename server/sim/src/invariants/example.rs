//! Records made by hand, to see that each invariant notices what contradicts it.

use std::sync::Arc;

use konsul_state::batch::KvChange;
use konsul_state::command::KvRecord;
use konsul_state::{Batch, Change, Key, LogPosition, Namespace, Revision, StateHash};

use crate::client::key_name;
use crate::record::{Action, Answer, End, Process, Record, Result, Sight};

/// A record to fill.
#[derive(Default)]
pub(super) struct Example {
    pub(super) record: Record,
}

/// The first life of a member.
pub(super) fn process(member: usize) -> Process {
    Process { member, life: 1 }
}

impl Example {
    /// A call of the only client of member 1.
    pub(super) fn called(&mut self, key: usize, action: Action) -> usize {
        self.record.call(process(1), 0, key, action)
    }

    pub(super) fn told(&mut self, number: usize, revision: u64, result: Result) {
        self.record.answer(number, Answer { revision, result });
    }

    pub(super) fn answered(&mut self, key: usize, action: Action, revision: u64, result: Result) {
        let number = self.called(key, action);
        self.told(number, revision, result);
    }

    pub(super) fn unanswered(&mut self, key: usize, action: Action) {
        self.called(key, action);
    }

    /// A member that applied up to an index in term 1.
    pub(super) fn see(&mut self, member: usize, index: u64, revision: u64) {
        let applied = LogPosition { term: 1, leader: 1, index };
        let hash = StateHash::default();
        self.record.see(Sight { process: process(member), applied, revision, hash });
    }

    /// A member that has these writes in the end: revision, key, value.
    pub(super) fn end(&mut self, member: usize, writes: &[(u64, usize, Option<u64>)]) {
        let applied = LogPosition { term: 1, leader: 1, index: 100 };
        let sight = Sight { process: process(member), applied, revision: 100, hash: StateHash::default() };
        let batches = writes.iter().map(|write| Arc::new(batch(*write))).collect();
        self.record.end(End { sight, batches });
    }
}

fn batch((revision, key, value): (u64, usize, Option<u64>)) -> Batch {
    let record =
        |value: u64| KvRecord { value: format!("{value} ").into_bytes().into(), ..KvRecord::default() };
    let change = KvChange {
        namespace: Namespace::parse("").unwrap(),
        key: Key::parse(&key_name(key)).unwrap(),
        before: None,
        after: value.map(record),
    };
    Batch { revision: Revision(revision), time_ms: 1, changes: vec![Change::Kv(change)], bytes: 1 }
}
