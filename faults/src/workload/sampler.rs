//! Compares the members all the time: who has applied the same must have the same state, and a term has one leader.

use std::collections::BTreeMap;
use std::time::Duration;

use konsul_client::Client;
use konsul_client::proto::StatusResponse;
use tokio::sync::watch;

use crate::report::Report;

/// How often each member is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// Asks all members for their status until it is told to stop.
pub(super) async fn run(members: Vec<(String, Client)>, report: Report, mut stopped: watch::Receiver<bool>) {
    let mut seen = Seen::default();
    while tokio::time::timeout(INTERVAL, stopped.wait_for(|stop| *stop)).await.is_err() {
        let asked = members.iter().map(|(name, client)| async move { (name, client.admin().status().await) });
        for (name, status) in futures_util::future::join_all(asked).await {
            if let Ok(status) = status {
                report.found_all(seen.take(name, &status));
            }
        }
    }
}

/// What members have said so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The state's hash by applied index, and who said so.
    hashes: BTreeMap<u64, (String, String)>,
    /// The leader's id by term, and who said so.
    leaders: BTreeMap<u64, (u64, String)>,
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
        if status.leader_id != 0 {
            let (leader, by) =
                self.leaders.entry(status.term).or_insert_with(|| (status.leader_id, name.to_owned()));
            if *leader != status.leader_id {
                let (term, other) = (status.term, status.leader_id);
                wrong.push(format!("in term {term} {by} followed {leader} and {name} follows {other}"));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(applied_index: u64, state_hash: &str, term: u64, leader_id: u64) -> StatusResponse {
        let state_hash = state_hash.to_owned();
        StatusResponse { applied_index, state_hash, term, leader_id, ..StatusResponse::default() }
    }

    #[test]
    fn members_that_agree_are_left_alone() {
        let mut seen = Seen::default();
        for (name, status) in [
            ("n1", status(1, "a", 1, 1)),
            ("n2", status(1, "a", 1, 0)),
            ("n2", status(2, "b", 2, 2)),
            ("n1", status(2, "b", 2, 2)),
            ("n1", status(2, "b", 3, 1)),
        ] {
            assert_eq!(seen.take(name, &status), Vec::<String>::new());
        }
    }

    #[test]
    fn two_states_of_one_index_are_told() {
        let mut seen = Seen::default();
        assert!(seen.take("n1", &status(7, "a", 1, 1)).is_empty());
        let wrong = seen.take("n2", &status(7, "b", 1, 1));
        assert_eq!(wrong, ["at index 7 n1 had the state a and n2 has b"]);
    }

    #[test]
    fn two_leaders_of_one_term_are_told() {
        let mut seen = Seen::default();
        assert!(seen.take("n1", &status(7, "a", 4, 1)).is_empty());
        let wrong = seen.take("n2", &status(8, "b", 4, 2));
        assert_eq!(wrong, ["in term 4 n1 followed 1 and n2 follows 2"]);
    }
}
