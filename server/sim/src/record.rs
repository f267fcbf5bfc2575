//! Everything that was seen of a simulation, in the order it happened: what clients called and were told, what members
//! published and stood at, what faults there were. All of it goes into one hash, by which two runs of a seed are compared.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use konsul_state::{Batch, LogPosition, StateHash};
use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// The record, shared by all that take part.
pub(crate) type Shared = Arc<Mutex<Record>>;

/// What happened.
#[derive(Default)]
pub(crate) struct Record {
    /// How long the simulation has been running.
    pub(crate) elapsed: Duration,
    /// Things that happened so far; a place in the order of all of them.
    pub(crate) count: u64,
    pub(crate) operations: Vec<Operation>,
    pub(crate) publications: Vec<Publication>,
    pub(crate) sights: Vec<Sight>,
    pub(crate) beliefs: Vec<Belief>,
    /// By member, once all are told to tell.
    pub(crate) ends: BTreeMap<usize, End>,
    /// What members and their libraries said had gone wrong with themselves.
    pub(crate) complaints: Vec<String>,
    trace: Xxh3,
    is_told: bool,
}

/// A member's process: which member, and which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) member: usize,
    pub(crate) life: u32,
}

/// A call of a client.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) process: Process,
    pub(crate) key: usize,
    pub(crate) action: Action,
    /// Its place in the order.
    pub(crate) called: u64,
    /// What the client was told, and when; `None` if it never learned what became of it.
    pub(crate) answer: Option<(u64, Answer)>,
}

/// What a client calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Changes the key.
    Write(Write),
    /// Reads what is there now.
    Get,
    /// Reads what the member has, which may be old.
    Look,
}

/// A change of a key. No value is written by two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// Writes the value.
    Put(u64),
    /// Writes the value if the key has the one expected, or, with none, is not there.
    Swap { expected: Option<u64>, value: u64 },
    /// Deletes the key.
    Delete,
}

impl Write {
    /// What the key has afterwards.
    pub(crate) fn value(self) -> Option<u64> {
        match self {
            Self::Put(value) | Self::Swap { value, .. } => Some(value),
            Self::Delete => None,
        }
    }
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The revision it took, or was true at.
    pub(crate) revision: u64,
    pub(crate) result: Result,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Result {
    /// It was written or deleted.
    Changed,
    /// Nothing was to delete, or the key had not the value expected.
    Unchanged,
    /// The value that was read, if any.
    Found(Option<u64>),
    /// Nothing was done, and nothing will be.
    Refused,
}

/// A Batch as a member published it, or that it began anew at a revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publication {
    pub(crate) process: Process,
    pub(crate) what: Published,
    /// What was committed on the member by then.
    pub(crate) committed: Option<u64>,
}

/// What was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// Nothing: the member was open, at this revision.
    Opened(u64),
    /// A Batch, with the hash of its content.
    Batch { revision: u64, digest: u64 },
    /// A snapshot of this revision took the place of the state.
    Reset(u64),
}

/// What a member had applied at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) process: Process,
    pub(crate) applied: LogPosition,
    pub(crate) revision: u64,
    pub(crate) hash: StateHash,
}

/// Whom a member knew as leader at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) process: Process,
    /// The member's id.
    pub(crate) id: u64,
    pub(crate) term: u64,
    pub(crate) leader: Option<u64>,
}

/// What a member has at the end.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) sight: Sight,
    pub(crate) batches: Vec<Arc<Batch>>,
}

impl Record {
    /// An empty record, which tells on stdout what happens if that is wanted.
    pub(crate) fn new(is_told: bool) -> Shared {
        Arc::new(Mutex::new(Self { is_told, ..Self::default() }))
    }

    /// Notes that something happened, and returns its place in the order.
    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) -> u64 {
        self.count += 1;
        let line = format!("{:9.3} {what}", self.elapsed.as_secs_f64());
        self.trace.update(line.as_bytes());
        self.trace.update(b"\n");
        if self.is_told {
            println!("{line}");
        }
        self.count
    }

    /// The hash of all that happened.
    pub(crate) fn hash(&self) -> u64 {
        self.trace.digest()
    }

    /// Notes a call, and returns its number.
    pub(crate) fn call(&mut self, process: Process, client: usize, key: usize, action: Action) -> usize {
        let number = self.operations.len();
        let called = self.note(format_args!("{process} client {client} calls {number}: {action:?} of {key}"));
        self.operations.push(Operation { process, key, action, called, answer: None });
        number
    }

    /// Notes what a client was told.
    pub(crate) fn answer(&mut self, number: usize, answer: Answer) {
        let place = self.note(format_args!("  {number} answered: {answer:?}"));
        self.operations[number].answer = Some((place, answer));
    }

    /// Notes what a member published.
    pub(crate) fn publish(&mut self, process: Process, what: Published, committed: Option<u64>) {
        self.note(format_args!("{process} {what:?}, committed {committed:?}"));
        self.publications.push(Publication { process, what, committed });
    }

    /// Notes what a member has applied.
    pub(crate) fn see(&mut self, sight: Sight) {
        let Sight { process, applied: LogPosition { term, leader, index }, revision, hash } = sight;
        let entry = format_args!("entry {index} of term {term} by {leader}");
        self.note(format_args!("{process} is at {entry}, revision {revision}, hash {hash}"));
        self.sights.push(sight);
    }

    /// Notes whom a member takes for the leader.
    pub(crate) fn believe(&mut self, belief: Belief) {
        let Belief { process, id, term, leader } = belief;
        self.note(format_args!("{process}, member {id}, knows leader {leader:?} in term {term}"));
        self.beliefs.push(belief);
    }

    /// Notes what a member has in the end.
    pub(crate) fn end(&mut self, end: End) {
        let Sight { process, revision, hash, .. } = end.sight;
        self.note(format_args!("{process} ends at revision {revision} with hash {hash}"));
        self.ends.insert(process.member, end);
    }

    /// Notes what has gone wrong.
    pub(crate) fn complain(&mut self, what: &str) {
        self.note(format_args!("COMPLAINT: {what}"));
        self.complaints.push(what.to_owned());
    }
}

/// A Batch's content in a number.
pub(crate) fn digest(batch: &Batch) -> u64 {
    xxh3_64(format!("{batch:?}").as_bytes())
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}.{}", self.member, self.life)
    }
}
