//! A lease lives for its whole time after its last refresh, and not much longer.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::report::Period;
use crate::workload::Tenancy;

/// How much longer than its time a lease may live, counted from its last refresh or the last leader, while no fault explains it: an election
/// that nobody saw, and what its watcher waits for a member that hangs.
const LATE_MAX: Duration = Duration::from_secs(12);

/// Leases that ended before their time, or long after it.
pub(crate) fn leases_live_their_time(
    tenancies: &[Tenancy],
    ends: &BTreeMap<String, Duration>,
    leaders: &[Duration],
    faults: &[Period],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for tenancy in tenancies {
        let Tenancy { key, ttl, refreshed, told_gone, .. } = tenancy;
        let Some(ended) = ends.get(key).copied() else {
            wrong.push(format!("the lease of {key} never ended"));
            continue;
        };
        for at in [Some(ended), *told_gone].into_iter().flatten() {
            if at < *refreshed + *ttl {
                let early = (*refreshed + *ttl - at).as_secs_f64();
                wrong.push(format!("the lease of {key} ended {early:.3} s before its time of {ttl:?}"));
            }
        }
        let due = due(tenancy, ended, leaders);
        let explained: Duration = faults
            .iter()
            .filter(|fault| fault.stops_writes)
            .map(|fault| fault.overlap(due.min(ended), ended))
            .sum();
        let late = ended.saturating_sub(due).saturating_sub(explained);
        if late > LATE_MAX {
            let late = late.as_secs_f64();
            wrong.push(format!("the lease of {key} lived {late:.1} s longer than its time of {ttl:?}"));
        }
    }
    wrong
}

/// When a lease is over at the latest that ended then: its time after what may have refreshed it last, a call or a new leader.
fn due(tenancy: &Tenancy, ended: Duration, leaders: &[Duration]) -> Duration {
    let leader = leaders.iter().copied().filter(|at| *at < ended).max();
    tenancy.touched.max(leader.unwrap_or_default()) + tenancy.ttl
}

/// How much longer than its time a lease lived, for half of them, and at most.
pub(crate) fn lateness(
    tenancies: &[Tenancy],
    ends: &BTreeMap<String, Duration>,
    leaders: &[Duration],
) -> Option<(Duration, Duration)> {
    let late = |tenancy: &Tenancy| {
        let ended = *ends.get(&tenancy.key)?;
        Some(ended.saturating_sub(due(tenancy, ended, leaders)))
    };
    let mut late: Vec<Duration> = tenancies.iter().filter_map(late).collect();
    late.sort_unstable();
    Some((*late.get(late.len() / 2)?, *late.last()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn neither_early_nor_long_after() {
        let tenancy = Tenancy {
            key: "k".to_owned(),
            ttl: seconds(2),
            refreshed: seconds(10),
            touched: seconds(11),
            told_gone: None,
        };
        let gone = Tenancy { told_gone: Some(seconds(11)), ..tenancy.clone() };
        let fault =
            Period { name: "kill-all", stops_writes: true, begin: seconds(0), end: Some(seconds(99)) };
        let no_leader = vec![seconds(1)];
        for (tenancy, ended, leaders, faults, wrong) in [
            (&tenancy, Some(12), &no_leader, vec![], ""),
            (&tenancy, Some(25), &no_leader, vec![], ""),
            (&tenancy, Some(11), &no_leader, vec![], "ended 1.000 s before its time"),
            (&gone, Some(13), &no_leader, vec![], "ended 1.000 s before its time"),
            (&tenancy, Some(40), &no_leader, vec![], "lived 27.0 s longer"),
            (&tenancy, Some(40), &vec![seconds(30), seconds(50)], vec![], ""),
            (&tenancy, Some(40), &no_leader, vec![fault], ""),
            (&tenancy, None, &no_leader, vec![], "never ended"),
        ] {
            let ends = ended.map(|at| ("k".to_owned(), seconds(at))).into_iter().collect();
            let found = leases_live_their_time(std::slice::from_ref(tenancy), &ends, leaders, &faults);
            match wrong {
                "" => assert!(found.is_empty(), "{found:?}"),
                wrong => assert!(found.len() == 1 && found[0].contains(wrong), "{wrong}: {found:?}"),
            }
        }
        let ends = [("k".to_owned(), seconds(15))].into();
        assert_eq!(
            lateness(std::slice::from_ref(&tenancy), &ends, &no_leader),
            Some((seconds(2), seconds(2)))
        );
        assert_eq!(lateness(&[tenancy], &ends, &[seconds(12)]), Some((seconds(1), seconds(1))));
    }
}
