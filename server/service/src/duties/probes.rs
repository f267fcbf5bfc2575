//! Active checks: every member carries out its share of them, and writes what has changed. Whose a check is follows from its name and from
//! which members are there, by rendezvous hashing (Thaler and Ravishankar, 1998): a member that goes away leaves its checks to the others,
//! and nothing else moves. Until everybody knows that, a check may be carried out twice, or not at all, once.

use std::sync::Arc;
use std::time::Duration;

use konsul_checks::{Prober, Status, Verdict};
use konsul_state::CheckId;
use konsul_state::command::{self, check_report::Report, command::Op};
use konsul_state::propose::Propose;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::carry_out;
use crate::asked::Asked;
use crate::health::{Present, RollCall, Run, probe};
use crate::readers::Readers;

/// How often it is looked what is due, and how often the leader is asked who is there.
const EVERY: Duration = Duration::from_millis(100);
const ROLL_EVERY: Duration = Duration::from_millis(500);
/// How long the leader may take to answer that.
const ROLL_TIMEOUT: Duration = Duration::from_secs(1);
/// Most checks that begin at one look.
const TOGETHER: usize = 1_000;
/// Most results of one Command, and most that wait to be written.
const WRITTEN_TOGETHER: usize = 200;
const WAITING: usize = 10_000;

/// Looks after the active checks.
pub(super) struct Probes {
    pub(super) propose: Arc<dyn Propose>,
    pub(super) readers: Arc<Readers>,
    pub(super) prober: Arc<Prober>,
}

/// A result that is to be written, and whose it is.
type Found = (CheckId, Report);

impl Probes {
    pub(super) async fn run(self, stop: CancellationToken) {
        let (found, to_write) = mpsc::channel(WAITING);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.begin(found) => {}
            () = self.write(to_write) => {}
        }
    }

    /// Begins checks when they are due.
    async fn begin(&self, found: mpsc::Sender<Found>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut roll_calls = interval(ROLL_EVERY);
        roll_calls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut present = Vec::new();
        // Whatever is under way when this ends is given up.
        let mut under_way = JoinSet::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = roll_calls.tick() => {
                    if let Some(members) = self.call_the_roll().await {
                        present = members;
                    }
                    continue;
                }
                Some(_) = under_way.join_next() => continue,
            }
            let me = self.propose.standing().member_id;
            for run in self.readers.schedule.due(TOGETHER, |id| is_mine(id, me, &present)) {
                let (readers, prober, found) = (self.readers.clone(), self.prober.clone(), found.clone());
                under_way.spawn(async move {
                    let verdict = carry_out_check(&prober, &run).await;
                    if let Some(report) = readers.schedule.conclude(&run, verdict) {
                        // It fails only when all of this ends.
                        let _ = found.send((run.id, report)).await;
                    }
                });
            }
        }
    }

    /// Who is there; `None` while nobody can tell.
    async fn call_the_roll(&self) -> Option<Vec<u64>> {
        let member = self.propose.standing().member_id;
        if let [only] = &self.propose.members()[..]
            && only.id == member
        {
            return Some(vec![member]);
        }
        let asked = Asked { roll: Some(RollCall { member }), ..Asked::default() };
        let answer = self.propose.ask_leader(asked.encode_to_vec().into());
        let answer = timeout(ROLL_TIMEOUT, answer).await.ok()?.ok()?;
        Present::decode(answer).ok().map(|present| present.members)
    }

    /// Writes results, those together that came together. What can't be written now is found out again.
    async fn write(&self, mut found: mpsc::Receiver<Found>) {
        let mut together = Vec::with_capacity(WRITTEN_TOGETHER);
        while found.recv_many(&mut together, WRITTEN_TOGETHER).await > 0 {
            let (checks, reports): (Vec<CheckId>, Vec<Report>) = together.drain(..).unzip();
            let report = command::CheckReport { reports, ..Default::default() };
            if let Err(error) = carry_out(&*self.propose, Op::CheckReport(report)).await {
                tracing::debug!(%error, "results of checks could not be written; finding them out again");
                self.readers.schedule.again(checks.into_iter());
            }
        }
    }
}

async fn carry_out_check(prober: &Prober, run: &Run) -> Verdict {
    let critical = |output: String| Verdict { status: Status::Critical, output };
    let Some(kind) = &run.definition.kind else { return critical("the check has no kind".to_owned()) };
    match probe(kind) {
        Ok(Some(probe)) => prober.probe(&probe, run.timeout).await,
        Ok(None) => critical("the check is of a kind that is not carried out".to_owned()),
        // It was accepted by a server of another version.
        Err(invalid) => critical(invalid.to_string()),
    }
}

/// Whether a check is this member's among those that are there. Nobody's while it is not known who is.
fn is_mine(id: &CheckId, me: u64, present: &[u64]) -> bool {
    let mut name = Vec::with_capacity(128);
    id.to_name().encode(&mut name).is_ok()
        && present.iter().max_by_key(|member| xxh3_64_with_seed(&name, **member)) == Some(&me)
}

#[cfg(test)]
mod tests {
    use konsul_state::{CheckOwner, Ident, Label, Namespace, NodeId};

    use super::*;

    fn check(i: usize) -> CheckId {
        let node = NodeId {
            namespace: Namespace::parse("default").expect("is a namespace"),
            name: Label::parse(&format!("n{i}")).expect("is a label"),
        };
        CheckId { owner: CheckOwner::Node(node), id: Ident::parse("tcp").expect("is an id") }
    }

    #[test]
    fn each_check_is_one_members_and_moves_only_if_that_one_goes() {
        let owner = |i: usize, present: &[u64]| {
            let owners: Vec<u64> =
                present.iter().copied().filter(|me| is_mine(&check(i), *me, present)).collect();
            assert_eq!(owners.len(), 1);
            owners[0]
        };
        let mut shares = [0; 4];
        for i in 0..3_000 {
            let all = owner(i, &[1, 2, 3]);
            shares[all as usize] += 1;
            let fewer = owner(i, &[1, 3]);
            assert!(all == 2 || fewer == all);
        }
        assert!(shares[1..].iter().all(|share| (900..1_100).contains(share)), "{shares:?}");
        assert!(!is_mine(&check(0), 1, &[]));
    }
}
