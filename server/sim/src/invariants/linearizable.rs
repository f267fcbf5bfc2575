//! Reads and writes are linearizable (Herlihy and Wing, 1990), over all keys together: there is one order in which they could
//! have happened one at a time, each between its call and its answer. Revisions name that order, so it need not be searched for:
//! a write happened at its revision, a read right after the one it saw. What is checked is that each was answered as it would
//! have been there, and that nothing happened before what was answered before it was called.

use std::collections::BTreeMap;

use super::{Writes, writes};
use crate::record::{Action, Answer, Operation, Record, Result as Outcome, Write};

pub(super) fn check(record: &Record) -> Result<(), String> {
    if record.ends.is_empty() {
        return Ok(());
    }
    let writes = writes(record);
    for (number, operation) in record.operations.iter().enumerate() {
        if let Some((_, answer)) = operation.answer
            && !is_as_there(&writes, operation, answer)
        {
            return Err(format!("call {number}, {operation:?}, when the key was {:?}", {
                value_at(&writes, operation.key, answer.revision)
            }));
        }
    }
    in_order(&writes, record)
}

/// Whether a call was answered as it is at the revision it was told. That writes are where they should be, `acknowledged`
/// says.
fn is_as_there(writes: &Writes, operation: &Operation, answer: Answer) -> bool {
    let Answer { revision, result } = answer;
    let at = |revision| value_at(writes, operation.key, revision);
    match (operation.action, result) {
        (Action::Get | Action::Look, Outcome::Found(value)) => value == at(revision),
        (Action::Write(Write::Swap { expected, .. }), Outcome::Changed) => at(revision - 1) == expected,
        (Action::Write(Write::Swap { expected, .. }), Outcome::Unchanged) => at(revision) != expected,
        (Action::Write(Write::Delete), Outcome::Changed) => at(revision - 1).is_some(),
        (Action::Write(Write::Delete), Outcome::Unchanged) => at(revision).is_none(),
        (Action::Write(Write::Put(_)), Outcome::Changed) | (_, Outcome::Refused) => true,
        (Action::Write(_), Outcome::Found(_))
        | (Action::Write(Write::Put(_)), Outcome::Unchanged)
        | (Action::Get | Action::Look, Outcome::Changed | Outcome::Unchanged) => false,
    }
}

fn value_at(writes: &Writes, key: usize, revision: u64) -> Option<u64> {
    let mut earlier = writes.range(..=revision).rev().filter(|(_, (written, _))| *written == key);
    earlier.next().and_then(|(_, (_, value))| *value)
}

/// Whether nothing happened before what was answered before it was called.
fn in_order(writes: &Writes, record: &Record) -> Result<(), String> {
    let written: BTreeMap<u64, u64> =
        writes.iter().filter_map(|(revision, (_, value))| Some(((*value)?, *revision))).collect();
    // The revision that is reached for sure at each place in the order of things.
    let mut reached: BTreeMap<u64, u64> = BTreeMap::new();
    for operation in &record.operations {
        if let (true, Some((place, answer))) = (operation.action != Action::Look, operation.answer) {
            reached.insert(place, answer.revision);
        }
    }
    let mut most = 0;
    for revision in reached.values_mut() {
        most = most.max(*revision);
        *revision = most;
    }
    for (number, operation) in record.operations.iter().enumerate() {
        let before = reached.range(..operation.called).next_back().map_or(0, |(_, revision)| *revision);
        let is_too_early = match (operation.action, operation.answer.map(|(_, answer)| answer)) {
            (Action::Look, _) | (_, Some(Answer { result: Outcome::Refused, .. })) | (Action::Get, None) => {
                false
            }
            (Action::Write(_), Some(Answer { revision, result: Outcome::Changed })) => revision <= before,
            (_, Some(Answer { revision, .. })) => revision < before,
            // Nobody was told, and it may have happened.
            (Action::Write(write), None) => {
                let happened = write.value().and_then(|value| written.get(&value));
                happened.is_some_and(|revision| *revision <= before)
            }
        };
        if is_too_early {
            return Err(format!("call {number}, {operation:?}, came after revision {before} was answered"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::Example;
    use crate::record::Action::{Get, Look, Write};
    use crate::record::Result::{Changed, Found, Unchanged};
    use crate::record::Write::{Delete, Put, Swap};

    /// Key 0 is 5, then 6, then nothing; key 1 is 7.
    fn example() -> Example {
        let mut example = Example::default();
        example.end(1, &[(1, 0, Some(5)), (2, 1, Some(7)), (3, 0, Some(6)), (4, 0, None)]);
        example
    }

    #[test]
    fn what_happened_one_after_the_other_is_fine() {
        let mut example = example();
        example.answered(0, Write(Put(5)), 1, Changed);
        let slow = example.called(0, Get);
        example.answered(1, Write(Swap { expected: None, value: 7 }), 2, Changed);
        example.answered(0, Write(Swap { expected: Some(5), value: 6 }), 3, Changed);
        example.told(slow, 2, Found(Some(5)));
        example.answered(0, Write(Swap { expected: Some(5), value: 8 }), 3, Unchanged);
        example.unanswered(0, Write(Delete));
        example.answered(0, Get, 4, Found(None));
        example.answered(0, Look, 1, Found(Some(5)));
        assert_eq!(super::check(&example.record), Ok(()));
    }

    #[test]
    fn a_read_of_what_was_not_there_is_found() {
        for (revision, value) in [(1, None), (2, Some(7)), (3, Some(5)), (4, Some(6))] {
            let mut example = example();
            example.answered(0, Get, revision, Found(value));
            assert!(super::check(&example.record).is_err(), "{value:?} at {revision}");
        }
    }

    #[test]
    fn a_swap_that_should_have_come_out_otherwise_is_found() {
        let mut example = example();
        example.answered(0, Write(Swap { expected: Some(7), value: 6 }), 3, Changed);
        assert!(super::check(&example.record).is_err());
        let mut example = self::example();
        example.answered(0, Write(Swap { expected: Some(6), value: 8 }), 3, Unchanged);
        assert!(super::check(&example.record).is_err());
    }

    #[test]
    fn a_read_of_the_past_is_found() {
        let mut example = example();
        example.answered(1, Get, 3, Found(Some(7)));
        example.answered(0, Get, 2, Found(Some(5)));
        assert!(super::check(&example.record).is_err());
    }

    #[test]
    fn a_write_into_the_past_is_found() {
        let mut example = example();
        example.answered(1, Get, 3, Found(Some(7)));
        example.unanswered(0, Write(Put(6)));
        assert!(super::check(&example.record).is_err());
    }
}
