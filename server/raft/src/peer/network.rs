//! What openraft sends to other members.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::Status;

use super::convert::required;
use super::links::{Lane, Links, Peer};
use super::pb::{self, transfer_response};
use super::snapshot;
use crate::copy::Pace;
use crate::snapshots::SnapshotDir;
use crate::threads::Threads;
use crate::types::{Member, Snapshot, Types, Vote};

/// How long to wait before trying again to reach a member: soon at first, because a member that was restarted is back in a
/// moment.
const BACKOFF: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// The way to all members.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) links: Arc<Links>,
    pub(crate) pace: Pace,
    pub(crate) threads: Threads,
}

/// The way to one member.
pub(crate) struct ToPeer {
    network: Network,
    address: String,
    /// The lane of what has entries, or could have.
    lane: Lane,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = ToPeer;

    async fn new_client(&mut self, _: u64, member: &Member) -> ToPeer {
        ToPeer { network: self.clone(), address: member.peer_address.clone(), lane: Lane::Append }
    }

    async fn new_heartbeat_client(&mut self, _: u64, member: &Member) -> ToPeer {
        ToPeer { network: self.clone(), address: member.peer_address.clone(), lane: Lane::Control }
    }
}

impl ToPeer {
    fn peer(&self, lane: Lane) -> Result<Peer, RPCError<Types>> {
        self.network.links.to(&self.address, lane).map_err(|e| unreachable(&self.address, &e))
    }

    async fn ask_vote(
        &self,
        request: VoteRequest<Types>,
        is_pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut peer = self.peer(Lane::Control)?;
        let request = pb::VoteRequest::new(&request, is_pre_vote);
        let response = within(option.soft_ttl(), peer.vote(request)).await;
        let response = response.map_err(|e| unreachable(&self.address, &e))?;
        VoteResponse::try_from(response).map_err(|e| unreachable(&self.address, &e))
    }
}

/// Everything that goes wrong on the way is waited for with a backoff.
pub(super) fn unreachable(address: &str, error: &dyn std::fmt::Display) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(format!("{address}: {error}")))
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(answered) => answered.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {limit:?}"))),
    }
}

impl RaftNetworkV2<Types> for ToPeer {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let mut peer = self.peer(self.lane)?;
        let response = within(option.soft_ttl(), peer.heartbeat(pb::AppendRequest::from(request))).await;
        let response = response.map_err(|e| unreachable(&self.address, &e))?;
        let result = StreamAppendResult::<Types>::try_from(response);
        match result.map_err(|e| unreachable(&self.address, &e))? {
            Ok(last) => Ok(AppendEntriesResponse::PartialSuccess(last)),
            Err(StreamAppendError::Conflict(_)) => Ok(AppendEntriesResponse::Conflict),
            Err(StreamAppendError::HigherVote(vote)) => Ok(AppendEntriesResponse::HigherVote(vote)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<Types>, RPCError<Types>>>, RPCError<Types>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Control {
            // One request, one answer: a stream would be opened for nothing.
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let mut peer = self.peer(Lane::Append)?;
            let requests = input.map(pb::AppendRequest::from);
            let responses = peer.append(requests).await.map_err(|e| unreachable(&self.address, &e))?;
            let address = self.address.clone();
            let results = responses.into_inner().map(move |response| {
                let response = response.map_err(|e| unreachable(&address, &e))?;
                StreamAppendResult::try_from(response).map_err(|e| unreachable(&address, &e))
            });
            Ok(Box::pin(results) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_vote(request, true, option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<SnapshotDir>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut peer = self.peer(Lane::Bulk)?;
        let Network { pace, threads, .. } = self.network.clone();
        tokio::select! {
            sent = snapshot::send(&mut peer, vote, snapshot.snapshot, pace, threads) => {
                let response = sent.map_err(|e| unreachable(&self.address, &e))?;
                let vote = required(response.vote, "vote").map_err(|e| unreachable(&self.address, &e))?;
                Ok(SnapshotResponse::new(vote.into()))
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let mut peer = self.peer(Lane::Control)?;
        let response =
            within(option.soft_ttl(), peer.transfer_leader(pb::TransferRequest::from(&request))).await;
        let response = response.map_err(|e| unreachable(&self.address, &e))?;
        let refused = match response.refused {
            None if !response.is_behind => return Ok(Ok(())),
            Some(transfer_response::Refused::VoteChanged(vote)) => {
                TransferLeaderError::VoteChanged { expected: *request.from_leader(), actual: vote.into() }
            }
            Some(transfer_response::Refused::LogBehind(last)) => TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: Some(last.into()),
            },
            None => {
                TransferLeaderError::LogNotFlushed { expected: request.last_log_id().copied(), actual: None }
            }
        };
        Ok(Err(refused))
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF[BACKOFF.len() - 1];
        Some(Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(last))))
    }
}
