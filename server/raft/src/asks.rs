//! Questions to the leader about what it has in memory. Whoever leads answers, and then makes sure that it still leads: an answer
//! that a deposed leader gave is never told. A member that follows passes the question on.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use konsul_state::propose::{LeaderDesk, ProposeError};

use crate::answers::Answer;
use crate::forward::Forward;
use crate::leadership::{Leader, Leadership};
use crate::proposer::PATIENCE;
use crate::reads::Reads;

/// How soon to try again without an answer.
const RETRY: Duration = Duration::from_millis(20);

/// The way to the leader's desk.
pub(crate) struct Asks {
    leadership: Leadership,
    reads: Arc<Reads>,
    forward: Arc<Forward>,
    desk: OnceLock<Arc<dyn LeaderDesk>>,
}

impl Asks {
    pub(crate) fn new(leadership: Leadership, reads: Arc<Reads>, forward: Arc<Forward>) -> Self {
        Self { leadership, reads, forward, desk: OnceLock::new() }
    }

    /// Says who answers when this member leads; once.
    pub(crate) fn answer_with(&self, desk: Arc<dyn LeaderDesk>) {
        // The first one stays.
        let _ = self.desk.set(desk);
    }

    /// The leader's answer; while nobody leads, or the leader can't tell yet, it waits.
    pub(crate) async fn ask(&self, question: Bytes) -> Answer<Bytes> {
        let mut leadership = self.leadership.clone();
        let began = Instant::now();
        loop {
            let answer = match leadership.now() {
                Leader::Nobody => Err(ProposeError::NoLeader),
                Leader::Other(leader) => self.forward.ask(&leader, question.clone()).await,
                Leader::Me => self.answer_as_leader(question.clone()).await,
            };
            if answer != Err(ProposeError::NoLeader) || began.elapsed() > PATIENCE {
                return answer;
            }
            tokio::select! {
                () = leadership.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// This member's answer, if it leads, and a quorum says so after it was given: the read barrier asks one, and the term tells
    /// that nobody else led meanwhile.
    pub(crate) async fn answer_as_leader(&self, question: Bytes) -> Answer<Bytes> {
        let term = self.leadership.term_as_leader().ok_or(ProposeError::NoLeader)?;
        let desk = self.desk.get().ok_or(ProposeError::NoLeader)?;
        let answer = desk.answer(term, question).ok_or(ProposeError::NoLeader)?;
        self.reads.barrier().await?;
        match self.leadership.term_as_leader() == Some(term) {
            true => Ok(answer),
            false => Err(ProposeError::NoLeader),
        }
    }
}
