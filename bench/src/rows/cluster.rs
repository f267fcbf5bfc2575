//! Rows: put and linearizable get on clusters of three members, 256 in flight; over all members, and at the leader or a
//! follower alone. The members share the machine and its disk, so the CPU of a call is the sum over them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::get::RandomGets;
use super::put::RandomPuts;
use super::{Bench, KEYS, bulk_load, call_figures, key, progress};
use crate::load::{Outcome, drive_members, runtime};
use crate::peers::etcd::Etcd;
use crate::peers::konsul::Konsul;
use crate::peers::{Freshness, Peer, Target, connect};
use crate::process::{Seat, Server};
use crate::report::{Figure, Report, Unit};

/// Members of a cluster.
const MEMBERS: usize = 3;
const IN_FLIGHT: usize = 256;
/// How long the members may take to find each other and to elect one.
const FORM_LIMIT: Duration = Duration::from_secs(60);

/// Measures puts.
///
/// # Errors
/// When a server fails.
pub(crate) fn put(bench: &Bench, report: &mut Report) -> Result<()> {
    run(bench, report, "cluster-put", &Put)
}

/// Measures linearizable gets.
///
/// # Errors
/// When a server fails.
pub(crate) fn get(bench: &Bench, report: &mut Report) -> Result<()> {
    run(bench, report, "cluster-get", &Get)
}

/// What is done in one turn of one peer.
trait Measure {
    fn round<T: Target>(&self, bench: &Bench, cluster: &Cluster) -> Result<Vec<Figure>>;
}

/// Three servers that are one, and which of them leads.
struct Cluster {
    peer: Peer,
    servers: Vec<Server>,
}

fn run(bench: &Bench, report: &mut Report, row: &'static str, measure: &impl Measure) -> Result<()> {
    let directory = bench.directory.join(row);
    let peers = [Peer::Etcd, Peer::Konsul].into_iter().filter(|peer| bench.peers.contains(peer));
    let clusters: Result<Vec<Cluster>> =
        peers.map(|peer| Cluster::start(bench, peer, &directory.join(peer.to_string()))).collect();
    let clusters = clusters?;
    for cluster in &clusters {
        match cluster.peer {
            Peer::Etcd => cluster.prepare::<Etcd>(bench, row)?,
            Peer::Bare | Peer::Konsul => cluster.prepare::<Konsul>(bench, row)?,
        }
    }
    for round in 1..=bench.rounds {
        for cluster in &clusters {
            let figures = match cluster.peer {
                Peer::Etcd => measure.round::<Etcd>(bench, cluster),
                Peer::Bare | Peer::Konsul => measure.round::<Konsul>(bench, cluster),
            };
            let figures =
                figures.with_context(|| format!("{row}, round {round}, {}", cluster.last_words()))?;
            progress(row, round, bench.rounds, cluster.peer, &figures);
            for figure in figures {
                report.add(figure, cluster.peer);
            }
        }
    }
    for server in clusters.into_iter().flat_map(|cluster| cluster.servers) {
        server.stop()?;
    }
    Ok(fs::remove_dir_all(directory)?)
}

impl Cluster {
    fn start(bench: &Bench, peer: Peer, directory: &Path) -> Result<Self> {
        let start = |seat: &Seat| {
            Server::start_at(peer, &bench.programs, &directory.join(seat.name()), Some(seat), &[])
        };
        let servers = Seat::of(MEMBERS)?.iter().map(start).collect::<Result<Vec<_>>>()?;
        Ok(Self { peer, servers })
    }

