//! Whether this member may serve: one place where a failure is noted, once, and where everything else asks.

use std::sync::OnceLock;

use konsul_state::propose::ProposeError;

/// The member's standing with its own storage. A failure is final: only a restart, which checks what is on the
/// disk, clears it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    broken: OnceLock<String>,
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

    /// What a caller is told whose call ended without an answer.
    pub(crate) fn why_unanswered(&self) -> ProposeError {
        self.broken().unwrap_or(ProposeError::ShuttingDown)
    }
}
