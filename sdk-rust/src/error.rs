//! The errors of the client, and what can be read from a server's status. Decides nothing about retries.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Why a call failed.
///
/// Match on the variants that a program acts on; everything the server says is also at hand through
/// [`code`](Error::code), [`reason`](Error::reason) and the other accessors, whichever variant it is.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// use konsul_client::Error;
///
/// match client.kv().put("leader", "me").if_absent().await {
///     Ok(outcome) => println!("written at revision {}", outcome.revision),
///     Err(Error::PreconditionFailed(answer)) => println!("somebody was faster: {answer}"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client was built outside of a tokio runtime.
    #[error("a client must be built within a tokio runtime")]
    NoRuntime,
    /// The client was given no address.
    #[error("no server address was given")]
    NoAddress,
    /// An address cannot be used. Nothing was sent.
    #[error("the address `{address}` is not valid: {why}")]
    InvalidAddress {
        /// The address as it was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The token has characters that cannot be sent. It is not repeated here, as it is a secret.
    #[error("the token has characters that cannot be sent")]
    InvalidToken,
    /// The user agent has characters that cannot be sent.
    #[error("the user agent has characters that cannot be sent")]
    InvalidUserAgent,
    /// The idempotency key is not 1 to 128 printable ASCII characters.
    #[error("an idempotency key is 1 to 128 printable ASCII characters")]
    InvalidIdempotencyKey,
    /// No address could be connected to.
    #[error("{0}")]
    Unreachable(Unreachable),
    /// A precondition did not hold and nothing was changed (FAILED_PRECONDITION, reason
    /// PRECONDITION_FAILED).
    /// [`current_revision`](Error::current_revision) tells what was found instead.
    #[error("{0}")]
    PreconditionFailed(Box<Answer>),
    /// The revision asked for is compacted (OUT_OF_RANGE, reason REVISION_COMPACTED).
    #[error("{0}")]
    Compacted(CompactedError),
    /// The server answered with another error, the connection broke, or the deadline passed.
    #[error("{0}")]
    Rpc(Box<Answer>),
}

impl Error {
    /// The canonical gRPC code. What the client refuses to send is INVALID_ARGUMENT.
    pub fn code(&self) -> Code {
        match self {
            Self::NoRuntime
            | Self::NoAddress
            | Self::InvalidAddress { .. }
            | Self::InvalidToken
            | Self::InvalidUserAgent
            | Self::InvalidIdempotencyKey => Code::InvalidArgument,
            Self::Unreachable(_) => Code::Unavailable,
            Self::PreconditionFailed(answer) | Self::Rpc(answer) => answer.code,
            Self::Compacted(compacted) => compacted.answer.code,
        }
    }

    /// The server's answer, if there was one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::PreconditionFailed(answer) | Self::Rpc(answer) => Some(answer),
            Self::Compacted(compacted) => Some(&compacted.answer),
            Self::NoRuntime
            | Self::NoAddress
            | Self::InvalidAddress { .. }
            | Self::InvalidToken
            | Self::InvalidUserAgent
            | Self::InvalidIdempotencyKey
            | Self::Unreachable(_) => None,
        }
    }

    /// The stable reason of the server's `ErrorInfo`, such as `KEY_NOT_FOUND`.
    pub fn reason(&self) -> Option<&str> {
        self.answer()?.reason()
    }

    /// The revision that was found: after a failed precondition the modify revision of the entry (0 when the key was not
    /// there), otherwise that of the store.
    pub fn current_revision(&self) -> Option<u64> {
        self.answer()?.number("current_revision")
    }

    /// Up to which revision history is compacted, when the revision asked for was below.
    pub fn compact_revision(&self) -> Option<u64> {
        self.answer()?.number("compact_revision")
    }

    /// How long the server asks to wait before another attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        self.answer()?.details.retry_info()?.retry_delay
    }
}

/// What a server answered instead of a result.
#[derive(Debug, Clone)]
pub struct Answer {
    code: Code,
    message: String,
    details: ErrorDetails,
}

impl Answer {
    /// An answer that the client gives itself.
    pub(crate) fn local(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: ErrorDetails::new() }
    }

    /// The canonical gRPC code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What was wrong and what to do, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The stable reason of the `ErrorInfo`, such as `KEY_NOT_FOUND`.
    pub fn reason(&self) -> Option<&str> {
        self.details.error_info().map(|info| info.reason.as_str())
    }

    /// All `google.rpc` details: `BadRequest`, `PreconditionFailure`, `RetryInfo`, …
    pub fn details(&self) -> &ErrorDetails {
        &self.details
    }

    /// A number of the `ErrorInfo`'s metadata.
    fn number(&self, name: &str) -> Option<u64> {
        self.details.error_info()?.metadata.get(name)?.parse().ok()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() { write!(f, "{}", self.code) } else { f.write_str(&self.message) }
    }
}

/// The revision asked for is compacted: its history is gone and cannot be read or watched from.
#[derive(Debug, Clone)]
pub struct CompactedError {
    /// History up to and including this revision is compacted; a watch can start at the next one.
    pub compact_revision: u64,
    answer: Box<Answer>,
}

impl fmt::Display for CompactedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.answer.fmt(f)
    }
}

/// None of the client's addresses could be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub(crate) attempts: Arc<[(String, String)]>,
}

impl Unreachable {
    /// Each address that was tried, and why it failed.
    pub fn attempts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attempts.iter().map(|(address, why)| (address.as_str(), why.as_str()))
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot reach ")?;
        for (number, (address, why)) in self.attempts().enumerate() {
            write!(f, "{}{address}: {why}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl StdError for Unreachable {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let unreachable = status.source().and_then(|source| source.downcast_ref::<Unreachable>());
        if let Some(unreachable) = unreachable {
            return Self::Unreachable(unreachable.clone());
        }
        let answer = Box::new(Answer {
            code: status.code(),
            message: status.message().into(),
            details: status.get_error_details(),
        });
        match (answer.reason(), answer.number("compact_revision")) {
            (Some("PRECONDITION_FAILED"), _) => Self::PreconditionFailed(answer),
            (Some("REVISION_COMPACTED"), Some(compact_revision)) => {
                Self::Compacted(CompactedError { compact_revision, answer })
            }
            _ => Self::Rpc(answer),
        }
    }
}
