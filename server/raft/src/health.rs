//! Whether this member may serve: one place where a failure is noted, once, and where everything else asks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use konsul_state::propose::ProposeError;

/// The member's standing with its own storage. A failure is final: only a restart, which checks what is on the
/// disk, clears it. A state that differs from the others' is put right by taking theirs.
#[derive(Debug, Default)]
pub(crate) struct Health {
    broken: OnceLock<String>,
    differs: AtomicBool,
}

impl Health {
    /// Notes that storage failed. Only the first failure counts, and is logged.
    pub(crate) fn break_down(&self, what: impl Into<String>) {
        let what = what.into();
        if self.broken.set(what.clone()).is_ok() {
            tracing::error!(error = %what, "this member's storage failed, and it stops serving");
        }
    }

    /// Why nothing is served any more, if so.
    pub(crate) fn broken(&self) -> Option<ProposeError> {
        self.broken.get().cloned().map(ProposeError::Broken)
    }

    /// Notes that the state differs from the others' at an index.
    pub(crate) fn diverge(&self, index: u64, hash: &str) {
        tracing::error!(
            index,
            hash,
            "this member's state differs from the other members', and it stops serving"
        );
        self.differs.store(true, Ordering::Release);
    }

    /// Notes that the state is the others' again.
    pub(crate) fn agree(&self) {
        self.differs.store(false, Ordering::Release);
    }

    /// Why nothing is served until the state was taken anew, if so.
    pub(crate) fn diverged(&self) -> Option<ProposeError> {
        self.differs.load(Ordering::Acquire).then_some(ProposeError::Diverged)
    }

    /// Why nothing is served now, if so.
    pub(crate) fn unfit(&self) -> Option<ProposeError> {
        self.broken().or_else(|| self.diverged())
    }

    /// What a caller is told whose call ended without an answer.
    pub(crate) fn why_unanswered(&self) -> ProposeError {
        self.broken().unwrap_or(ProposeError::ShuttingDown)
    }
}
