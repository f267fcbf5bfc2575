//! What members answer each other. Everything but the calls that make or enlarge a cluster is refused to whoever is not
//! of this cluster, and is told nothing about it.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, stream};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderError, TransferLeaderRequest, VoteRequest,
};
use prost::Message;
use tokio::sync::{Mutex, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::convert::required;
use super::links::CLUSTER;
use super::pb::peer_server::Peer;
use super::pb::{self, propose_response, transfer_response};
use super::snapshot;
use crate::asks::Asks;
use crate::cluster::{Contact, Forming, Manager};
use crate::hashes::Hashes;
use crate::health::Health;
use crate::identity::Identity;
use crate::leadership::{Leader, Leadership};
use crate::machine::Builder;
use crate::proposer::{Proposer, Raft};
use crate::reads::Reads;
use crate::snapshots::{Incoming, Snapshots};
use crate::space::Space;
use crate::stats::Stats;
use crate::threads::Threads;
use crate::types::{Snapshot, Types, Vote};

/// How long to wait for the entry that a hash is asked of.
const CATCH_UP: Duration = Duration::from_millis(500);
/// Most Commands in one call: what fits into an entry.
const MAX_COMMANDS: usize = 16_384;

/// What the calls are served from.
pub(crate) struct Serving {
    pub(crate) identity: Arc<Identity>,
    pub(crate) raft: Raft,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) asks: Arc<Asks>,
    pub(crate) leadership: Leadership,
    pub(crate) applied: watch::Receiver<u64>,
    pub(crate) snapshots: Snapshots,
    pub(crate) space: Arc<Space>,
    pub(crate) health: Arc<Health>,
    pub(crate) forming: Arc<Forming>,
    pub(crate) manager: Arc<Manager>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) threads: Threads,
    pub(crate) hashes: Arc<Hashes>,
    pub(crate) builder: Builder,
    pub(crate) stats: Arc<Stats>,
    /// Ends the streams of other members when this one stops.
    pub(crate) closing: CancellationToken,
    /// Greatest size of a snapshot.
    pub(crate) max_snapshot_bytes: u64,
}

/// The peer service.
#[derive(Clone)]
pub(crate) struct PeerService {
    serving: Arc<Serving>,
    /// One snapshot comes in at a time.
    receiving: Arc<Mutex<()>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl PeerService {
    pub(crate) fn new(serving: Serving) -> Self {
        Self { serving: Arc::new(serving), receiving: Arc::default() }
    }

    /// Refuses calls of other clusters.
    fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        let theirs = request.metadata().get(CLUSTER).and_then(|value| value.to_str().ok());
        let mine = self.serving.identity.cluster_id().map(|id| id.to_string());
        match (theirs, mine) {
            (Some(theirs), Some(mine)) if theirs == mine => Ok(request.into_inner()),
            _ => Err(Status::permission_denied("not a member of this cluster")),
        }
    }

    /// The same, unless this member's storage failed: then it takes part in nothing.
    fn admit_healthy<T>(&self, request: Request<T>) -> Result<T, Status> {
        let request = self.admit(request)?;
        if self.serving.closing.is_cancelled() {
            return Err(Status::unavailable("this member stops"));
        }
        match self.serving.health.broken() {
            None => Ok(request),
            Some(_) => Err(Status::unavailable("this member's storage failed")),
        }
    }
}

