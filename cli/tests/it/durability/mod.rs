//! Nothing that was acknowledged is lost, doubled or halved, however often the server is killed. The clients are real,
//! and go on through every crash.

mod watcher;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_client::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{RwLock, watch as told_channel};
use tokio::task::JoinHandle;

use crate::konsul::LIMIT;
use crate::server::Server;
use watcher::Told;
use writer::{Rows, Writer, rows};

const ROUNDS: usize = 50;
const WRITERS: usize = 32;
/// How long a round lasts at most, but for each fifth, which lasts until a snapshot is made.
const ROUND_MS: u64 = 200;
/// The last revision that is compacted is of this round: the history after it is read again at the end.
const LAST_COMPACTION: usize = 40;

/// The clients of a test.
struct Clients {
    client: Client,
    writers: Vec<Arc<RwLock<Writer>>>,
    /// Held by each writer while it writes; false ends them.
    gate: Arc<RwLock<bool>>,
    watchers: Vec<(String, told_channel::Receiver<Told>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(server: &Server, seed: u64) -> Self {
        let client = Client::builder().address(format!("http://{}", server.address)).build().unwrap();
        let gate = Arc::new(RwLock::new(true));
        let writer = |number| Arc::new(RwLock::new(Writer::new(number, server.kv(), seed)));
        let mut clients = Self {
            client,
            writers: (0..WRITERS).map(writer).collect(),
            gate: gate.clone(),
            watchers: Vec::new(),
            tasks: Vec::new(),
        };
        for prefix in ["", "", "writer-07/", "writer-1", "writer-31/left"] {
            let told = clients.watch(prefix, 1);
            clients.watchers.push((prefix.to_owned(), told));
        }
        for writer in &clients.writers {
            clients.tasks.push(tokio::spawn(Writer::run(writer.clone(), gate.clone())));
        }
        clients
    }

    fn watch(&self, prefix: &str, from: u64) -> told_channel::Receiver<Told> {
        let (sender, receiver) = told_channel::channel(Told::default());
        tokio::spawn(watcher::watch(self.client.clone(), prefix.to_owned(), from, sender));
        receiver
    }

    /// Checks all there is to know between two writes; the revision it was at.
    async fn check(&mut self) -> u64 {
        if let Some(index) = self.tasks.iter().position(JoinHandle::is_finished) {
            self.tasks.swap_remove(index).await.expect("a writer failed");
        }
        let (revision, found) = everything(&self.client).await;
        let mut expected = Rows::new();
        for writer in &self.writers {
            expected.extend(writer.read().await.rows().clone());
        }
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (key, row) in &found {
            assert!(*row == expected[key], "{key}: {} and not {}", text(row), text(&expected[key]));
        }
        for writer in &self.writers {
            let writer = writer.read().await;
            let side = |side| found.get(&format!("{}{side}", writer.prefix()));
            assert_eq!(side("left"), side("right"), "half a Txn");
        }
        for (prefix, told) in &mut self.watchers {
            let reached = tokio::time::timeout(LIMIT, told.wait_for(|told| told.revision >= revision)).await;
            let told = reached.expect("a watcher does not come forward").expect("a watcher failed");
            let of_prefix = found.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
            assert!(of_prefix.eq(told.rows.iter()), "the watcher of {prefix:?} has another state");
        }
        revision
    }
}

fn text(row: &writer::Row) -> String {
    format!("{} bytes, version {}, revision {}", row.value.len(), row.version, row.revision)
}

/// All entries, and the revision they are of.
async fn everything(client: &Client) -> (u64, Rows) {
    let revision = client.admin().status().await.unwrap().revision;
    let entries = client.kv().list("").at_revision(revision).all().await.unwrap();
    (revision, rows(entries))
}

pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("KONSUL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("KONSUL_TEST_SEED must be a number"),
        Err(_) => rand::random(),
    };
    eprintln!("KONSUL_TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_crash() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::launch().set("KONSUL_RAFT_SNAPSHOT_LOG_BYTES", "1MiB").start();
    let mut clients = Clients::start(&server, seed);
    let gate = clients.gate.clone();
    let mut compacted = 0;
    for round in 1..=ROUNDS {
        if round % 5 == 0 {
            until_snapshot(&server).await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..ROUND_MS))).await;
        server.kill_and_restart();
        let closed = tokio::time::timeout(LIMIT, gate.write()).await.expect("a writer does not come back");
        let revision = clients.check().await;
        if round % 5 == 0 && round <= LAST_COMPACTION {
            compacted = revision;
            clients.client.admin().compact(compacted).await.unwrap();
        }
        drop(closed);
    }
    let mut closed = gate.write().await;
    clients.check().await;
    rebuilds_a_state_that_it_does_not_trust(&mut server, &mut clients).await;
    let revision = clients.check().await;

    let first = clients.watchers[0].1.borrow().clone();
    let mut fresh = clients.watch("", compacted + 1);
    let fresh = tokio::time::timeout(LIMIT, fresh.wait_for(|told| told.revision >= revision)).await;
    let fresh = fresh.unwrap().unwrap().changes.clone();
    let known: Vec<_> = first.changes.into_iter().filter(|(at, ..)| *at > compacted).collect();
    assert!(fresh == known, "the history is another than the watchers were told");

    *closed = false;
    drop(closed);
    let mut unknown = 0;
    for task in clients.tasks.drain(..) {
        task.await.unwrap();
    }
    for writer in &clients.writers {
        unknown += writer.read().await.unknown;
    }
    eprintln!(
        "{ROUNDS} rounds, {revision} revisions, {unknown} unknown outcomes, {} snapshots",
        snapshots(&server)
    );
}

fn snapshots(server: &Server) -> usize {
    server.log().matches("made a snapshot").count()
}

async fn until_snapshot(server: &Server) {
    let (before, began) = (snapshots(server), Instant::now());
    while snapshots(server) == before {
        assert!(began.elapsed() < LIMIT, "no snapshot is made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As after a power loss: pages of the state may be missing, so it is made anew from the snapshot and the log.
async fn rebuilds_a_state_that_it_does_not_trust(server: &mut Server, clients: &mut Clients) {
    let before = server.status().await;
    server.kill();
    let path = server.data_dir().join("state/MARKER");
    let marker = std::fs::read_to_string(&path).unwrap();
    let boot =
        marker.lines().find_map(|line| line.strip_prefix("open ")).expect("a killed server left it open");
    std::fs::write(&path, marker.replace(boot, "00000000-0000-0000-0000-000000000000")).unwrap();
    server.restart();
    let last_opening =
        server.log().lines().rfind(|line| line.contains("opened the state")).map(str::to_owned);
    assert!(last_opening.as_ref().is_some_and(|line| line.contains("Discarded")), "{last_opening:?}");
    clients.check().await;
    let after = server.status().await;
    assert_eq!((after.revision, after.state_hash), (before.revision, before.state_hash));
}
