//! The faults: a file each, drawn from a seed in two lanes, so that two are often there at a time. What a seed chooses depends on
//! nothing else; who leads when a fault asks for the leader does.

mod clock;
mod disk;
mod flapping;
mod isolation;
mod kill;
mod membership;
mod one_way;
mod packets;
mod partition;
mod pause;
mod restart;
mod transfer;

use std::future::Future;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::cluster::Cluster;
use crate::member::Member;
use crate::network::HUB;

/// How long a fault is there, in milliseconds. Elections take less.
const HOLD_MS: std::ops::Range<u64> = 2_000..7_000;
/// How long there is none in a lane, in milliseconds.
const GAP_MS: std::ops::Range<u64> = 500..2_500;

type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// Something that happens to a cluster and ends again.
trait Fault {
    /// Makes it happen, and says to whom.
    fn begin<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, String>;

    /// What goes on while it is there.
    fn hold<'a>(&'a mut self, _cluster: &'a Cluster, hold: Duration) -> Doing<'a, ()> {
        Box::pin(async move {
            tokio::time::sleep(hold).await;
            Ok(())
        })
    }

    /// Ends it, completely.
    fn heal<'a>(&'a mut self, cluster: &'a Cluster) -> Doing<'a, ()>;
}

/// A kind of fault.
struct Kind {
    name: &'static str,
    lane: Lane,
    /// Members that a cluster must have for it.
    members_min: usize,
    /// Whether it may leave no majority that could write, or with the other lane's fault beside it.
    stops_writes: bool,
    draw: MakeFault,
}

type MakeFault = fn(&mut Draw<'_>) -> Box<dyn Fault>;

impl Kind {
    const fn hard(name: &'static str, members_min: usize, draw: MakeFault) -> Self {
        Self { name, lane: Lane::Hard, members_min, stops_writes: false, draw }
    }

    const fn soft(name: &'static str, members_min: usize, draw: MakeFault) -> Self {
        Self { name, lane: Lane::Soft, members_min, stops_writes: false, draw }
    }

    const fn that_may_stop_writes(self) -> Self {
        Self { stops_writes: true, ..self }
    }
}

/// Faults of one lane never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Takes members away from each other.
    Hard,
    /// Makes life difficult for a member.
    Soft,
}

const KINDS: &[Kind] = &[
    Kind::hard("kill", 1, |draw| Box::new(kill::Kill::one(draw))),
    Kind::hard("kill-all", 2, |_| Box::new(kill::Kill::all())).that_may_stop_writes(),
    Kind::hard("restart", 1, |draw| Box::new(restart::Restart::new(draw))),
    Kind::hard("pause", 1, |draw| Box::new(pause::Pause::new(draw))),
    Kind::hard("isolation", 1, |draw| Box::new(isolation::Isolation::new(draw))),
    Kind::hard("partition", 2, |draw| Box::new(partition::Partition::new(draw))),
    Kind::hard("one-way", 1, |draw| Box::new(one_way::OneWay::new(draw))),
    Kind::hard("flapping", 1, |draw| Box::new(flapping::Flapping::new(draw))),
    Kind::hard("transfer", 2, |draw| Box::new(transfer::Transfer::new(draw))),
    Kind::hard("join", 2, |_| Box::new(membership::Join)),
    Kind::hard("replace", 3, |draw| Box::new(membership::Replace::new(draw))),
    Kind::soft("loss", 1, |draw| Box::new(packets::Loss::new(draw))),
    Kind::soft("delay", 1, |draw| Box::new(packets::Late::new(draw))),
    Kind::soft("clock-jump", 1, |draw| Box::new(clock::Jump::new(draw))),
    Kind::soft("disk-full", 1, |draw| Box::new(disk::Full::new(draw))).that_may_stop_writes(),
];

/// Whether these faults (all when none are named) can happen to a cluster of so many members.
///
/// # Errors
/// When there is no such fault, or none is left.
pub(crate) fn check(names: &[String], members: usize) -> Result<()> {
    kinds(names, members).map(drop)
}

/// Makes faults of these kinds (all when none are named) happen for so long, and heals the last ones.
///
/// # Errors
/// When there is no such kind, or a fault can't be made or healed.
pub(crate) async fn run(cluster: &Cluster, names: &[String], seed: u64, length: Duration) -> Result<()> {
    let kinds = kinds(names, cluster.members.len())?;
    let end = Instant::now() + length;
    let lane = |lane: Lane, seed: u64| {
        let kinds: Vec<&Kind> = kinds.iter().copied().filter(|kind| kind.lane == lane).collect();
        run_lane(cluster, kinds, seed, end)
    };
    tokio::try_join!(lane(Lane::Hard, seed), lane(Lane::Soft, !seed))?;
    Ok(())
}

