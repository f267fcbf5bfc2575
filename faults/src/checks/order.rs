//! Revisions follow real time, over all keys: whatever is called after a revision was told has a later one, or, if it changes nothing,
//! none that is earlier.

use crate::workload::{Op, Outcome, Record};

/// Calls that were served from before something their callers could already know of.
pub(crate) fn revisions_follow_time(records: &[Record]) -> Vec<String> {
    let mut calls: Vec<(&Record, u64)> =
        records.iter().filter_map(|record| Some((record, revision(record)?))).collect();
    let mut returns = calls.clone();
    calls.sort_by_key(|(record, _)| record.called_ns);
    returns.sort_by_key(|(record, _)| record.returned_ns);
    let mut returns = returns.into_iter().peekable();
    let mut newest: Option<(&Record, u64)> = None;
    let mut wrong = Vec::new();
    for (record, revision) in calls {
        while let Some(told) = returns.next_if(|(told, _)| told.returned_ns < record.called_ns) {
            newest = newest.filter(|(_, newest)| *newest >= told.1).or(Some(told));
        }
        let Some((before, known)) = newest else { continue };
        if revision < known || revision == known && changes(record) {
            wrong.push(format!(
                "{:?} of {} through {} was at revision {revision}, {} ns after {:?} of {} through {} had told {known}",
                record.op,
                record.key,
                record.via,
                record.called_ns - before.returned_ns,
                before.op,
                before.key,
                before.via
            ));
        }
    }
    wrong
}

fn revision(record: &Record) -> Option<u64> {
    match record.outcome {
        Outcome::Done { revision, .. } => Some(revision),
        Outcome::Refused { .. } | Outcome::NotDone | Outcome::Unknown => None,
    }
}

/// Whether the call took a revision of its own.
fn changes(record: &Record) -> bool {
    match (record.op, &record.outcome) {
        (Op::Put | Op::Cas, Outcome::Done { .. }) => true,
        (Op::Delete, Outcome::Done { found, .. }) => found.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Version;

    fn record(op: Op, called_ns: u64, returned_ns: u64, revision: u64) -> Record {
        let outcome = Outcome::Done { revision, found: None };
        let (via, key) = ("n1".to_owned(), format!("key-{called_ns}"));
        Record { client: 0, via, op, key, value: None, expected: None, called_ns, returned_ns, outcome }
    }

    #[test]
    fn what_overlaps_has_no_order() {
        let records = [
            record(Op::Put, 0, 10, 2),
            record(Op::Put, 5, 15, 1),
            record(Op::Get, 11, 12, 2),
            record(Op::Put, 13, 14, 3),
        ];
        assert!(revisions_follow_time(&records).is_empty());
    }

    #[test]
    fn a_read_of_another_key_from_the_past_is_told() {
        let wrong = revisions_follow_time(&[record(Op::Put, 0, 10, 2), record(Op::Get, 11, 12, 1)]);
        assert_eq!(
            wrong,
            ["Get of key-11 through n1 was at revision 1, 1 ns after Put of key-0 through n1 had told 2"]
        );
    }

    #[test]
    fn the_newest_revision_counts_and_not_the_latest_return() {
        let records = [record(Op::Put, 0, 10, 9), record(Op::Put, 0, 20, 3), record(Op::Get, 21, 22, 5)];
        assert_eq!(revisions_follow_time(&records).len(), 1);
    }

    #[test]
    fn a_write_has_a_revision_of_its_own() {
        assert_eq!(revisions_follow_time(&[record(Op::Get, 0, 10, 2), record(Op::Put, 11, 12, 2)]).len(), 1);
        // What deletes nothing has none.
        assert!(
            revisions_follow_time(&[record(Op::Get, 0, 10, 2), record(Op::Delete, 11, 12, 2)]).is_empty()
        );
        let found = Some(Version { value: String::new(), revision: 1 });
        let deleted =
            Record { outcome: Outcome::Done { revision: 2, found }, ..record(Op::Delete, 11, 12, 2) };
        assert_eq!(revisions_follow_time(&[record(Op::Get, 0, 10, 2), deleted]).len(), 1);
    }
}
