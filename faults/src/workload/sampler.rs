//! Compares the members all the time: who has applied the same must have the same state, and nobody follows a leader that was
//! succeeded.

use std::collections::BTreeMap;
use std::time::Duration;

use konsul_client::Client;
use konsul_client::proto::StatusResponse;
use tokio::sync::watch;

use crate::report::Report;

/// How often each member is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// Asks all members for their status until it is told to stop, or they contradict each other: what comes after that follows from it.
/// Returns when each leader was seen first, in the report's time.
pub(super) async fn run(
    members: Vec<(String, Client)>,
    report: Report,
    mut stopped: watch::Receiver<bool>,
) -> Vec<Duration> {
    let mut seen = Seen::default();
    let mut changes = BTreeMap::new();
    while tokio::time::timeout(INTERVAL, stopped.wait_for(|stop| *stop)).await.is_err() {
        let asked = members.iter().map(|(name, client)| async move { (name, client.admin().status().await) });
        let mut wrong = Vec::new();
        for (name, status) in futures_util::future::join_all(asked).await {
            if let Ok(status) = status {
                if status.leader_id != 0 {
                    let leader = (status.term, status.leader_id);
                    changes.entry(leader).or_insert_with(|| report.began().elapsed());
                }
                wrong.extend(seen.take(name, &status));
            }
        }
        if !wrong.is_empty() {
            report.found_all(wrong);
            break;
        }
    }
    changes.into_values().collect()
}

/// What members have said so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The state's hash by applied index, and who said so.
    hashes: BTreeMap<u64, (String, String)>,
    /// The newest leader that a member followed, by the member's id, which a new disk changes: its term and its id. A term may
    /// have several, one after the other, and each has a greater id than the one before (openraft's `leader_id_adv`).
    leaders: BTreeMap<u64, (u64, u64)>,
}

impl Seen {
    /// Compares a member's status with all before; what contradicts them.
    fn take(&mut self, name: &str, status: &StatusResponse) -> Vec<String> {
        let mut wrong = Vec::new();
        let (index, hash) = (status.applied_index, &status.state_hash);
        let (first, by) = self.hashes.entry(index).or_insert_with(|| (hash.clone(), name.to_owned()));
        if first != hash {
            wrong.push(format!("at index {index} {by} had the state {first} and {name} has {hash}"));
        }
        let leader = (status.term, status.leader_id);
        let newest = self.leaders.entry(status.member_id).or_default();
        if status.leader_id != 0 {
            if leader < *newest {
                let ((term, id), (before_term, before)) = (leader, *newest);
                wrong
                    .push(format!("{name} follows {id} in term {term} after {before} in term {before_term}"));
            }
            *newest = leader.max(*newest);
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(member_id: u64, applied_index: u64, state_hash: &str) -> StatusResponse {
        let state_hash = state_hash.to_owned();
        StatusResponse { member_id, applied_index, state_hash, ..StatusResponse::default() }
    }

    fn follows(member_id: u64, term: u64, leader_id: u64) -> StatusResponse {
        StatusResponse { member_id, term, leader_id, ..StatusResponse::default() }
    }

    #[test]
    fn members_that_agree_are_left_alone() {
        let mut seen = Seen::default();
        for (name, status) in [
            ("n1", status(1, 1, "a")),
            ("n2", status(2, 1, "a")),
            ("n2", status(2, 2, "b")),
            ("n1", status(1, 2, "b")),
        ] {
            assert_eq!(seen.take(name, &status), Vec::<String>::new());
        }
    }

    #[test]
    fn two_states_of_one_index_are_told() {
        let mut seen = Seen::default();
        assert!(seen.take("n1", &status(1, 7, "a")).is_empty());
        let wrong = seen.take("n2", &status(2, 7, "b"));
        assert_eq!(wrong, ["at index 7 n1 had the state a and n2 has b"]);
    }

    #[test]
    fn leaders_succeed_each_other() {
        let mut seen = Seen::default();
        for status in [
            follows(1, 4, 1),
            follows(1, 5, 0),
            // Nobody got the votes of term 5.
            follows(1, 4, 0),
            follows(1, 6, 2),
            follows(1, 6, 3),
            // Another member may not have heard of that yet.
            follows(2, 4, 1),
        ] {
            assert_eq!(seen.take("n1", &status), Vec::<String>::new());
        }
        assert_eq!(seen.take("n1", &follows(1, 6, 2)), ["n1 follows 2 in term 6 after 3 in term 6"]);
        assert_eq!(seen.take("n1", &follows(1, 4, 9)), ["n1 follows 9 in term 4 after 3 in term 6"]);
    }
}
