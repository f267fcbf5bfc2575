//! What a round counts for: calls by outcome, errors, faults, and the last line.

use std::collections::BTreeMap;

use crate::checks::longest_silence;
use crate::report::Report;
use crate::workload::{History, Op, Outcome};

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
    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    report.faults().iter().for_each(|fault| *faults.entry(fault.name).or_default() += 1);
    let shown: Vec<String> = faults.iter().map(|(name, count)| format!("{count} {name}")).collect();
    report.say(format_args!("faults: {}", shown.join(", ")));
    // What scripts/test shows of this step.
    report.say(format_args!("figure: {} calls, {} faults", records.len(), faults.values().sum::<usize>()));
    match report.findings() {
        0 => report.say("ok"),
        wrong => report.say(format_args!("{wrong} findings")),
    }
}