fn kinds(names: &[String], members: usize) -> Result<Vec<&'static Kind>> {
    if let Some(unknown) = names.iter().find(|name| KINDS.iter().all(|kind| kind.name != **name)) {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        bail!("there is no fault `{unknown}`; there are {}", known.join(", "));
    }
    let asked = |kind: &&Kind| names.is_empty() || names.iter().any(|name| name == kind.name);
    let kinds: Vec<&Kind> = KINDS.iter().filter(asked).filter(|kind| kind.members_min <= members).collect();
    if kinds.is_empty() {
        bail!("none of these faults can happen to {members} members");
    }
    Ok(kinds)
}

async fn run_lane(cluster: &Cluster, kinds: Vec<&Kind>, seed: u64, end: Instant) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut deck: Vec<&Kind> = Vec::new();
    while !kinds.is_empty() {
        if deck.is_empty() {
            // Each kind comes once before any comes again.
            deck.clone_from(&kinds);
            deck.shuffle(&mut random);
        }
        let Some(kind) = deck.pop() else { break };
        let gap = Duration::from_millis(random.random_range(GAP_MS));
        let hold = Duration::from_millis(random.random_range(HOLD_MS));
        let mut fault = (kind.draw)(&mut Draw { random: &mut random, members: cluster.members.len() });
        tokio::time::sleep_until((Instant::now() + gap).min(end).into()).await;
        if Instant::now() >= end {
            break;
        }
        let began = Instant::now();
        let what = fault.begin(cluster).await?;
        cluster.report.tell(format_args!("{}: {what}", kind.name));
        let over = cluster.report.fault(kind.name, kind.stops_writes, began);
        fault.hold(cluster, hold).await?;
        fault.heal(cluster).await?;
        over();
        cluster.report.tell(format_args!("{}: over", kind.name));
    }
    Ok(())
}

/// What a fault is drawn from.
struct Draw<'a> {
    random: &'a mut StdRng,
    members: usize,
}

/// Whom a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Leader,
    Member(usize),
}

impl Draw<'_> {
    /// The leader as often as any of the members.
    fn target(&mut self) -> Target {
        match self.random.random() {
            true => Target::Leader,
            false => Target::Member(self.random.random_range(0..self.members)),
        }
    }

    fn coin(&mut self) -> bool {
        self.random.random()
    }
}

impl Target {
    /// The member that it is now, and how a report names it; the first one, if a leader is asked for and nobody knows one.
    async fn find(self, cluster: &Cluster) -> (&Member, String) {
        let leader = match self {
            Self::Leader => cluster.leader().await,
            Self::Member(index) => return (&cluster.members[index], cluster.members[index].name.clone()),
        };
        match leader {
            Some(leader) => (leader, format!("{}, which leads", leader.name)),
            None => (&cluster.members[0], cluster.members[0].name.clone()),
        }
    }
}

/// The other members' addresses.
fn peers(cluster: &Cluster, member: &Member) -> Vec<Ipv4Addr> {
    let others = cluster.members.iter().chain(&cluster.spare).filter(|other| other.name != member.name);
    others.map(|other| other.address).collect()
}

/// The addresses of the other members and of the clients.
fn everybody(cluster: &Cluster, member: &Member) -> Vec<Ipv4Addr> {
    let mut addresses = peers(cluster, member);
    addresses.push(HUB);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_chosen_by_name_and_by_what_the_cluster_has() {
        let named = |kinds: Vec<&Kind>| kinds.into_iter().map(|kind| kind.name).collect::<Vec<_>>();
        assert_eq!(kinds(&[], 3).unwrap().len(), KINDS.len());
        assert!(!named(kinds(&[], 1).unwrap()).contains(&"partition"));
        assert_eq!(named(kinds(&["loss".to_owned(), "kill".to_owned()], 3).unwrap()), ["kill", "loss"]);
        assert!(
            kinds(&["partition".to_owned()], 1).is_err_and(|error| error.to_string().contains("1 members"))
        );
        assert!(kinds(&["storm".to_owned()], 3).is_err_and(|error| error.to_string().contains("`storm`")));
    }
}
