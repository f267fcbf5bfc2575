//! The types openraft is used with, and how positions and memberships are put into state's and the disk's
//! terms. Names of openraft appear in this crate only.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use konsul_state::{LogPosition, Outcome};
use openraft::raft::responder::Responder;
use openraft::{OptionalSend, RaftTypeConfig};
use prost::Message;

use crate::peer::pb;
use crate::peer::pb::membership::Config;

/// openraft's parameters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub(crate) type Member = pb::Member;
pub(crate) type Payload = openraft::EntryPayload<Group, u64, Member>;
pub(crate) type RaftEntry = openraft::Entry<LeaderId, Payload>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Member>;
pub(crate) type Snapshot<D> = openraft::Snapshot<LeaderId, u64, Member, D>;
pub(crate) type WriteResult = openraft::raft::ClientWriteResult<Types>;

impl RaftTypeConfig for Types {
    type D = Group;
    type R = Vec<Outcome>;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = RaftEntry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Completion<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The Commands of one log entry, each encoded by the caller that proposed it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Group {
    commands: Arc<[Bytes]>,
    bytes: usize,
}

impl Group {
    pub(crate) fn new(commands: Vec<Bytes>) -> Self {
        let bytes = commands.iter().map(Bytes::len).sum();
        Self { commands: commands.into(), bytes }
    }

    pub(crate) fn commands(&self) -> &[Bytes] {
        &self.commands
    }

    /// Bytes of all Commands.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} bytes", self.commands.len(), self.bytes)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What openraft calls when a write is decided. It runs on the thread that applied the entry; if it is
/// dropped uncalled, the write's fate is unknown, and what it captured is told so by its own `Drop`.
pub(crate) struct Completion<T>(Box<dyn FnOnce(T) + Send + Sync>);

impl<T> Completion<T> {
    pub(crate) fn new(then: impl FnOnce(T) + Send + Sync + 'static) -> Self {
        Self(Box::new(then))
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Completion<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// About how many bytes an entry takes in memory and in the log.
pub(crate) fn entry_bytes(entry: &RaftEntry) -> usize {
    match &entry.payload {
        Payload::Normal(group) => 64 + group.bytes() + 4 * group.commands().len(),
        Payload::Blank | Payload::Membership(_) => 256,
    }
}

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId { leader_id: LeaderId { term: position.term, node_id: position.leader }, index: position.index }
}

/// The position a store was applied to, in openraft's terms. The first entry has index and term 0, but no
/// member has the id 0, so all zeros are a store that never applied an entry.
pub(crate) fn applied_id(applied: LogPosition) -> Option<LogId> {
    (applied != LogPosition::default()).then(|| log_id(applied))
}

pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    pb::Membership::from(membership).encode_to_vec().into()
}

pub(crate) fn decode_membership(bytes: &[u8]) -> io::Result<Membership> {
    let membership = pb::Membership::decode(bytes).map_err(|e| invalid(e.to_string()))?;
    Membership::try_from(membership)
}

impl From<&Membership> for pb::Membership {
    fn from(membership: &Membership) -> Self {
        let configs = membership.get_joint_config().iter();
        Self {
            configs: configs.map(|voters| Config { voters: voters.iter().copied().collect() }).collect(),
            members: membership.nodes().map(|(_, member)| member.clone()).collect(),
        }
    }
}

impl TryFrom<pb::Membership> for Membership {
    type Error = io::Error;

    fn try_from(from: pb::Membership) -> io::Result<Self> {
        if from.configs.is_empty() {
            return Err(invalid("a membership has no voters"));
        }
        let configs = from.configs.into_iter().map(|config| config.voters.into_iter().collect()).collect();
        let members = from.members.into_iter().map(|member| (member.id, member));
        Self::new(configs, members.collect::<BTreeMap<_, _>>()).map_err(|e| invalid(e.to_string()))
    }
}

pub(crate) fn take_u32(from: &mut &[u8]) -> io::Result<u32> {
    from.try_get_u32_le().map_err(|_| truncated())
}

pub(crate) fn take_u64(from: &mut &[u8]) -> io::Result<u64> {
    from.try_get_u64_le().map_err(|_| truncated())
}

pub(crate) fn truncated() -> io::Error {
    invalid("it ends too early")
}

pub(crate) fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