fn malformed(error: &std::io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: &dyn std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus has stopped: {error}"))
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn hello(&self, request: Request<pb::HelloRequest>) -> Result<Response<pb::HelloResponse>, Status> {
        Ok(Response::new(self.serving.forming.hello(request.into_inner()).await?))
    }

    async fn adopt(&self, request: Request<pb::AdoptRequest>) -> Result<Response<pb::AdoptResponse>, Status> {
        self.serving.forming.adopt(&request.into_inner())?;
        Ok(Response::new(pb::AdoptResponse {}))
    }

    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::JoinResponse>, Status> {
        Ok(Response::new(self.serving.manager.join(request.into_inner()).await?))
    }

    type AppendStream = Answers<pb::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let requests = self.admit_healthy(request)?;
        // What is malformed ends the stream: openraft sees the end of its input, and the sender an error.
        let (refuse, refused) = oneshot::channel();
        let mut refuse = Some(refuse);
        let requests = tokio_stream::StreamExt::map_while(requests, move |request| {
            let decoded = AppendEntriesRequest::try_from(request.ok()?);
            let error = match decoded {
                Ok(request) => return Some(request),
                Err(error) => error,
            };
            tracing::warn!(%error, "a peer sent a malformed append");
            if let Some(refuse) = refuse.take() {
                // Nobody waits if the sender is gone.
                refuse.send(malformed(&error)).unwrap_or_default();
            }
            None
        });
        let requests = requests.take_until(self.serving.closing.clone().cancelled_owned());
        let contact = self.serving.contact.clone();
        let results = self.serving.raft.stream_append(requests).map(move |result| {
            let result = result.map_err(|e| stopped(&e))?;
            contact.note(&result);
            Ok(pb::AppendResponse::from(result))
        });
        let end = stream::once(refused).filter_map(|refused| ready(refused.ok().map(Err)));
        Ok(Response::new(Box::pin(results.chain(end))))
    }

    async fn heartbeat(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let request =
            AppendEntriesRequest::try_from(self.admit_healthy(request)?).map_err(|e| malformed(&e))?;
        let (previous, last) = (request.prev_log_id, request.entries.last().map(|entry| entry.log_id));
        let response = self.serving.raft.append_entries(request).await.map_err(|e| stopped(&e))?;
        // openraft would panic at a conflict without an entry, which cannot be.
        if response.is_conflict() && previous.is_none() {
            return Err(Status::internal("a conflict with nothing"));
        }
        let result: StreamAppendResult<Types> = response.into_stream_result(previous, last.or(previous));
        self.serving.contact.note(&result);
        Ok(Response::new(result.into()))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Result<Response<pb::VoteResponse>, Status> {
        let request = self.admit_healthy(request)?;
        let is_pre_vote = request.is_pre_vote;
        let request = VoteRequest::try_from(request).map_err(|e| malformed(&e))?;
        let raft = &self.serving.raft;
        let response = if is_pre_vote { raft.pre_vote(request).await } else { raft.vote(request).await };
        Ok(Response::new(response.map_err(|e| stopped(&e))?.into()))
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferRequest>,
    ) -> Result<Response<pb::TransferResponse>, Status> {
        let request =
            TransferLeaderRequest::try_from(self.admit_healthy(request)?).map_err(|e| malformed(&e))?;
        let handled = self.serving.raft.handle_transfer_leader(request).await.map_err(|e| stopped(&e))?;
        Ok(Response::new(match handled {
            Ok(()) => pb::TransferResponse::default(),
            Err(TransferLeaderError::VoteChanged { actual, .. }) => pb::TransferResponse {
                refused: Some(transfer_response::Refused::VoteChanged((&actual).into())),
                is_behind: false,
            },
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => pb::TransferResponse {
                refused: actual.map(|last| transfer_response::Refused::LogBehind((&last).into())),
                is_behind: true,
            },
        }))
    }

    async fn offer_snapshot(
        &self,
        request: Request<pb::SnapshotOffer>,
    ) -> Result<Response<pb::SnapshotOfferResponse>, Status> {
        let offer = self.admit_healthy(request)?;
        let Ok(_receiving) = self.receiving.try_lock() else {
            return Err(Status::unavailable("another snapshot is coming in"));
        };
        let (_, incoming) = self.receive(&offer)?;
        Ok(Response::new(pb::SnapshotOfferResponse { offset: incoming.received() }))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotResponse>, Status> {
        let mut chunks = self.admit_healthy(request)?;
        let Ok(_receiving) = self.receiving.try_lock() else {
            return Err(Status::unavailable("another snapshot is coming in"));
        };
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("there is no piece"))?;
        let offer =
            first.offer.clone().ok_or_else(|| Status::invalid_argument("the first piece has no offer"))?;
        let (vote, incoming) = self.receive(&offer)?;
        let data = snapshot::check(first, incoming.received())?;
        let received =
            snapshot::receive(incoming, data, chunks, self.serving.threads, &self.serving.stats).await?;
        tracing::info!(index = received.applied.index, bytes = offer.bytes, "a snapshot has come in");
        let meta = received.meta().map_err(|e| malformed(&e))?;
        let snapshot = Snapshot { meta, snapshot: received };
        let installed = self.serving.raft.install_full_snapshot(vote, snapshot).await;
        let response = installed.map_err(|e| stopped(&e))?;
        Ok(Response::new(pb::SnapshotResponse { vote: Some((&response.vote).into()) }))
    }

    async fn propose(
        &self,
        request: Request<pb::ProposeRequest>,
    ) -> Result<Response<pb::ProposeResponse>, Status> {
        use propose_response::answer::Answer;
        let commands = self.admit(request)?.commands;
        if commands.len() > MAX_COMMANDS {
            return Err(Status::invalid_argument(format!("at most {MAX_COMMANDS} commands go at once")));
        }
        if self.serving.leadership.now() != Leader::Me {
            let refusal =
                pb::Refusal { reason: pb::refusal::Reason::NotLeader.into(), bytes: 0, max_bytes: 0 };
            let answer = propose_response::Answer { answer: Some(Answer::Refused(refusal)) };
            let answers = vec![answer; commands.len()];
            return Ok(Response::new(pb::ProposeResponse { index: 0, answers }));
        }
        let proposed = commands.into_iter().map(|command| self.serving.proposer.propose_forwarded(command));
        let answers = join_all(proposed).await.into_iter().map(|told| {
            let answer = match told {
                Ok(outcome) => Answer::Outcome(outcome.encode_to_vec().into()),
                Err(error) => Answer::Refused((&error).into()),
            };
            propose_response::Answer { answer: Some(answer) }
        });
        let answers = answers.collect();
        // Everything that was answered is applied here, so this is no less than its index.
        Ok(Response::new(pb::ProposeResponse { index: *self.serving.applied.borrow(), answers }))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.admit(request)?;
        let index = self.serving.reads.index_as_leader().await;
        let index = index.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(pb::ReadIndexResponse { index }))
    }

    async fn ask(&self, request: Request<pb::AskRequest>) -> Result<Response<pb::AskResponse>, Status> {
        let question = self.admit_healthy(request)?.question;
        let answer = self.serving.asks.answer_as_leader(question).await;
        let answer = answer.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(pb::AskResponse { answer }))
    }

    async fn change(
        &self,
        request: Request<pb::ChangeRequest>,
    ) -> Result<Response<pb::ChangeResponse>, Status> {
        let change =
            self.admit(request)?.change.ok_or_else(|| Status::invalid_argument("change is missing"))?;
        self.serving.manager.change_as_leader(change).await?;
        Ok(Response::new(pb::ChangeResponse {}))
    }

    async fn is_removed(
        &self,
        request: Request<pb::IsRemovedRequest>,
    ) -> Result<Response<pb::IsRemovedResponse>, Status> {
        let id = self.admit_healthy(request)?.id;
        let is_removed = self.serving.manager.has_removed(id).await;
        Ok(Response::new(pb::IsRemovedResponse { is_removed }))
    }

    type FetchSnapshotStream = Answers<pb::SnapshotChunk>;

    async fn fetch_snapshot(
        &self,
        request: Request<pb::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        self.admit_healthy(request)?;
        let serving = &self.serving;
        if serving.leadership.now() != Leader::Me || serving.health.diverged().is_some() {
            return Err(Status::unavailable("this member does not lead"));
        }
        let failed = |e: std::io::Error| Status::internal(format!("no snapshot could be made: {e}"));
        let snapshot = serving.builder.make().await.map_err(failed)?;
        let (pace, threads) = (serving.builder.pace.clone(), serving.threads);
        let chunks = snapshot::hand_out(&snapshot, pace, threads, serving.stats.clone()).map_err(failed)?;
        Ok(Response::new(Box::pin(ReceiverStream::new(chunks).map(Ok))))
    }

    async fn state_hash(
        &self,
        request: Request<pb::StateHashRequest>,
    ) -> Result<Response<pb::StateHashResponse>, Status> {
        let index = self.admit(request)?.index;
        // Whoever asks may be a little ahead.
        let mut applied = self.serving.applied.clone();
        let reached = tokio::time::timeout(CATCH_UP, applied.wait_for(|applied| *applied >= index)).await;
        let hash = reached.ok().and_then(|_| self.serving.hashes.at(index));
        let hash = hash.map(|hash| hash.to_bytes().to_vec().into()).unwrap_or_default();
        Ok(Response::new(pb::StateHashResponse { hash }))
    }
}

impl PeerService {
    /// Begins to take a snapshot in, or goes on with it, and tells by which vote it is sent. Refuses one that can't be had.
    fn receive(&self, offer: &pb::SnapshotOffer) -> Result<(Vote, Incoming), Status> {
        let vote = required(offer.vote, "vote").map_err(|e| malformed(&e))?;
        let snapshots = &self.serving.snapshots;
        let offered = snapshots.offered(offer).map_err(|e| malformed(&e))?;
        let (bytes, most) = (offer.bytes, self.serving.max_snapshot_bytes);
        if bytes > most {
            return Err(Status::resource_exhausted(format!(
                "the snapshot has {bytes} bytes, and {most} fit"
            )));
        }
        if !self.serving.space.has_room_for(bytes) {
            return Err(Status::resource_exhausted("the disk has no room for the snapshot"));
        }
        let incoming = snapshots.receive(offered).map_err(|e| Status::internal(e.to_string()))?;
        Ok((vote.into(), incoming))
    }
}
