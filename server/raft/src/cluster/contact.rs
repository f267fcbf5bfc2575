//! When this member last heard of a leader that it follows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use openraft::raft::{StreamAppendError, StreamAppendResult};

use crate::types::Types;

/// When this member last heard of a leader.
#[derive(Debug)]
pub(crate) struct Contact {
    began: Instant,
    /// In ms after `began`, plus one; 0: never.
    last: AtomicU64,
}

impl Default for Contact {
    fn default() -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Contact {
    /// Notes an answer to a leader; to one that is none any more it is no contact.
    pub(crate) fn note(&self, answer: &StreamAppendResult<Types>) {
        if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
            self.last.store(self.began.elapsed().as_millis() as u64 + 1, Relaxed);
        }
    }

    /// How long ago that was, in ms; `None` if never.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        let last = self.last.load(Relaxed).checked_sub(1)?;
        Some((self.began.elapsed().as_millis() as u64).saturating_sub(last))
    }
}
