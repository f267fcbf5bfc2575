//! Where the layers above meet consensus: a Command goes in, its Outcome comes out, and in between it was
//! agreed on, made durable, applied and published. `Solo` does it without consensus, for tests.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use crate::batch::Batch;
use crate::cluster::{Change, ChangeError, Member, MemberRole};
use crate::command::{Command, CommandGroup, Outcome};
use crate::ids::{LogPosition, Revision};
use crate::store::{Entry, Payload, State, StateWriter};

/// Why a Command was not carried out, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// There is no leader, or this member is stopping. Nothing was proposed; a retry is safe.
    #[error("no leader is known; try again")]
    NoLeader,
    /// The server is shutting down. Whether the Command was carried out is unknown; a retry with the same
    /// idempotency key is safe.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The leader was lost before it answered. Whether the Command was carried out is unknown; a retry with the
    /// same idempotency key is safe.
    #[error("it is not known whether the write was carried out: the leader was lost before it answered")]
    Unknown,
    /// Too many callers wait already. Nothing was proposed.
    #[error("too many writes are waiting; try again")]
    Busy,
    /// The Command alone exceeds what a log entry may hold. Nothing was proposed.
    #[error("the write has {bytes} bytes, and at most {max_bytes} fit into the log")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The disk is full. Nothing was proposed.
    #[error("the disk is full: free some space, and writes go on by themselves")]
    DiskFull,
    /// This member's state differs from the others', and it serves nothing until it has theirs. Nothing was proposed.
    #[error("this member's state differs from the others', and is being replaced: use another member")]
    Diverged,
    /// This member was removed from its cluster. Nothing was proposed.
    #[error(
        "this server was removed from its cluster: use a member; it needs a new data directory to become one again"
    )]
    Removed,
    /// This member's storage failed and it has stopped serving.
    #[error("this member's storage failed: {0}")]
    Broken(String),
}

/// What a proposal or barrier returns. Boxed, so that consensus can be a trait object.
pub type Proposal<'a, T> = Pin<Box<dyn Future<Output = Result<T, ProposeError>> + Send + 'a>>;

/// What a change of the membership returns.
pub type Changing<'a> = Pin<Box<dyn Future<Output = Result<(), ChangeError>> + Send + 'a>>;

/// How this member stands in its cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// This member's id.
    pub member_id: u64,
    /// The leader it knows.
    pub leader_id: Option<u64>,
    /// The current term.
    pub term: u64,
    /// How long ago, in ms, it last had word of a quorum (as leader) or of the leader (as follower); `None`
    /// if never since it started.
    pub last_contact_ms: Option<u64>,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// The last log entry that is known to be committed.
    pub committed_index: u64,
    /// The last log entry that is applied here.
    pub applied_index: u64,
}

/// Consensus, as the service layer sees it.
pub trait Propose: Send + Sync + 'static {
    /// Has a Command agreed on and applied. When it returns `Ok`, the write is durable, applied on this
    /// member and published to its watchers.
    fn propose(&self, command: Command) -> Proposal<'_, Outcome>;

    /// Returns when this member has applied every write that was acknowledged, by any member, before the
    /// call: a read that follows is linearizable (Raft §8, read-index).
    fn read_barrier(&self) -> Proposal<'_, ()>;

    /// Asks the leader something that needs no entry in the log, because it is about what the leader has in memory. The
    /// answer is the [`LeaderDesk`]'s, of a leader that a quorum has confirmed after it was given. What is asked may be asked
    /// more than once.
    fn ask_leader(&self, question: Bytes) -> Proposal<'_, Bytes>;

    /// Why this member serves nothing now, not even stale reads, if so.
    fn unfit(&self) -> Option<ProposeError>;

    /// How this member stands now.
    fn standing(&self) -> Standing;

    /// The format to write Commands in: the greatest that every member can apply.
    fn format(&self) -> u32;

    /// Name of the cluster's storage (a UUID); empty while the server has no cluster.
    fn cluster_id(&self) -> String;

    /// The members of the cluster, as this one knows them.
    fn members(&self) -> Vec<Member>;

    /// Changes the membership.
    fn change(&self, change: Change) -> Changing<'_>;

    /// Gives space that this member's store does not use back to the file system, while everything goes on.
    fn shrink(&self) -> Changing<'_>;
}

