//! openraft's messages in the terms of `peer.proto`, and back. What comes from outside is refused here if it is not
//! whole.

use std::io;

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};

use super::pb;
use crate::log::frame;
use crate::types::{LeaderId, LogId, Types, Vote, invalid};

impl From<&Vote> for pb::Vote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, member: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<pb::Vote> for Vote {
    fn from(vote: pb::Vote) -> Self {
        let leader_id = LeaderId { term: vote.term, node_id: vote.member };
        Self { leader_id, committed: vote.committed }
    }
}

impl From<&LogId> for pb::LogId {
    fn from(id: &LogId) -> Self {
        Self { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
    }
}

impl From<pb::LogId> for LogId {
    fn from(id: pb::LogId) -> Self {
        Self { leader_id: LeaderId { term: id.term, node_id: id.leader }, index: id.index }
    }
}

pub(super) fn required<T>(field: Option<T>, name: &str) -> io::Result<T> {
    field.ok_or_else(|| invalid(format!("{name} is missing")))
}

impl From<AppendEntriesRequest<Types>> for pb::AppendRequest {
    fn from(request: AppendEntriesRequest<Types>) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            previous: request.prev_log_id.as_ref().map(Into::into),
            entries: request.entries.iter().map(frame::encode).collect(),
            committed: request.leader_commit.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::AppendRequest> for AppendEntriesRequest<Types> {
    type Error = io::Error;

    fn try_from(request: pb::AppendRequest) -> io::Result<Self> {
        let entries = request.entries.iter().map(frame::decode).collect::<io::Result<Vec<_>>>()?;
        let prev_log_id: Option<LogId> = request.previous.map(Into::into);
        // The first entry of all has index 0.
        let mut next = prev_log_id.map_or(Some(0), |id| id.index.checked_add(1));
        for entry in &entries {
            if next != Some(entry.log_id.index) {
                return Err(invalid("the entries do not follow each other"));
            }
            next = entry.log_id.index.checked_add(1);
        }
        Ok(Self {
            vote: required(request.vote, "vote")?.into(),
            prev_log_id,
            entries,
            leader_commit: request.committed.map(Into::into),
        })
    }
}

impl From<StreamAppendResult<Types>> for pb::AppendResponse {
    fn from(result: StreamAppendResult<Types>) -> Self {
        use pb::append_response::{Matching, Result};
        let result = match result {
            Ok(last) => Result::Matching(Matching { last: last.as_ref().map(Into::into) }),
            Err(StreamAppendError::Conflict(at)) => Result::Conflict((&at).into()),
            Err(StreamAppendError::HigherVote(vote)) => Result::HigherVote((&vote).into()),
        };
        Self { result: Some(result) }
    }
}

impl TryFrom<pb::AppendResponse> for StreamAppendResult<Types> {
    type Error = io::Error;

    fn try_from(response: pb::AppendResponse) -> io::Result<Self> {
        use pb::append_response::Result;
        Ok(match required(response.result, "result")? {
            Result::Matching(matching) => Ok(matching.last.map(Into::into)),
            Result::Conflict(at) => Err(StreamAppendError::Conflict(at.into())),
            Result::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        })
    }
}

impl pb::VoteRequest {
    pub(super) fn new(request: &VoteRequest<Types>, is_pre_vote: bool) -> Self {
        Self {
            vote: Some((&request.vote).into()),
            last: request.last_log_id.as_ref().map(Into::into),
            is_transfer: request.leadership_transfer,
            is_pre_vote,
        }
    }
}

impl TryFrom<pb::VoteRequest> for VoteRequest<Types> {
    type Error = io::Error;

    fn try_from(request: pb::VoteRequest) -> io::Result<Self> {
        let vote = required(request.vote, "vote")?.into();
        let last_log_id = request.last.map(Into::into);
        Ok(Self { vote, last_log_id, leadership_transfer: request.is_transfer })
    }
}

impl From<VoteResponse<Types>> for pb::VoteResponse {
    fn from(response: VoteResponse<Types>) -> Self {
        Self {
            vote: Some((&response.vote).into()),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::VoteResponse> for VoteResponse<Types> {
    type Error = io::Error;

    fn try_from(response: pb::VoteResponse) -> io::Result<Self> {
        Ok(Self {
            vote: required(response.vote, "vote")?.into(),
            vote_granted: response.granted,
            last_log_id: response.last.map(Into::into),
        })
    }
}

impl From<&TransferLeaderRequest<Types>> for pb::TransferRequest {
    fn from(request: &TransferLeaderRequest<Types>) -> Self {
        Self {
            from: Some(request.from_leader().into()),
            to: *request.to_node_id(),
            last: request.last_log_id().map(Into::into),
        }
    }
}

impl TryFrom<pb::TransferRequest> for TransferLeaderRequest<Types> {
    type Error = io::Error;

    fn try_from(request: pb::TransferRequest) -> io::Result<Self> {
        let from = required(request.from, "from")?.into();
        Ok(Self::new(from, request.to, request.last.map(Into::into)))
    }
}