    /// Waits until every member answers linearizable reads, and writes the keys.
    fn prepare<T: Target>(&self, bench: &Bench, row: &'static str) -> Result<()> {
        let began = Instant::now();
        let is_formed = || -> Result<()> {
            for server in &self.servers {
                runtime()?.block_on(async {
                    let mut target: T = connect(server.address).await?;
                    target.get(key(row, 0), Freshness::Linearizable).await?;
                    Ok::<(), anyhow::Error>(())
                })?;
            }
            Ok(())
        };
        while let Err(error) = is_formed() {
            if began.elapsed() > FORM_LIMIT {
                return Err(error).with_context(|| format!("{} makes no cluster", self.peer));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bulk_load::<T>(&bench.client, self.split::<T>()?.0, row, 0..KEYS)
    }

    /// The leader, and the others. Asked anew each time: a leader may have lost its office under load.
    fn split<T: Target>(&self) -> Result<(&Server, Vec<&Server>)> {
        let leads = |server: &&Server| {
            runtime()?.block_on(async {
                let mut target: T = connect(server.address).await?;
                Ok::<bool, anyhow::Error>(target.leads().await?)
            })
        };
        let mut leader = None;
        let mut others = Vec::new();
        for server in &self.servers {
            match leads(&server)? {
                true if leader.is_none() => leader = Some(server),
                _ => others.push(server),
            }
        }
        match leader {
            Some(leader) => Ok((leader, others)),
            None => bail!("nobody leads {}", self.peer),
        }
    }

    fn all(&self) -> Vec<&Server> {
        self.servers.iter().collect()
    }

    fn last_words(&self) -> String {
        let words = self.servers.iter().map(|server| server.last_words()).collect::<Vec<_>>();
        format!("{} (the logs end: {})", self.peer, words.join("; "))
    }
}

struct Put;

impl Put {
    fn drive<T: Target>(bench: &Bench, cluster: &Cluster, driven: &[&Server]) -> Result<Outcome> {
        drive_members(&bench.client, driven, &cluster.all(), IN_FLIGHT, |target: T, number| {
            RandomPuts::new(target, "cluster-put", KEYS, number)
        })
    }
}

impl Measure for Put {
    fn round<T: Target>(&self, bench: &Bench, cluster: &Cluster) -> Result<Vec<Figure>> {
        let spread = Self::drive::<T>(bench, cluster, &cluster.all())?;
        let (leader, _) = cluster.split::<T>()?;
        let at_leader = Self::drive::<T>(bench, cluster, &[leader])?;
        let label = format!("{MEMBERS} members: put, {IN_FLIGHT} in flight");
        let mut figures = call_figures("cluster_put/spread", &format!("{label} over all"), &spread);
        figures.extend(call_figures("cluster_put/leader", &format!("{label} at the leader"), &at_leader));
        Ok(figures)
    }
}

struct Get;

impl Get {
    fn drive<T: Target>(bench: &Bench, cluster: &Cluster, driven: &[&Server]) -> Result<Outcome> {
        drive_members(&bench.client, driven, &cluster.all(), IN_FLIGHT, |target: T, number| {
            RandomGets::new(target, "cluster-get", KEYS, Freshness::Linearizable, number)
        })
    }
}

impl Measure for Get {
    fn round<T: Target>(&self, bench: &Bench, cluster: &Cluster) -> Result<Vec<Figure>> {
        let (leader, others) = cluster.split::<T>()?;
        let follower = others.first().context("there is no follower")?;
        let spread = Self::drive::<T>(bench, cluster, &cluster.all())?;
        let at_leader = Self::drive::<T>(bench, cluster, &[leader])?;
        let at_follower = Self::drive::<T>(bench, cluster, &[*follower])?;
        let label = format!("{MEMBERS} members: get, linearizable, {IN_FLIGHT} in flight");
        let mut figures = call_figures("cluster_get/spread", &format!("{label} over all"), &spread);
        figures.extend(call_figures("cluster_get/leader", &format!("{label} at the leader"), &at_leader));
        figures.extend(call_figures("cluster_get/follower", &format!("{label} at a follower"), &at_follower));
        let ratio = at_follower.rate / at_leader.rate;
        figures.push(Figure::new(
            "cluster_get/ratio",
            format!("{label}: at a follower ÷ at the leader"),
            Unit::Ratio,
            ratio,
        ));
        Ok(figures)
    }
}
