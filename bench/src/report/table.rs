//! A report as markdown, aligned so that it also reads in a terminal.

use crate::peers::Peer;
use crate::report::goals::{GOALS, Goal, Verdict};
use crate::report::{Conditions, Line, Report, Unit};

/// Title of each column.
const HEADER: [&str; 8] = ["what", "bare", "etcd", "Konsul", "÷ etcd", "must", "aim", ""];

/// The whole report as a markdown document.
pub(crate) fn document(report: &Report) -> String {
    format!("# konsul-bench, {}\n\n{}", report.started, section(report))
}

/// Conditions, table and what was missed, without a title.
pub(crate) fn section(report: &Report) -> String {
    format!("{}\n{}\n{}", conditions(report), table(report), misses(report))
}

fn conditions(report: &Report) -> String {
    let Conditions { etcd, konsul, processors, memory_bytes, kernel, file_system, .. } = &report.conditions;
    let Conditions { rounds, seconds, client_threads, connections, bare_runtimes, .. } = &report.conditions;
    format!(
        "Measured {started} on {processors} processors, {memory}, {file_system}, Linux {kernel}; client and \
         servers share them.\n{etcd}; {konsul}. Medians of {rounds} rounds of {seconds} s in turns; \
         {client_threads} client threads, {connections} connections, the bare server on {bare_runtimes} \
         threads.\n",
        started = report.started,
        memory = bytes(*memory_bytes as f64),
    )
}

fn table(report: &Report) -> String {
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(report.lines.iter().map(|line| row(report, line)));
    let widths: Vec<usize> = (0..HEADER.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, cell) in row.iter().enumerate() {
            let blanks = " ".repeat(widths[column] - cell.chars().count());
            // Figures stand right, words left.
            let cell = if (1..=4).contains(&column) { blanks + cell } else { format!("{cell}{blanks}") };
            text.push_str(&format!("| {cell} "));
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let right = (1..=4).contains(&column);
                text.push_str(&format!("|{}{}", "-".repeat(width + 1), if right { ":" } else { "-" }));
            }
            text.push_str("|\n");
        }
    }
    text
}

fn row(report: &Report, line: &Line) -> [String; 8] {
    let figure = |peer| line.median(peer).map(|value| show(line.unit, value)).unwrap_or_default();
    let ratio = line.median(Peer::Konsul).zip(line.median(Peer::Etcd)).map(|(konsul, etcd)| konsul / etcd);
    let goals: Vec<&Goal> = GOALS.iter().filter(|goal| goal.line == line.id).collect();
    let texts = |text: fn(&Goal) -> &'static str| {
        let texts: Vec<&str> = goals.iter().map(|goal| text(goal)).filter(|text| !text.is_empty()).collect();
        texts.join("; ")
    };
    let verdicts: Vec<Verdict> = goals.iter().filter_map(|goal| goal.verdict(report)).collect();
    [
        line.label.clone(),
        figure(Peer::Bare),
        figure(Peer::Etcd),
        figure(Peer::Konsul),
        ratio.filter(|ratio| ratio.is_finite()).map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
        texts(|goal| goal.must_text),
        texts(|goal| goal.aim_text),
        mark(&verdicts).to_owned(),
    ]
}

/// ✗: a must is missed. ✓: all are reached. With ★: all aims too.
fn mark(verdicts: &[Verdict]) -> &'static str {
    let mut aims = verdicts.iter().filter_map(|verdict| verdict.aim).peekable();
    if verdicts.is_empty() {
        ""
    } else if verdicts.iter().any(|verdict| verdict.must == Some(false)) {
        "✗"
    } else if aims.peek().is_some() && aims.all(|reached| reached) {
        "✓ ★"
    } else if verdicts.iter().any(|verdict| verdict.must.is_some()) {
        "✓"
    } else {
        ""
    }
}

fn misses(report: &Report) -> String {
    let judged: Vec<(&Goal, Verdict)> =
        GOALS.iter().filter_map(|goal| Some((goal, goal.verdict(report)?))).collect();
    if judged.is_empty() {
        return "Nothing was judged: that takes Konsul and what it is compared with.\n".to_owned();
    }
    let missed: Vec<String> = judged
        .iter()
        .filter(|(_, verdict)| verdict.must == Some(false))
        .map(|(goal, verdict)| {
            let label = report.lines.iter().find(|line| line.id == goal.line).map_or(goal.line, |l| &l.label);
            format!("- {label}: must be {}, is {:.2}\n", goal.must_text, verdict.value)
        })
        .collect();
    if missed.is_empty() {
        "✓ the must is reached, ★ the aim too. Every must that was measured is reached.\n".to_owned()
    } else {
        format!("✓ the must is reached, ★ the aim too, ✗ the must is missed:\n\n{}", missed.concat())
    }
}

/// A figure with its unit, in three digits or so.
pub(super) fn show(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerSecond => format!("{}/s", grouped(value)),
        Unit::Milliseconds => format!("{} ms", digits(value)),
        Unit::CpuMicroseconds => format!("{} µs", digits(value)),
        Unit::Bytes => bytes(value),
        Unit::Seconds => format!("{} s", digits(value)),
        Unit::Ratio => format!("{value:.2}"),
    }
}

/// Three digits or so.
fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A whole number in groups of three digits.
fn grouped(value: f64) -> String {
    let plain = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in plain.chars().enumerate() {
        if place > 0 && (plain.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{} GB", digits(value / 1e9)),
        v if v >= 1e6 => format!("{} MB", digits(value / 1e6)),
        v if v >= 1e4 => format!("{} kB", digits(value / 1e3)),
        _ => format!("{value:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        for (unit, value, expected) in [
            (Unit::PerSecond, 36712.4, "36,712/s"),
            (Unit::PerSecond, 912.0, "912/s"),
            (Unit::Milliseconds, 0.1834, "0.183 ms"),
            (Unit::Milliseconds, 66.8, "66.8 ms"),
            (Unit::Bytes, 861_234_000.0, "861 MB"),
            (Unit::Bytes, 2048.0, "2048 B"),
            (Unit::CpuMicroseconds, 22.04, "22.0 µs"),
        ] {
            assert_eq!(show(unit, value), expected);
        }
    }
}
