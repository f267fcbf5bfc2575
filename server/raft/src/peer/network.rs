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
use crate::stats::Stats;
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
    pub(crate) stats: Arc<Stats>,
}

/// The way to one member.
pub(crate) struct ToPeer {
    network: Network,
    member: u64,
    /// Where it was last sent to, for what is said of failures.
    address: String,
    /// The lane of what has entries, or could have.
    lane: Lane,
    /// How often in a row no stream could be opened.
    failures: usize,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = ToPeer;

    async fn new_client(&mut self, id: u64, member: &Member) -> ToPeer {
        self.to(id, member, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, id: u64, member: &Member) -> ToPeer {
        self.to(id, member, Lane::Control)
    }
}

impl Network {
    fn to(&self, id: u64, member: &Member, lane: Lane) -> ToPeer {
        self.links.learn(id, &member.peer_address);
        ToPeer { network: self.clone(), member: id, address: member.peer_address.clone(), lane, failures: 0 }
    }
}

impl ToPeer {
    fn peer(&mut self, lane: Lane) -> Result<Peer, RPCError<Types>> {
        if let Some(address) = self.network.links.address_of(self.member) {
            self.address = address;
        }
        self.network.links.to(&self.address, lane).map_err(|e| unreachable(&self.address, &e))
    }

    /// Opens a stream. openraft tries again at once when none can be opened, so the waiting is done here.
    async fn open(
        &mut self,
        requests: impl Stream<Item = pb::AppendRequest> + Send + 'static,
    ) -> Result<tonic::Streaming<pb::AppendResponse>, RPCError<Types>> {
        let mut peer = self.peer(Lane::Append)?;
        match peer.append(requests).await {
            Ok(responses) => {
                self.failures = 0;
                Ok(responses.into_inner())
            }
            Err(status) => {
                tokio::time::sleep(BACKOFF[self.failures.min(BACKOFF.len() - 1)]).await;
                self.failures += 1;
                Err(unreachable(&self.address, &status))
            }
        }
    }

    async fn ask_vote(
        &mut self,
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
            let responses = self.open(input.map(pb::AppendRequest::from)).await?;
            let address = self.address.clone();
            let results = responses.map(move |response| {
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
        let Network { pace, threads, stats, .. } = self.network.clone();
        tokio::select! {
            sent = snapshot::send(&mut peer, vote, snapshot.snapshot, pace, threads, stats) => {
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
