//! A store in a directory of its own, and short ways to say Commands.

use std::path::Path;
use std::sync::Arc;

use konsul_state::command::{
    self, KeySpan, KvDelete, KvDeleteRange, KvOperation, KvPut, KvTxn, TrimHistory, command::Op,
    kv_operation, outcome, refusal,
};
use konsul_state::snapshot::{DATA, SnapshotContent, inspect};
use konsul_state::store::{self, StoreOptions};
use konsul_state::{
    Batch, Command, CommandGroup, Durability, Entry, Key, LogPosition, Namespace, Origin, Outcome, Payload,
    Persistence, State, StateWriter,
};
use tempfile::TempDir;

pub struct Fixture {
    pub dir: TempDir,
    pub state: State,
    pub writer: StateWriter,
    pub batches: Vec<Arc<Batch>>,
    pub index: u64,
    pub time_ms: u64,
    /// All that was applied, if somebody wants to apply it again.
    pub log: Option<Vec<Command>>,
}

pub fn options(dir: &Path, boot_id: &str) -> StoreOptions {
    StoreOptions {
        dir: dir.to_owned(),
        map_bytes: 1 << 30,
        persistence: Persistence::Lmdb,
        durability: Durability::Log,
        boot_id: boot_id.to_owned(),
    }
}

/// Copies the state into the new directory `to`, as a snapshot does.
pub fn copy(state: &State, to: &Path) -> SnapshotContent {
    std::fs::create_dir(to).unwrap();
    state.copy_into(&mut std::fs::File::create(to.join(DATA)).unwrap()).unwrap();
    inspect(to).unwrap()
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (state, writer, origin) = store::open(options(dir.path(), "boot")).unwrap();
        assert_eq!(origin, Origin::Created);
        Self { dir, state, writer, batches: Vec::new(), index: 0, time_ms: 1_000, log: None }
    }

    pub fn entry(&mut self, payload: Payload) -> Entry {
        self.index += 1;
        Entry { position: LogPosition { term: 1, leader: 1, index: self.index }, payload }
    }

    /// Applies one Command and keeps its Batch.
    pub fn apply(&mut self, command: Command) -> Outcome {
        self.log.iter_mut().for_each(|log| log.push(command.clone()));
        let entry = self.entry(Payload::Commands(CommandGroup { commands: vec![command] }));
        let mut run = self.writer.apply(vec![entry]).unwrap();
        self.batches.append(&mut run.batches);
        run.outcomes.pop().unwrap().pop().unwrap()
    }

    pub fn kv(&mut self, then: Vec<KvOperation>) -> Outcome {
        let command = self.command(kv_txn(then));
        self.apply(command)
    }

    pub fn command(&mut self, op: Op) -> Command {
        self.time_ms += 1;
        Command { format: command::FORMAT, time_ms: self.time_ms, op: Some(op), ..Command::default() }
    }

    pub fn put(&mut self, key: &str, value: &str) -> u64 {
        let outcome = self.kv(vec![put(key, value)]);
        assert!(matches!(outcome.result, Some(outcome::Result::Kv(_))), "{outcome:?}");
        outcome.revision
    }

    pub fn get(&self, key: &str, at: Option<u64>) -> Option<String> {
        let view = self.state.view().unwrap();
        let found = view.kv_get(&ns(), &Key::parse(key).unwrap(), at.map(konsul_state::Revision)).unwrap();
        found.map(|record| String::from_utf8(record.value.to_vec()).unwrap())
    }

    /// Applies the log of another one, in runs of up to so many entries; the same log makes the same state whatever the runs.
    pub fn replay(&mut self, log: Vec<Command>, mut run_length: impl FnMut() -> usize) {
        let mut commands = log.into_iter().peekable();
        while commands.peek().is_some() {
            let size = run_length();
            let one = |command| Payload::Commands(CommandGroup { commands: vec![command] });
            let entries: Vec<_> = commands.by_ref().take(size).map(|c| self.entry(one(c))).collect();
            self.writer.apply(entries).unwrap();
        }
    }

    pub fn compact(&mut self, revision: u64) -> Outcome {
        let command = self.command(Op::Compact(command::Compact { revision }));
        self.apply(command)
    }

    pub fn trim(&mut self, max_rows: u32) -> Outcome {
        let command = self.command(Op::TrimHistory(TrimHistory { max_rows, max_bytes: 0 }));
        self.apply(command)
    }
}

pub fn ns() -> Namespace {
    Namespace::parse("").unwrap()
}

pub fn kv_txn(then: Vec<KvOperation>) -> Op {
    Op::Kv(KvTxn { namespace: "default".into(), then, ..KvTxn::default() })
}

pub fn put(key: &str, value: &str) -> KvOperation {
    let put = KvPut { key: key.into(), value: value.to_owned().into(), previous: true, ..KvPut::default() };
    KvOperation { op: Some(kv_operation::Op::Put(put)) }
}

pub fn delete(key: &str) -> KvOperation {
    let delete = KvDelete { key: key.into(), previous: true, ..KvDelete::default() };
    KvOperation { op: Some(kv_operation::Op::Delete(delete)) }
}

pub fn delete_range(span: KeySpan) -> KvOperation {
    let range = KvDeleteRange { span: Some(span), ..KvDeleteRange::default() };
    KvOperation { op: Some(kv_operation::Op::DeleteRange(range)) }
}

pub fn refused(outcome: &Outcome) -> &refusal::Reason {
    match &outcome.result {
        Some(outcome::Result::Refused(refusal)) => refusal.reason.as_ref().unwrap(),
        other => panic!("not refused: {other:?}"),
    }
}
