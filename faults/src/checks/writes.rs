//! The history has what clients were told, and nothing else: a write that was done is there at its revision, one that was not done is not, and
//! each is there at most once.

use std::collections::BTreeMap;

use crate::workload::{Change, Op, Outcome, Record};

/// Writes that the history tells otherwise than the clients were told.
pub(crate) fn writes_are_in_history(records: &[Record], history: &[Change]) -> Vec<String> {
    let by_revision: BTreeMap<u64, &Change> =
        history.iter().map(|change| (change.revision, change)).collect();
    let mut by_value: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for change in history {
        if let Some(value) = &change.value {
            by_value.entry((&change.key, value)).or_default().push(change.revision);
        }
    }
    let mut wrong = Vec::new();
    for record in records.iter().filter(|record| record.op != Op::Get) {
        let Record { key, value, via, .. } = record;
        // The values of all writes differ.
        let there = value.as_ref().and_then(|value| by_value.get(&(key.as_str(), value.as_str())));
        let there = there.map_or(&[][..], Vec::as_slice);
        match record.outcome {
            Outcome::Done { revision, ref found } if value.is_some() || found.is_some() => {
                let is_it = |change: &&Change| change.key == *key && change.value == *value;
                if by_revision.get(&revision).copied().filter(is_it).is_none() {
                    wrong.push(format!(
                        "{} through {via} was acknowledged at revision {revision}, which is another",
                        shown(record)
                    ));
                }
            }
            Outcome::Refused { .. } | Outcome::NotDone if !there.is_empty() => {
                wrong.push(format!(
                    "{} through {via} was refused and is there at revision {}",
                    shown(record),
                    there[0]
                ));
            }
            Outcome::Done { .. } | Outcome::Refused { .. } | Outcome::NotDone | Outcome::Unknown => {}
        }
        if there.len() > 1 {
            wrong.push(format!(
                "{} through {via} was made once and is there at revisions {there:?}",
                shown(record)
            ));
        }
    }
    wrong
}

fn shown(record: &Record) -> String {
    let value = record.value.as_deref().unwrap_or_default();
    format!("{:?} of {} {value}", record.op, record.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Version;

    fn put(outcome: Outcome) -> Record {
        let (via, key, value) = ("n1".to_owned(), "key".to_owned(), Some("a".to_owned()));
        Record {
            client: 0,
            via,
            op: Op::Put,
            key,
            value,
            expected: None,
            called_ns: 0,
            returned_ns: 1,
            outcome,
        }
    }

    fn delete(outcome: Outcome) -> Record {
        Record { op: Op::Delete, value: None, ..put(outcome) }
    }

    fn done(revision: u64) -> Outcome {
        Outcome::Done { revision, found: Some(Version { value: "before".to_owned(), revision: 1 }) }
    }

    fn change(revision: u64, value: Option<&str>) -> Change {
        Change { revision, key: "key".to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn the_history_is_what_clients_were_told() {
        let (a, b, gone) = (Some("a"), Some("b"), None);
        for (record, history, wrong) in [
            (put(done(3)), vec![change(3, a)], ""),
            (put(done(3)), vec![], "which is another"),
            (put(done(3)), vec![change(3, b)], "which is another"),
            (put(done(3)), vec![change(3, a), change(4, a)], "at revisions [3, 4]"),
            (put(Outcome::Unknown), vec![], ""),
            (put(Outcome::Unknown), vec![change(3, a)], ""),
            (put(Outcome::Unknown), vec![change(3, a), change(5, a)], "at revisions [3, 5]"),
            (put(Outcome::NotDone), vec![change(3, b)], ""),
            (put(Outcome::NotDone), vec![change(3, a)], "was refused and is there at revision 3"),
            (put(Outcome::Refused { found_revision: 2 }), vec![change(3, a)], "was refused and is there"),
            (delete(done(3)), vec![change(3, gone)], ""),
            (delete(done(3)), vec![change(3, a)], "which is another"),
            (delete(Outcome::Done { revision: 3, found: None }), vec![change(3, b)], ""),
        ] {
            let found = writes_are_in_history(&[record], &history);
            match wrong {
                "" => assert!(found.is_empty(), "{found:?}"),
                wrong => assert!(found.len() == 1 && found[0].contains(wrong), "{wrong}: {found:?}"),
            }
        }
    }
}
