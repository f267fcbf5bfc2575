//! What must be reached, as data: the rows of the performance design. Judging is here, measuring is not.

use crate::peers::Peer;
use crate::report::Report;

/// What a figure of Konsul is held against.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// etcd's same figure.
    Etcd,
    /// A number, in the figure's unit.
    Number,
    /// The bare server's same figure.
    Bare,
    /// The sum of figures of the bare server and the disk.
    Floors(&'static [&'static str]),
    /// Another figure of Konsul's own.
    Own(&'static str),
}

/// Which side of the limit is good.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast,
    AtMost,
}

/// One thing that must be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    /// The figure.
    pub(crate) line: &'static str,
    against: Against,
    bound: Bound,
    must: Option<f64>,
    aim: Option<f64>,
    /// The must in words; empty if there is none.
    pub(crate) must_text: &'static str,
    /// The aim in words; empty if there is none.
    pub(crate) aim_text: &'static str,
}

/// How Konsul did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    /// What is compared with the limits: a ratio, or the figure itself.
    pub(crate) value: f64,
    /// Whether the must is reached; `None` where there is none.
    pub(crate) must: Option<bool>,
    /// Whether the aim is reached; `None` where there is none.
    pub(crate) aim: Option<bool>,
}

const fn goal(
    line: &'static str,
    against: Against,
    bound: Bound,
    limits: (Option<f64>, Option<f64>),
    texts: (&'static str, &'static str),
) -> Goal {
    Goal { line, against, bound, must: limits.0, aim: limits.1, must_text: texts.0, aim_text: texts.1 }
}

