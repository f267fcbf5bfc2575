//! When a failed call is tried again and how long is waited before. Makes no calls.

use std::time::Duration;

use rand::Rng;
use tonic::Code;

use crate::error::Error;

/// The first wait is at most this long; each further one at most twice the one before.
const BASE: Duration = Duration::from_millis(25);
/// No wait is longer than this, unless the server asks for it.
const CAP: Duration = Duration::from_secs(2);

/// No pause that a server asks for is taken to be longer than this.
const PAUSE_CAP: Duration = Duration::from_secs(3_600);
/// A full store or disk asks for a longer pause than this, and that is for the caller to know, not to wait for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the same call may succeed if it is made again: the server was not there (UNAVAILABLE), a race was lost
/// (ABORTED), or the server asks for a short pause (RESOURCE_EXHAUSTED with `RetryInfo`).
///
/// For writes this is safe because every attempt carries the same idempotency key.
pub(crate) fn may_help(error: &Error) -> bool {
    match error.code() {
        Code::Unavailable | Code::Aborted => true,
        Code::ResourceExhausted => error.retry_after().is_some_and(|pause| pause <= PATIENCE),
        _ => false,
    }
}

/// Whether the member that answered says that it can't serve now, so that another one may: it has no leader, it lags too
/// far behind, or it stops.
pub(crate) fn is_turned_away(error: &Error) -> bool {
    error.code() == Code::Unavailable && error.reason().is_some()
}

/// Whether a call that failed so may have done what it was asked to all the same: its answer is lost.
pub(crate) fn is_undecided(error: &Error) -> bool {
    matches!(
        error.code(),
        Code::Unavailable
            | Code::Aborted
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
    )
}

/// Waits that grow exponentially and are drawn evenly from zero to the bound ("full jitter"), so that clients that
/// failed together do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after this failure, and never less than the server asks for.
    pub(crate) fn after(&mut self, error: &Error) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(16)).min(CAP);
        self.failures += 1;
        let wait = rand::rng().random_range(Duration::ZERO..=bound);
        error.retry_after().map_or(wait, |asked| asked.min(PAUSE_CAP) + wait)
    }

    /// How many failures there were since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Begins anew after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt};

    fn failure(code: Code, retry: Option<Duration>) -> Error {
        let mut details = ErrorDetails::new();
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, "", details).into()
    }

    #[test]
    fn waits_stay_below_a_doubling_bound() {
        let error = failure(Code::Unavailable, None);
        let mut longest = [Duration::ZERO; 12];
        for _ in 0..200 {
            let mut backoff = Backoff::default();
            for longest in &mut longest {
                *longest = backoff.after(&error).max(*longest);
            }
        }
        for (failures, longest) in longest.into_iter().enumerate() {
            let bound = (BASE * (1 << failures)).min(CAP);
            assert!(longest <= bound, "wait {failures} was {longest:?}");
            assert!(longest > bound / 2, "wait {failures} never came near its bound: {longest:?}");
        }
    }

    #[test]
    fn the_server_may_ask_for_more() {
        let asked = Duration::from_secs(7);
        let wait = Backoff::default().after(&failure(Code::ResourceExhausted, Some(asked)));
        assert!(wait >= asked && wait <= asked + BASE, "{wait:?}");
        let endless = failure(Code::Unavailable, Some(Duration::from_secs(u64::MAX >> 12)));
        assert!(Backoff::default().after(&endless) <= PAUSE_CAP + BASE, "no server stops a client for good");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(may_help(&failure(Code::Unavailable, None)));
        assert!(may_help(&failure(Code::Aborted, None)));
        assert!(may_help(&failure(Code::ResourceExhausted, Some(Duration::from_secs(1)))));
        assert!(!may_help(&failure(Code::ResourceExhausted, Some(Duration::from_secs(5)))));
        for code in [
            Code::ResourceExhausted,
            Code::InvalidArgument,
            Code::DeadlineExceeded,
            Code::FailedPrecondition,
            Code::Internal,
            Code::DataLoss,
        ] {
            assert!(!may_help(&failure(code, None)), "{code:?}");
        }
    }
}
