//! A cluster whose majority can do it goes on writing: an election later, whatever happened to one of its members.

use std::time::Duration;

use crate::report::Period;
use crate::workload::{Op, Outcome, Record};

/// How long there may be no acknowledged write while no fault explains it: several elections on a busy machine, and what clients wait
/// for a member that is gone.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest time between two acknowledged writes, which says how long the cluster was of no use.
pub(crate) fn longest_silence(records: &[Record]) -> Option<(Duration, Duration)> {
    silences(records).into_iter().max_by_key(|(begin, end)| *end - *begin)
}

/// Times without an acknowledged write that are longer than the faults explain which may stop writes.
pub(crate) fn writes_go_on(records: &[Record], faults: &[Period]) -> Vec<String> {
    let stopping: Vec<&Period> = faults.iter().filter(|fault| fault.stops_writes).collect();
    let unexplained = |(begin, end): &(Duration, Duration)| {
        let explained: Duration = stopping.iter().map(|fault| fault.overlap(*begin, *end)).sum();
        (*end - *begin).saturating_sub(explained) > LIMIT
    };
    let tell = |(begin, end): (Duration, Duration)| {
        let (length, begin) = ((end - begin).as_secs_f64(), begin.as_secs_f64());
        format!("no write was acknowledged for {length:.1} s, from {begin:.1} s on, and no fault explains it")
    };
    silences(records).into_iter().filter(unexplained).map(tell).collect()
}

/// The times between acknowledged writes.
fn silences(records: &[Record]) -> Vec<(Duration, Duration)> {
    let is_write = |record: &&Record| record.op != Op::Get && matches!(record.outcome, Outcome::Done { .. });
    let mut acknowledged: Vec<Duration> =
        records.iter().filter(is_write).map(|record| Duration::from_nanos(record.returned_ns)).collect();
    acknowledged.sort_unstable();
    acknowledged.windows(2).map(|pair| (pair[0], pair[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: Op, returned_s: u64, outcome: Outcome) -> Record {
        Record {
            client: 0,
            via: String::new(),
            op,
            key: String::new(),
            value: None,
            expected: None,
            called_ns: 0,
            returned_ns: returned_s * 1_000_000_000,
            outcome,
        }
    }

    const DONE: Outcome = Outcome::Done { revision: 1, found: None };

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_longest_silence_is_between_acknowledged_writes() {
        let records = [
            record(Op::Put, 10, DONE),
            record(Op::Delete, 90, DONE),
            record(Op::Get, 100, DONE),
            record(Op::Put, 150, Outcome::Unknown),
            record(Op::Cas, 60, DONE),
        ];
        assert_eq!(longest_silence(&records), Some((seconds(10), seconds(60))));
        assert_eq!(longest_silence(&records[..1]), None);
    }

    #[test]
    fn a_silence_that_no_fault_explains_is_found() {
        let records = [record(Op::Put, 0, DONE), record(Op::Put, 15, DONE)];
        let fault = |begin, end, stops_writes| Period {
            name: "a fault",
            stops_writes,
            begin: seconds(begin),
            end: Some(seconds(end)),
        };
        for (faults, is_wrong) in [
            (vec![], true),
            (vec![fault(2, 9, true)], false),
            (vec![fault(2, 9, false)], true),
            (vec![fault(2, 4, true)], true),
            (vec![fault(2, 4, true), fault(8, 12, true)], false),
            (vec![fault(13, 40, true)], true),
        ] {
            assert_eq!(writes_go_on(&records, &faults).len(), usize::from(is_wrong), "{faults:?}");
        }
        assert!(writes_go_on(&[record(Op::Put, 0, DONE), record(Op::Put, 9, DONE)], &[]).is_empty());
    }
}
