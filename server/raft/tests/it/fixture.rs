//! A node in a directory of its own, and short ways to write to it and read from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use konsul_raft::{Node, RaftError, Settings};
use konsul_state::command::{self, KvOperation, KvPut, KvTxn, command::Op, kv_operation, outcome};
use konsul_state::propose::{BatchSink, Propose, ProposeError};
use konsul_state::{Batch, Command, Key, Namespace, Revision, State};

/// Records what is published, and checks that it comes without gap or repeat.
#[derive(Default)]
pub struct Recorder {
    held: Mutex<bool>,
    let_go: Condvar,
    pub published: Mutex<Vec<Arc<Batch>>>,
    pub resets: Mutex<Vec<u64>>,
}

impl BatchSink for Recorder {
    fn publish(&self, batches: &[Arc<Batch>]) {
        drop(self.let_go.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
        let mut published = self.published.lock().unwrap();
        for batch in batches {
            if let Some(last) = published.last() {
                assert_eq!(batch.revision, last.revision.next(), "published out of order");
            }
            published.push(batch.clone());
        }
    }

    fn reset(&self, revision: Revision) {
        self.published.lock().unwrap().clear();
        self.resets.lock().unwrap().push(revision.0);
    }
}

impl Recorder {
    /// Holds up what is published, or lets it go. The member has to apply on its thread
    /// ([`konsul_state::Durability::Synced`]): elsewhere it would wait for itself.
    pub fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.let_go.notify_all();
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Settings for tests: small files, so that rotation and snapshots happen.
pub fn settings(dir: &Path) -> Settings {
    // Says what goes on when RUST_LOG asks for it; only the first test of the process can set it.
    if let Ok(filter) = std::env::var("RUST_LOG") {
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    }
    let mut settings = Settings::new(dir, "this boot");
    settings.map_bytes = 256 << 20;
    settings.log_file_bytes = 1 << 20;
    settings.reserve_bytes = 1 << 20;
    settings
}

pub struct Member {
    pub node: Arc<Node>,
    pub state: State,
    pub sink: Arc<Recorder>,
}

impl Member {
    pub async fn open(settings: Settings) -> Result<Self, RaftError> {
        let sink = Arc::new(Recorder::default());
        let (node, state) = Node::open(settings, sink.clone()).await?;
        Ok(Self { node: Arc::new(node), state, sink })
    }

    pub async fn put(&self, key: &str, value: &str) -> Result<u64, ProposeError> {
        let outcome = self.node.propose(put(key, value)).await?;
        assert!(matches!(outcome.result, Some(outcome::Result::Kv(_))), "{outcome:?}");
        Ok(outcome.revision)
    }

    pub async fn get(&self, key: &str) -> Option<String> {
        self.node.read_barrier().await.unwrap();
        self.get_stale(key)
    }

    pub fn get_stale(&self, key: &str) -> Option<String> {
        get(&self.state, key)
    }

    pub fn revision(&self) -> u64 {
        self.state.view().unwrap().revision().0
    }

    pub fn hash(&self) -> String {
        self.state.view().unwrap().hash().to_string()
    }
}

pub fn get(state: &State, key: &str) -> Option<String> {
    let namespace = Namespace::parse("").unwrap();
    let found = state.view().unwrap().kv_get(&namespace, &Key::parse(key).unwrap(), None).unwrap();
    found.map(|record| text(&record.value))
}

pub fn put(key: &str, value: &str) -> Command {
    txn([put_operation(key, value)])
}

pub fn put_operation(key: &str, value: &str) -> KvOperation {
    let put = KvPut { key: key.to_owned(), value: value.to_owned().into(), ..KvPut::default() };
    KvOperation { op: Some(kv_operation::Op::Put(put)) }
}

/// All of these in one revision.
pub fn txn(then: impl IntoIterator<Item = KvOperation>) -> Command {
    let then = then.into_iter().collect();
    let txn = KvTxn { namespace: Namespace::DEFAULT.to_owned(), then, ..KvTxn::default() };
    Command { format: command::FORMAT, time_ms: 1, op: Some(Op::Kv(txn)), ..Command::default() }
}

/// Everything that ever changed, in order; checks that revisions are dense.
pub fn history(state: &State) -> Vec<Arc<Batch>> {
    let view = state.view().unwrap();
    let mut batches: Vec<Arc<Batch>> = Vec::new();
    while (batches.len() as u64) < view.revision().0 {
        let from = Revision(batches.len() as u64 + 1);
        let page = view.batches(from, 1 << 20).unwrap();
        assert!(!page.is_empty(), "history ends before revision {}", view.revision());
        batches.extend(page);
    }
    for (n, batch) in batches.iter().enumerate() {
        assert_eq!(batch.revision, Revision(n as u64 + 1), "revisions are dense");
    }
    batches
}

/// A random number generator, and its seed on stderr; `KONSUL_TEST_SEED` replays one.
pub fn random(test: &str) -> rand::rngs::StdRng {
    let seed = match std::env::var("KONSUL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("KONSUL_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("{test}: KONSUL_TEST_SEED={seed}");
    rand::SeedableRng::seed_from_u64(seed)
}

/// The files under a directory with their contents, to see whether anything changed. Without the state's own,
/// which are as long as the map.
pub fn image(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if path.to_string_lossy().contains("state/gen-") => {}
                true => dirs.push(path),
                false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap())),
            }
        }
    }
    files
}
