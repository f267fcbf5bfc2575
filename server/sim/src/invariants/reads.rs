//! A member's reads never go backwards: what its clients were told is never older than what any of them was told before it
//! called, as long as its process lives.

use std::collections::BTreeMap;

use crate::record::{Answer, Process, Record, Result as Outcome};

pub(super) fn check(record: &Record) -> Result<(), String> {
    let mut answers = BTreeMap::new();
    for (number, operation) in record.operations.iter().enumerate() {
        if let Some((place, Answer { revision, result })) = operation.answer
            && result != Outcome::Refused
        {
            answers.insert(place, (number, operation.process, operation.called, revision));
        }
    }
    // By life, the revisions told, and when.
    let mut told: BTreeMap<Process, BTreeMap<u64, u64>> = BTreeMap::new();
    for (place, (number, process, called, revision)) in answers {
        let told = told.entry(process).or_default();
        let before = told.range(..called).next_back().map_or(0, |(_, revision)| *revision);
        if revision < before {
            return Err(format!("call {number} of {process} was told {revision} after {before}"));
        }
        let most = told.last_key_value().map_or(0, |(_, revision)| *revision);
        told.insert(place, revision.max(most));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::Example;
    use crate::record::Action::{Look, Write};
    use crate::record::Result::{Changed, Found};
    use crate::record::Write::Put;

    #[test]
    fn going_backwards_is_found() {
        let mut example = Example::default();
        let slow = example.called(0, Look);
        example.answered(0, Write(Put(5)), 3, Changed);
        example.told(slow, 1, Found(None));
        example.answered(0, Look, 3, Found(Some(5)));
        assert_eq!(super::check(&example.record), Ok(()));
        example.answered(0, Look, 2, Found(None));
        assert!(super::check(&example.record).is_err());
    }
}
