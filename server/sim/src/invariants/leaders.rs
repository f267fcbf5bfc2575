//! Leaders succeed each other: once there is one, those before it are none any more. openraft orders leaders by their term and,
//! within one, by their id (its `leader_id_adv`), so a term may have several, one after the other. No member follows one after
//! having followed its successor, and no entry of one comes after an entry of its successor.

use std::collections::BTreeMap;

use konsul_state::LogPosition;

use crate::record::{Belief, Process, Record};

/// A leader's place in their order.
type Leader = (u64, u64);

pub(super) fn check(record: &Record) -> Result<(), String> {
    let mut followed: BTreeMap<Process, Leader> = BTreeMap::new();
    for Belief { process, term, leader, .. } in &record.beliefs {
        let Some(leader) = leader.map(|leader| (*term, leader)) else { continue };
        let before = followed.insert(*process, leader).unwrap_or_default();
        if leader < before {
            return Err(format!("{process} follows {leader:?} (term and member) after {before:?}"));
        }
    }
    let applied: BTreeMap<u64, Leader> = record.sights.iter().map(|s| entry(s.applied)).collect();
    let mut before = Leader::default();
    for (index, leader) in applied {
        if leader < before {
            return Err(format!("entry {index} is of {leader:?} (term and member), after one of {before:?}"));
        }
        before = leader;
    }
    Ok(())
}

fn entry(at: LogPosition) -> (u64, Leader) {
    (at.index, (at.term, at.leader))
}

#[cfg(test)]
mod tests {
    use konsul_state::{LogPosition, StateHash};

    use crate::invariants::example::{Example, process};
    use crate::record::{Belief, Sight};

    fn follow(example: &mut Example, member: usize, term: u64, leader: Option<u64>) {
        example.record.believe(Belief { process: process(member), id: member as u64, term, leader });
    }

    fn apply(example: &mut Example, index: u64, term: u64, leader: u64) {
        let applied = LogPosition { term, leader, index };
        let hash = StateHash::default();
        example.record.see(Sight { process: process(1), applied, revision: 0, hash });
    }

    #[test]
    fn following_one_that_was_succeeded_is_found() {
        let mut example = Example::default();
        follow(&mut example, 1, 1, Some(2));
        follow(&mut example, 1, 1, Some(3));
        follow(&mut example, 1, 2, None);
        follow(&mut example, 2, 1, Some(2));
        assert_eq!(super::check(&example.record), Ok(()));
        follow(&mut example, 1, 1, Some(2));
        assert!(super::check(&example.record).is_err());
    }

    #[test]
    fn entries_of_one_that_was_succeeded_are_found() {
        let mut example = Example::default();
        apply(&mut example, 7, 1, 2);
        apply(&mut example, 8, 1, 3);
        apply(&mut example, 9, 2, 1);
        assert_eq!(super::check(&example.record), Ok(()));
        apply(&mut example, 10, 1, 3);
        assert!(super::check(&example.record).is_err());
    }
}
