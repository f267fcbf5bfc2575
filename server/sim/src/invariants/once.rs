//! A write happens once however often it is tried, or not at all if its caller was told that it was refused; and nothing is
//! written that nobody called for.

use std::collections::BTreeMap;

use super::writes;
use crate::record::{Action, Record, Result as Outcome, Write};

pub(super) fn check(record: &Record) -> Result<(), String> {
    let mut revisions: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut deletes = 0;
    for (revision, (_, value)) in writes(record) {
        match value {
            Some(value) => revisions.entry(value).or_default().push(revision),
            None => deletes += 1,
        }
    }
    let mut may_delete = 0;
    for (number, operation) in record.operations.iter().enumerate() {
        let Action::Write(write) = operation.action else { continue };
        let result = operation.answer.map(|(_, answer)| answer.result);
        let may_happen = !matches!(result, Some(Outcome::Refused | Outcome::Unchanged));
        if write == Write::Delete {
            may_delete += usize::from(may_happen);
        }
        let happened = write.value().and_then(|value| revisions.remove(&value)).unwrap_or_default();
        if happened.len() > usize::from(may_happen) {
            return Err(format!("call {number}, {operation:?}, happened at the revisions {happened:?}"));
        }
    }
    if let Some((value, revision)) = revisions.first_key_value() {
        return Err(format!("nobody wrote {value}, and it was written at {revision:?}"));
    }
    if deletes > may_delete {
        return Err(format!("{deletes} deletes happened, and {may_delete} were called for"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::Example;
    use crate::record::{Action, Result, Write};

    fn check(writes: &[(u64, usize, Option<u64>)]) -> std::result::Result<(), String> {
        let mut example = Example::default();
        example.end(1, writes);
        example.answered(0, Action::Write(Write::Put(5)), 1, Result::Changed);
        example.unanswered(0, Action::Write(Write::Put(6)));
        example.answered(0, Action::Write(Write::Put(7)), 0, Result::Refused);
        example.unanswered(0, Action::Write(Write::Delete));
        super::check(&example.record)
    }

    #[test]
    fn what_happened_more_often_than_it_may_is_found() {
        assert_eq!(check(&[(1, 0, Some(5))]), Ok(()));
        assert_eq!(check(&[(1, 0, Some(5)), (2, 0, Some(6)), (3, 0, None)]), Ok(()));
        assert!(check(&[(1, 0, Some(5)), (2, 0, Some(5))]).is_err());
        assert!(check(&[(1, 0, Some(6)), (2, 0, Some(6))]).is_err());
        assert!(check(&[(1, 0, Some(7))]).is_err());
        assert!(check(&[(1, 0, Some(8))]).is_err());
        assert!(check(&[(1, 0, Some(5)), (2, 0, None), (3, 0, Some(6)), (4, 0, None)]).is_err());
    }
}
