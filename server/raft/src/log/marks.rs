//! What is kept in the log beside its entries: a few marks by name, each replaced as a whole.

use std::io;

use raft_engine::LogBatch;

use crate::log::{Engine, REGION};
use crate::types::{LeaderId, LogId, Vote, take_u64, truncated};

/// The last vote given.
const VOTE: &[u8] = b"vote";
/// The last entry that was removed at the log's beginning.
const PURGED: &[u8] = b"purged";
/// The last entry that was known to be committed when something was written.
const COMMITTED: &[u8] = b"committed";
/// The last entry before which the log was truncated, until entries follow it.
const END: &[u8] = b"end";

/// The marks as they were found.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) committed: Option<LogId>,
    /// `Some(None)`: truncated to nothing.
    pub(crate) end: Option<Option<LogId>>,
}

impl Marks {
    pub(crate) fn read(engine: &Engine) -> io::Result<Self> {
        let get = |name| engine.get(REGION, name);
        Ok(Self {
            vote: get(VOTE).map(|v| decode_vote(&v)).transpose()?,
            purged: get(PURGED).map(|v| decode_id(&v)).transpose()?,
            committed: get(COMMITTED).map(|v| decode_id(&v)).transpose()?,
            end: match get(END) {
                None => None,
                Some(bytes) if bytes.is_empty() => Some(None),
                Some(bytes) => Some(Some(decode_id(&bytes)?)),
            },
        })
    }
}

pub(crate) fn put_vote(batch: &mut LogBatch, vote: &Vote) -> raft_engine::Result<()> {
    let mut bytes = encode_leader(&vote.leader_id);
    bytes.push(u8::from(vote.committed));
    batch.put(REGION, VOTE.to_vec(), bytes)
}

pub(crate) fn put_purged(batch: &mut LogBatch, id: &LogId) -> raft_engine::Result<()> {
    batch.put(REGION, PURGED.to_vec(), encode_id(id))
}

pub(crate) fn put_committed(batch: &mut LogBatch, id: &LogId) -> raft_engine::Result<()> {
    batch.put(REGION, COMMITTED.to_vec(), encode_id(id))
}

pub(crate) fn put_end(batch: &mut LogBatch, last: Option<&LogId>) -> raft_engine::Result<()> {
    batch.put(REGION, END.to_vec(), last.map(encode_id).unwrap_or_default())
}

pub(crate) fn delete_end(batch: &mut LogBatch) {
    batch.delete(REGION, END.to_vec());
}

fn encode_leader(leader: &LeaderId) -> Vec<u8> {
    [leader.term.to_le_bytes(), leader.node_id.to_le_bytes()].concat()
}

fn encode_id(id: &LogId) -> Vec<u8> {
    let mut bytes = encode_leader(&id.leader_id);
    bytes.extend(id.index.to_le_bytes());
    bytes
}

fn decode_leader(from: &mut &[u8]) -> io::Result<LeaderId> {
    Ok(LeaderId { term: take_u64(from)?, node_id: take_u64(from)? })
}

fn decode_id(mut from: &[u8]) -> io::Result<LogId> {
    Ok(LogId { leader_id: decode_leader(&mut from)?, index: take_u64(&mut from)? })
}

fn decode_vote(mut from: &[u8]) -> io::Result<Vote> {
    let leader_id = decode_leader(&mut from)?;
    Ok(Vote { leader_id, committed: *from.first().ok_or_else(truncated)? != 0 })
}