/// Every goal, in the order of the design.
pub(crate) const GOALS: &[Goal] = {
    use Against::{Bare, Etcd, Floors, Number, Own};
    use Bound::{AtLeast, AtMost};
    const THIRD: f64 = 1.0 / 3.0;
    &[
        goal("put/1/rate", Etcd, AtLeast, (Some(1.2), Some(1.4)), ("≥ 1.2 × etcd", "1.4")),
        goal(
            "put/1/p50",
            Floors(&["put/1/p50", "fdatasync/p50"]),
            AtMost,
            (Some(1.4), None),
            ("≤ 1.4 × (fdatasync + bare call)", ""),
        ),
        goal("put/64/rate", Etcd, AtLeast, (Some(2.0), Some(2.8)), ("≥ 2 × etcd", "2.8")),
        goal("put/64/p99", Etcd, AtMost, (Some(0.5), None), ("≤ ½ × etcd", "")),
        goal("put/64/cpu", Number, AtMost, (Some(45.0), Some(30.0)), ("≤ 45 µs", "30 µs")),
        goal("put/64/cpu", Etcd, AtMost, (Some(0.5), None), ("≤ ½ × etcd", "")),
        goal("put/256/rate", Etcd, AtLeast, (Some(2.0), Some(2.8)), ("≥ 2 × etcd", "2.8")),
        goal("put/256/p99", Etcd, AtMost, (Some(0.5), None), ("≤ ½ × etcd", "")),
        goal("put/256/cpu", Number, AtMost, (Some(45.0), Some(30.0)), ("≤ 45 µs", "30 µs")),
        goal("put/256/cpu", Etcd, AtMost, (Some(0.5), None), ("≤ ½ × etcd", "")),
        goal("put/1000/rate", Etcd, AtLeast, (Some(2.0), Some(3.0)), ("≥ 2 × etcd", "3")),
        goal("put/1000/p99", Etcd, AtMost, (Some(0.5), None), ("≤ ½ × etcd", "")),
        goal("get/256/rate", Bare, AtLeast, (Some(0.85), Some(0.95)), ("≥ 85 % of bare", "95 %")),
        goal("get/256/rate", Etcd, AtLeast, (Some(3.0), Some(4.0)), ("≥ 3 × etcd", "4")),
        goal("cas/256/rate", Etcd, AtLeast, (Some(2.5), Some(5.0)), ("≥ 2.5 × etcd", "5")),
        goal("watch/steady/p99", Etcd, AtMost, (Some(THIRD), None), ("≤ ⅓ × etcd", "")),
        goal("watch/fast/rate", Etcd, AtLeast, (Some(3.0), None), ("≥ 3 × etcd", "")),
        goal("watch/fast/rate", Bare, AtLeast, (None, Some(1.0)), ("", "bare")),
        goal(
            "watchers/on/rate",
            Own("watchers/off/rate"),
            AtLeast,
            (Some(0.95), None),
            ("≥ 95 % of none watching", ""),
        ),
        goal(
            "watchers/on/saturated",
            Own("watchers/off/saturated"),
            AtLeast,
            (Some(0.95), None),
            ("≥ 95 % of none watching", ""),
        ),
        goal("watchers/memory_beyond", Number, AtMost, (Some(4096.0), Some(2048.0)), ("≤ 4 KiB", "2 KiB")),
        goal("million/anonymous", Etcd, AtMost, (Some(0.1), None), ("≤ ⅒ × etcd", "")),
        goal("million/anonymous_restarted", Etcd, AtMost, (Some(0.1), None), ("≤ ⅒ × etcd", "")),
        goal("million/anonymous_restarted", Number, AtMost, (None, Some(64e6)), ("", "64 MB")),
        goal("million/start", Etcd, AtMost, (Some(0.1), None), ("≤ ⅒ × etcd", "")),
        goal("million/start", Number, AtMost, (None, Some(0.2)), ("", "0.2 s")),
        goal("cluster_put/spread/rate", Etcd, AtLeast, (Some(2.0), Some(2.8)), ("≥ 2 × etcd", "2.8")),
        goal("cluster_put/leader/rate", Etcd, AtLeast, (Some(2.0), Some(2.8)), ("≥ 2 × etcd", "2.8")),
        goal("cluster_get/spread/rate", Etcd, AtLeast, (Some(3.0), Some(4.0)), ("≥ 3 × etcd", "4")),
        goal("cluster_get/ratio", Number, AtLeast, (Some(0.8), Some(0.95)), ("≥ 0.8", "0.95")),
        goal("lease_grant/256/rate", Etcd, AtLeast, (Some(2.5), None), ("≥ 2.5 × etcd", "")),
        goal(
            "keep_alive/together/rate",
            Number,
            AtLeast,
            (Some(100e3), Some(300e3)),
            ("≥ 100,000/s", "300,000/s"),
        ),
        goal("keep_alive/together/written", Number, AtMost, (Some(0.0), None), ("no disk write", "")),
        goal("keep_alive/single/rate", Etcd, AtLeast, (Some(2.5), None), ("≥ 2.5 × etcd", "")),
        goal("hand_over/100/rate", Etcd, AtLeast, (Some(2.5), Some(5.0)), ("≥ 2.5 × etcd's lock", "5")),
        goal(
            "backup/put/p99",
            Own("backup/quiet/put/p99"),
            AtMost,
            (Some(3.0), Some(1.5)),
            ("≤ 3 × quiet", "1.5"),
        ),
        goal(
            "lease_end/put/p99",
            Own("lease_end/quiet/put/p99"),
            AtMost,
            (Some(3.0), None),
            ("≤ 3 × quiet", ""),
        ),
        goal("reclaim/put/p99", Own("reclaim/quiet/put/p99"), AtMost, (Some(3.0), None), ("≤ 3 × quiet", "")),
        goal("reclaim/get/p99", Own("reclaim/quiet/get/p99"), AtMost, (Some(3.0), None), ("≤ 3 × quiet", "")),
        goal(
            "defragment/put/p99",
            Own("reclaim/quiet/put/p99"),
            AtMost,
            (Some(3.0), None),
            ("≤ 3 × quiet", ""),
        ),
        goal(
            "defragment/get/p99",
            Own("reclaim/quiet/get/p99"),
            AtMost,
            (Some(3.0), None),
            ("≤ 3 × quiet", ""),
        ),
        goal("put_cost/ratio", Number, AtMost, (Some(1.5), Some(1.25)), ("≤ 1.5", "1.25")),
    ]
};

impl Goal {
    /// Judges a report; `None` when it lacks a figure.
    pub(crate) fn verdict(&self, report: &Report) -> Option<Verdict> {
        let figure = report.median(self.line, Peer::Konsul)?;
        let value = match self.against {
            Against::Number => figure,
            Against::Etcd => figure / report.median(self.line, Peer::Etcd)?,
            Against::Bare => figure / report.median(self.line, Peer::Bare)?,
            Against::Own(line) => figure / report.median(line, Peer::Konsul)?,
            Against::Floors(lines) => {
                let floors: Option<Vec<f64>> =
                    lines.iter().map(|line| report.median(line, Peer::Bare)).collect();
                figure / floors?.iter().sum::<f64>()
            }
        };
        let reaches = |limit: f64| match self.bound {
            Bound::AtLeast => value >= limit,
            Bound::AtMost => value <= limit,
        };
        Some(Verdict { value, must: self.must.map(reaches), aim: self.aim.map(reaches) })
    }
}