/// Answers what members ask their leader.
pub trait LeaderDesk: Send + Sync + 'static {
    /// The answer of the leader of this term; `None` while it can't tell yet.
    fn answer(&self, term: u64, question: Bytes) -> Option<Bytes>;
}

/// Receives every Batch after its commit and before its callers are answered, in revision order.
pub trait BatchSink: Send + Sync + 'static {
    /// New Batches were committed.
    fn publish(&self, batches: &[Arc<Batch>]);

    /// The whole state was replaced (a snapshot was installed, or a backup restored) and is at `revision` now. Changes in
    /// between are not published.
    fn reset(&self, revision: Revision);
}

/// The only term of `Solo`.
const TERM: u64 = 1;

/// Applies each Command at once, on the caller's thread, with no log. For tests of the layers above.
pub struct Solo {
    state: State,
    inner: Mutex<(StateWriter, u64)>,
    sink: Arc<dyn BatchSink>,
    desk: OnceLock<Arc<dyn LeaderDesk>>,
}

impl Solo {
    /// Writes through `writer` and publishes to `sink`.
    #[must_use]
    pub fn new(state: State, writer: StateWriter, sink: Arc<dyn BatchSink>) -> Self {
        let index = state.applied().index;
        Self { state, inner: Mutex::new((writer, index)), sink, desk: OnceLock::new() }
    }

    /// Says who answers what the leader is asked; once.
    pub fn answer_with(&self, desk: Arc<dyn LeaderDesk>) {
        // The first one stays.
        let _ = self.desk.set(desk);
    }

    fn apply(&self, command: Command) -> Result<Outcome, ProposeError> {
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (writer, index) = &mut *guard;
        *index += 1;
        let entry = Entry {
            position: LogPosition { term: TERM, leader: 1, index: *index },
            payload: Payload::Commands(CommandGroup { commands: vec![command] }),
        };
        let broken = |e: &dyn std::fmt::Display| ProposeError::Broken(e.to_string());
        let mut run = writer.apply(vec![entry]).map_err(|e| broken(&e))?;
        if let Some(revision) = run.restored {
            self.sink.reset(revision);
        }
        self.sink.publish(&run.batches);
        run.outcomes.pop().and_then(|mut group| group.pop()).ok_or_else(|| broken(&"no outcome"))
    }
}

impl Propose for Solo {
    fn propose(&self, command: Command) -> Proposal<'_, Outcome> {
        Box::pin(std::future::ready(self.apply(command)))
    }

    fn read_barrier(&self) -> Proposal<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn ask_leader(&self, question: Bytes) -> Proposal<'_, Bytes> {
        let term = self.standing().term;
        let answer = self.desk.get().and_then(|desk| desk.answer(term, question));
        Box::pin(std::future::ready(answer.ok_or(ProposeError::NoLeader)))
    }

    fn unfit(&self) -> Option<ProposeError> {
        None
    }

    fn standing(&self) -> Standing {
        Standing {
            member_id: 1,
            leader_id: Some(1),
            term: TERM,
            last_contact_ms: Some(0),
            log_bytes: 0,
            committed_index: self.state.applied().index,
            applied_index: self.state.applied().index,
        }
    }

    fn format(&self) -> u32 {
        crate::command::FORMAT
    }

    fn cluster_id(&self) -> String {
        String::new()
    }

    fn members(&self) -> Vec<Member> {
        vec![Member {
            id: 1,
            name: "solo".to_owned(),
            peer_address: String::new(),
            client_address: String::new(),
            role: MemberRole::Voter,
            is_leader: true,
            version: String::new(),
            matching_index: Some(self.state.applied().index),
            last_contact_ms: Some(0),
        }]
    }

    fn change(&self, _: Change) -> Changing<'_> {
        let refused = ChangeError::Refused("there is only one member".to_owned());
        Box::pin(std::future::ready(Err(refused)))
    }

    fn shrink(&self) -> Changing<'_> {
        let refused = ChangeError::Refused("a store without a log is not shrunk".to_owned());
        Box::pin(std::future::ready(Err(refused)))
    }
}
