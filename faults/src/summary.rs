//! What a round counts for: calls by outcome, errors, faults, and the last line.

use std::time::Duration;

use crate::report::Report;
use crate::workload::{History, Op, Outcome, Record};

/// Prints how many calls had which outcome, why others had none, and which faults there were.
pub(crate) fn print(history: &History, report: &Report) {
    report.say(format_args!("{:10}{:>10}{:>10}{:>10}{:>10}", "", "done", "refused", "not done", "unknown"));
    let records = history.records();
    for op in [Op::Get, Op::Put, Op::Cas, Op::Delete] {
        let mut counts = [0_usize; 4];
        for record in records.iter().filter(|record| record.op == op) {
            let column = match record.outcome {
                Outcome::Done { .. } => 0,
                Outcome::Refused { .. } => 1,
                Outcome::NotDone => 2,
                Outcome::Unknown => 3,
            };
            counts[column] += 1;
        }
        let [done, refused, not_done, unknown] = counts;
        report
            .say(format_args!("{:10}{done:>10}{refused:>10}{not_done:>10}{unknown:>10}", format!("{op:?}")));
    }
    for (error, count) in history.errors() {
        report.say(format_args!("{count:>10} × {error}"));
    }
    if let Some((begin, end)) = longest_silence(&records) {
        let (length, begin) = ((end - begin).as_secs_f64(), begin.as_secs_f64());
        report
            .say(format_args!("longest without an acknowledged write: {length:.1} s, from {begin:.1} s on"));
    }
    let faults = report.faults();
    let shown: Vec<String> = faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    report.say(format_args!("faults: {}", shown.join(", ")));
    // What scripts/test shows of this step.
    report.say(format_args!("figure: {} calls, {} faults", records.len(), faults.values().sum::<usize>()));
    match report.findings() {
        0 => report.say("ok"),
        wrong => report.say(format_args!("{wrong} findings")),
    }
}

/// The longest time between two acknowledged writes, which says how long the cluster was of no use.
fn longest_silence(records: &[Record]) -> Option<(Duration, Duration)> {
    let is_write = |record: &&Record| record.op != Op::Get && matches!(record.outcome, Outcome::Done { .. });
    let mut acknowledged: Vec<Duration> =
        records.iter().filter(is_write).map(|record| Duration::from_nanos(record.returned_ns)).collect();
    acknowledged.sort_unstable();
    acknowledged.windows(2).map(|pair| (pair[0], pair[1])).max_by_key(|(begin, end)| *end - *begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_between_acknowledged_writes() {
        let record = |op: Op, returned_ms: u64, outcome: Outcome| Record {
            client: 0,
            via: String::new(),
            op,
            key: String::new(),
            value: None,
            expected: None,
            called_ns: 0,
            returned_ns: returned_ms * 1_000_000,
            outcome,
        };
        let done = Outcome::Done { revision: 1, found: None };
        let records = [
            record(Op::Put, 10, done.clone()),
            record(Op::Delete, 90, done.clone()),
            record(Op::Get, 100, done.clone()),
            record(Op::Put, 150, Outcome::Unknown),
            record(Op::Cas, 60, done),
        ];
        let silence = (Duration::from_millis(10), Duration::from_millis(60));
        assert_eq!(longest_silence(&records), Some(silence));
        assert_eq!(longest_silence(&records[..1]), None);
    }
}
