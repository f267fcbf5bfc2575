//! A client that writes, and knows at any time what the server must hold of its keys.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use konsul_proto::v1::{
    Compare, DeleteOperation, DeleteRequest, Entry, ListRequest, Operation, PutOperation, PutRequest,
    TxnRequest, compare, list_request, operation,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::RwLock;
use tonic::{Code, Request, Status};

use crate::konsul::LIMIT;
use crate::server::Kv;

/// How long to wait for a server that is being started.
const PAUSE: Duration = Duration::from_millis(10);
/// Single keys of a writer.
const KEYS: usize = 4;
const MAX_VALUE_BYTES: usize = 6_000;

/// What the server holds of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) value: Vec<u8>,
    /// Counts the puts, so that one that was done twice is seen.
    pub(super) version: u64,
    pub(super) revision: u64,
}

pub(super) type Rows = BTreeMap<String, Row>;

pub(super) fn rows(entries: impl IntoIterator<Item = Entry>) -> Rows {
    let row = |e: Entry| (e.key, Row { value: e.value.into(), version: e.version, revision: e.mod_revision });
    entries.into_iter().map(row).collect()
}

/// One write.
#[derive(Debug, Clone)]
enum Write {
    Put {
        key: String,
        value: Vec<u8>,
    },
    Delete {
        key: String,
    },
    /// Two keys in one Txn, which must always be equal.
    PutPair {
        value: Vec<u8>,
    },
    DeletePair,
    /// The counter, if it still is what it was.
    Increment {
        from: u64,
    },
}

/// What a call brought.
enum Told {
    Done { revision: u64 },
    Unknown,
}

/// A client with keys of its own.
pub(super) struct Writer {
    prefix: String,
    kv: Kv,
    random: StdRng,
    rows: Rows,
    counter: u64,
    writes: u64,
    pub(super) unknown: u64,
}

impl Writer {
    pub(super) fn new(number: usize, kv: Kv, seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
        let prefix = format!("writer-{number:02}/");
        Self { prefix, kv, random, rows: Rows::new(), counter: 0, writes: 0, unknown: 0 }
    }

    /// Writes until `gate` is told to end. Between two writes it lets go of the gate, and then its rows are what the
    /// server holds, however often that was killed meanwhile.
    pub(super) async fn run(writer: Arc<RwLock<Self>>, gate: Arc<RwLock<bool>>) {
        loop {
            let open = gate.read().await;
            if !*open {
                return;
            }
            writer.write().await.step().await;
        }
    }

    /// What the server must hold of this writer's keys.
    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    async fn step(&mut self) {
        let write = self.choose();
        self.writes += 1;
        let name = format!("{}{}", self.prefix, self.writes);
        let gives_up = self.random.random_ratio(1, 3);
        match self.perform(&write, &name, gives_up).await {
            Told::Done { revision } => self.rows = self.after(&write, revision),
            Told::Unknown => self.find_out(&write).await,
        }
        if let Write::Increment { from } = write {
            let now = self.rows.get(&self.key("counter")).map_or(0, |row| number(&row.value));
            assert!(now == from || now == from + 1, "{}: {from} became {now}", self.prefix);
            self.counter = now;
        }
    }

    fn choose(&mut self) -> Write {
        let number = self.random.random_range(0..KEYS);
        let key = self.key(&format!("key-{number}"));
        let mut value = vec![0; self.random.random_range(0..MAX_VALUE_BYTES)];
        self.random.fill(&mut value[..]);
        match self.random.random_range(0..10) {
            0..3 => Write::Put { key, value },
            3 => Write::Delete { key },
            4..6 => Write::PutPair { value },
            6 => Write::DeletePair,
            _ => Write::Increment { from: self.counter },
        }
    }

