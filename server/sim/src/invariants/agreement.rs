//! Members that applied the same have the same state: at equal indexes the same entry, revision and hash, at any time and in any of
//! their lives; and in the end the same history.

use std::collections::BTreeMap;

use crate::record::{Record, Sight};

pub(super) fn check(record: &Record) -> Result<(), String> {
    let mut states: BTreeMap<u64, Sight> = BTreeMap::new();
    for sight in &record.sights {
        let first = states.entry(sight.applied.index).or_insert(*sight);
        let same = (first.applied, first.revision, first.hash) == (sight.applied, sight.revision, sight.hash);
        if !same {
            return Err(format!("{first:?} and {sight:?}"));
        }
    }
    let mut ends = record.ends.values();
    let Some(first) = ends.next() else { return Ok(()) };
    for end in ends {
        for (one, other) in first.batches.iter().zip(&end.batches) {
            if one != other {
                let (one_has, other_has) = (first.sight.process, end.sight.process);
                return Err(format!("{one_has} has {one:?} and {other_has} has {other:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::Example;

    #[test]
    fn different_states_at_an_index_are_found() {
        let mut example = Example::default();
        example.see(1, 7, 10);
        example.see(2, 7, 10);
        example.see(2, 8, 11);
        assert_eq!(super::check(&example.record), Ok(()));
        example.see(1, 8, 12);
        assert!(super::check(&example.record).is_err());
    }

    #[test]
    fn different_histories_are_found() {
        let mut example = Example::default();
        example.end(1, &[(1, 0, Some(5)), (2, 0, None)]);
        example.end(2, &[(1, 0, Some(5))]);
        assert_eq!(super::check(&example.record), Ok(()));
        example.end(3, &[(1, 0, Some(6))]);
        assert!(super::check(&example.record).is_err());
    }
}
