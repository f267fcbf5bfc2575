//! A term has at most one leader (Raft §5.2, election safety): whoever takes itself for the leader, and whoever's entries are
//! applied.

use std::collections::BTreeMap;

use konsul_state::LogPosition;

use crate::record::Record;

pub(super) fn check(record: &Record) -> Result<(), String> {
    let mut leaders: BTreeMap<u64, u64> = BTreeMap::new();
    let claimed = record.beliefs.iter().filter(|b| b.leader == Some(b.id)).map(|b| (b.term, b.id));
    let applied = record.sights.iter().map(|sight| sight.applied);
    let wrote = applied.filter(|applied| *applied != LogPosition::default()).map(|at| (at.term, at.leader));
    for (term, leader) in claimed.chain(wrote) {
        let first = *leaders.entry(term).or_insert(leader);
        if first != leader {
            return Err(format!("term {term} has the leaders {first} and {leader}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::{Example, process};
    use crate::record::Belief;

    #[test]
    fn two_leaders_of_a_term_are_found() {
        let mut example = Example::default();
        let leads = |member: usize, term| Belief {
            process: process(member),
            id: member as u64,
            term,
            leader: Some(member as u64),
        };
        example.record.believe(leads(1, 1));
        example.record.believe(leads(2, 2));
        // It only believes the other one.
        example.record.believe(Belief { leader: Some(2), ..leads(3, 2) });
        assert_eq!(super::check(&example.record), Ok(()));
        example.record.believe(leads(3, 2));
        assert!(super::check(&example.record).is_err());
    }

    #[test]
    fn entries_of_two_leaders_of_a_term_are_found() {
        let mut example = Example::default();
        example.see(1, 1, 10);
        assert_eq!(super::check(&example.record), Ok(()));
        example.record.believe(Belief { process: process(2), id: 2, term: 1, leader: Some(2) });
        assert!(super::check(&example.record).is_err());
    }
}