    /// Makes the call, and makes it again with the same idempotency key until the server tells what became of it, or, if
    /// it `gives_up`, not again.
    async fn perform(&mut self, write: &Write, name: &str, gives_up: bool) -> Told {
        loop {
            let call = tokio::time::timeout(LIMIT, self.call(write, name));
            match call.await.expect("a call takes forever") {
                Ok(revision) => return Told::Done { revision },
                Err(status) => {
                    // A broken connection has either, by how it broke.
                    let broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
                    assert!(broken || status.code() == Code::Internal, "{write:?}: {status:?}");
                    if gives_up {
                        self.unknown += 1;
                        return Told::Unknown;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn call(&self, write: &Write, name: &str) -> Result<u64, Status> {
        let mut kv = self.kv.clone();
        let txn = match write.clone() {
            Write::Put { key, value } => {
                let put = PutRequest { key, value: value.into(), ..PutRequest::default() };
                return Ok(kv.put(named(put, name)).await?.into_inner().revision);
            }
            Write::Delete { key } => {
                let delete = DeleteRequest { key, ..DeleteRequest::default() };
                return Ok(kv.delete(named(delete, name)).await?.into_inner().revision);
            }
            Write::PutPair { value } => TxnRequest {
                then: ["left", "right"].map(|side| put(self.key(side), value.clone())).into(),
                ..TxnRequest::default()
            },
            Write::DeletePair => TxnRequest {
                then: ["left", "right"].map(|side| delete(self.key(side))).into(),
                ..TxnRequest::default()
            },
            Write::Increment { from } => TxnRequest {
                compare: vec![is_at(self.key("counter"), from)],
                then: vec![put(self.key("counter"), (from + 1).to_string().into_bytes())],
                ..TxnRequest::default()
            },
        };
        let answer = kv.txn(named(txn, name)).await?.into_inner();
        // Also when it was done before and is told again: the same key has the same outcome.
        assert!(answer.succeeded, "{}: {write:?} found something else", self.prefix);
        Ok(answer.revision)
    }

    /// The rows when `write` was done at `revision`.
    fn after(&self, write: &Write, revision: u64) -> Rows {
        let mut rows = self.rows.clone();
        let put = |rows: &mut Rows, key: String, value: Vec<u8>| {
            let version = rows.get(&key).map_or(0, |row| row.version) + 1;
            rows.insert(key, Row { value, version, revision });
        };
        match write.clone() {
            Write::Put { key, value } => put(&mut rows, key, value),
            Write::Delete { key } => drop(rows.remove(&key)),
            Write::PutPair { value } => {
                for side in ["left", "right"] {
                    put(&mut rows, self.key(side), value.clone());
                }
            }
            Write::DeletePair => {
                for side in ["left", "right"] {
                    rows.remove(&self.key(side));
                }
            }
            Write::Increment { from } => {
                put(&mut rows, self.key("counter"), (from + 1).to_string().into_bytes())
            }
        }
        rows
    }

    /// Looks what became of a write that nobody told about: it was done wholly or not at all.
    async fn find_out(&mut self, write: &Write) {
        let found = self.found().await;
        if found != self.rows {
            let changed = found.values().map(|row| row.revision).max().unwrap_or(0);
            assert_eq!(found, self.after(write, changed), "{}: half of {write:?} was done", self.prefix);
        }
        self.rows = found;
    }

    async fn found(&self) -> Rows {
        let selector = Some(list_request::Selector::Prefix(self.prefix.clone()));
        loop {
            let list = ListRequest { selector: selector.clone(), ..ListRequest::default() };
            match self.kv.clone().list(list).await {
                Ok(page) => return rows(page.into_inner().entries),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn named<T>(message: T, name: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", name.parse().unwrap());
    request
}

fn put(key: String, value: Vec<u8>) -> Operation {
    let put = PutOperation { key, value: value.into(), ..PutOperation::default() };
    Operation { operation: Some(operation::Operation::Put(put)) }
}

fn delete(key: String) -> Operation {
    let delete = DeleteOperation { key, ..DeleteOperation::default() };
    Operation { operation: Some(operation::Operation::Delete(delete)) }
}

fn is_at(key: String, count: u64) -> Compare {
    let target = match count {
        0 => compare::Target::Exists(false),
        _ => compare::Target::Value(count.to_string().into_bytes().into()),
    };
    Compare { key, operator: compare::Operator::Equal.into(), target: Some(target) }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}
