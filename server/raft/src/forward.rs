//! The way to the leader, when that is another member: writes are sent there in groups, and linearizable reads ask it for
//! the index they need. What comes back is waited for here, so that a caller finds its own write on the member it spoke to.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use konsul_state::Outcome;
use konsul_state::propose::ProposeError;
use prost::Message;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::answers::Answer;
use crate::peer::pb::{
    AskRequest, ProposeRequest, ReadIndexRequest, Refusal, propose_response, refusal::Reason,
};
use crate::peer::{Lane, Links};
use crate::types::{Group, Member};

/// How long the leader may take; a connection that is dead is found out sooner.
const LIMIT: Duration = Duration::from_secs(15);
/// How long this member may take to apply what the leader has applied.
const CATCH_UP: Duration = Duration::from_secs(5);

/// The way to the leader.
pub(crate) struct Forward {
    links: Arc<Links>,
    applied: watch::Receiver<u64>,
}

/// What became of a group that was sent.
pub(crate) enum Sent {
    /// Each has its answer, and is applied here.
    Answered(Vec<Answer<Outcome>>),
    /// It was not proposed, so it may be sent again.
    NotTaken,
    /// The connection broke, or this member lags behind: nobody knows.
    Unknown,
}

impl Forward {
    pub(crate) fn new(links: Arc<Links>, applied: watch::Receiver<u64>) -> Self {
        Self { links, applied }
    }

    /// Has a group proposed by `leader`.
    pub(crate) async fn send(&self, leader: &Member, group: &Group) -> Sent {
        let request = ProposeRequest { commands: group.commands().to_vec() };
        let Ok(mut peer) = self.links.to(&leader.peer_address, Lane::Forward) else { return Sent::NotTaken };
        let answered = tokio::time::timeout(LIMIT, peer.propose(request)).await;
        let response = match answered {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) if was_not_sent(&status) => return Sent::NotTaken,
            Ok(Err(status)) => {
                tracing::debug!(%status, leader = leader.name, "a group that was sent has no answer");
                return Sent::Unknown;
            }
            Err(_) => return Sent::Unknown,
        };
        if response.answers.len() != group.commands().len() {
            return Sent::Unknown;
        }
        let is_refused = |a: &propose_response::Answer| matches!(&a.answer, Some(propose_response::answer::Answer::Refused(r)) if r.reason() == Reason::NotLeader);
        if response.answers.iter().all(is_refused) {
            return Sent::NotTaken;
        }
        if self.catch_up(response.index).await.is_err() {
            return Sent::Unknown;
        }
        Sent::Answered(response.answers.into_iter().map(told).collect())
    }

    /// The index that a linearizable read must have applied, as the leader says. When this returns, it is.
    pub(crate) async fn read_index(&self, leader: &Member) -> Answer<()> {
        let mut peer =
            self.links.to(&leader.peer_address, Lane::Control).map_err(|_| ProposeError::NoLeader)?;
        let asked = tokio::time::timeout(LIMIT, peer.read_index(ReadIndexRequest {})).await;
        let answered = asked.map_err(|_| ProposeError::NoLeader)?;
        let index = answered.map_err(|_| ProposeError::NoLeader)?.into_inner().index;
        self.catch_up(index).await.map_err(|()| ProposeError::NoLeader)
    }

    /// What the leader answers.
    pub(crate) async fn ask(&self, leader: &Member, question: Bytes) -> Answer<Bytes> {
        let mut peer =
            self.links.to(&leader.peer_address, Lane::Control).map_err(|_| ProposeError::NoLeader)?;
        let asked = tokio::time::timeout(LIMIT, peer.ask(AskRequest { question })).await;
        let answered = asked.map_err(|_| ProposeError::NoLeader)?;
        Ok(answered.map_err(|_| ProposeError::NoLeader)?.into_inner().answer)
    }

    async fn catch_up(&self, index: u64) -> Result<(), ()> {
        let mut applied = self.applied.clone();
        let reached = tokio::time::timeout(CATCH_UP, applied.wait_for(|applied| *applied >= index)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }
}

/// Whether a call was refused, or failed before anything of it reached the other side.
fn was_not_sent(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated)
        || is_unreached(status)
}

/// Whether a call failed because no connection could be made.
pub(crate) fn is_unreached(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What the leader said of one Command.
fn told(answer: propose_response::Answer) -> Answer<Outcome> {
    match answer.answer {
        Some(propose_response::answer::Answer::Outcome(bytes)) => {
            Outcome::decode(bytes).map_err(|_| ProposeError::Unknown)
        }
        Some(propose_response::answer::Answer::Refused(refusal)) => Err(refused(&refusal)),
        None => Err(ProposeError::Unknown),
    }
}

fn refused(refusal: &Refusal) -> ProposeError {
    match refusal.reason() {
        Reason::Unknown => ProposeError::Unknown,
        Reason::NotLeader => ProposeError::NoLeader,
        Reason::Busy => ProposeError::Busy,
        Reason::TooLarge => ProposeError::TooLarge {
            bytes: usize::try_from(refusal.bytes).unwrap_or(usize::MAX),
            max_bytes: usize::try_from(refusal.max_bytes).unwrap_or(usize::MAX),
        },
        Reason::DiskFull => ProposeError::DiskFull,
    }
}

impl From<&ProposeError> for Refusal {
    fn from(error: &ProposeError) -> Self {
        let (reason, bytes, max_bytes) = match error {
            ProposeError::NoLeader | ProposeError::Diverged | ProposeError::Removed => {
                (Reason::NotLeader, 0, 0)
            }
            ProposeError::Busy => (Reason::Busy, 0, 0),
            ProposeError::TooLarge { bytes, max_bytes } => {
                (Reason::TooLarge, *bytes as u64, *max_bytes as u64)
            }
            ProposeError::DiskFull => (Reason::DiskFull, 0, 0),
            ProposeError::Unknown | ProposeError::ShuttingDown | ProposeError::Broken(_) => {
                (Reason::Unknown, 0, 0)
            }
        };
        Self { reason: reason.into(), bytes, max_bytes }
    }
}
