//! Why a call was refused, and the one map from that to a gRPC status with `google.rpc` details. Nothing else
//! in this crate makes a status. The map has no wildcard arm: a new refusal has to say what it is.

use std::collections::HashMap;
use std::time::Duration;

use konsul_state::backup::BackupError;
use konsul_state::cluster::ChangeError;
use konsul_state::command::{self, LockKind, refusal::Reason};
use konsul_state::propose::ProposeError;
use konsul_state::{LeaseId, ReadError, Revision, StateError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "konsul";

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A field of the request is not what it should be.
    #[error("{field} {problem}")]
    InvalidField {
        /// Path of the field, as in `then[3].put.key`.
        field: String,
        /// What it should be.
        problem: String,
    },
    /// The bytes of the message are not one of its type.
    #[error("{0}")]
    MalformedMessage(String),
    /// A page token that this request did not get.
    #[error("page_token is not one of this request: begin again without it, or repeat the request as it was")]
    InvalidPageToken,
    /// The idempotency key came with another request before.
    #[error("the idempotency key was used for a different request: use a new key for each write")]
    IdempotencyKeyReused,
    /// A value is too large.
    #[error(
        "{field} has {bytes} bytes, and values may have {limit}: store it in parts or raise limits.max_value_bytes"
    )]
    ValueTooLarge {
        /// Path of the field.
        field: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The message is too large.
    #[error("the request is larger than the {limit} bytes a request may have: send it in smaller parts")]
    RequestTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The key is not there.
    #[error("key {key:?} does not exist")]
    KeyNotFound {
        /// The key.
        key: String,
        /// The revision that was read.
        revision: Revision,
    },
    /// A precondition did not hold.
    #[error("{}", precondition_message(.0))]
    PreconditionFailed(command::PreconditionFailed),
    /// A revision that can't be read or watched from any more.
    #[error(
        "revision {revision} is compacted (compact revision {compact_revision}): begin from the present state"
    )]
    Compacted {
        /// The revision asked for.
        revision: Revision,
        /// Everything up to this one is compacted.
        compact_revision: Revision,
    },
    /// A revision that has not happened.
    #[error("revision {revision} is in the future: the store is at {current}")]
    Future {
        /// The revision asked for.
        revision: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// A range holds more than one call may delete or return.
    #[error("the range holds more than {max_keys} keys or {max_bytes} bytes: use narrower ranges")]
    RangeTooLarge {
        /// Most keys.
        max_keys: u64,
        /// Most bytes.
        max_bytes: u64,
    },
    /// What was asked for is more than one answer holds.
    #[error("the answer would have more than {limit} bytes: ask for fewer keys at a time")]
    AnswerTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The store has reached its limit.
    #[error(
        "the store is full ({used} of {limit} bytes): delete keys and compact, or raise limits.max_store_bytes"
    )]
    StoreFull {
        /// Bytes that hold data.
        used: u64,
        /// The limit.
        limit: u64,
    },
    /// There is no such lease.
    #[error("lease {0} does not exist: it has expired, was revoked, or never was")]
    LeaseNotFound(LeaseId),
    /// There is a lease of this id.
    #[error("lease {0} exists: revoke it first, or let the server pick an id")]
    LeaseExists(LeaseId),
    /// A lease has as much bound to it as can be ended at once.
    #[error("lease {id} has {max_keys} keys or {max_bytes} bytes bound to it already: use another lease")]
    LeaseFull {
        /// The lease.
        id: LeaseId,
        /// Most keys.
        max_keys: u64,
        /// Most bytes.
        max_bytes: u64,
    },
    /// A check by a script, where there are no scripts.
    #[error(
        "this version runs no scripts as checks: use ttl and let the script pass it, with `konsul health pass`"
    )]
    ScriptsDisabled,
    /// What only a leader may do was done by one that is none any more.
    #[error("the leader changed: try again")]
    Deposed,
    /// A lock or an election is not held by whoever says so.
    #[error("{what} {name:?} is not held under this lease and token ({token})")]
    LockNotHeld {
        /// Whether it is a lock or an election.
        what: &'static str,
        /// Its name.
        name: String,
        /// The token that was given.
        token: u64,
    },
    /// A lock is in use with another limit.
    #[error("lock {name:?} is in use with limit {limit}: all who claim it must say the same")]
    LockLimitDiffers {
        /// Its name.
        name: String,
        /// Its limit.
        limit: u32,
    },
    /// A lease has a claim on the lock in another mode.
    #[error("this lease has lock {name:?} in another mode: unlock it first, or use another lease")]
    LockModeDiffers {
        /// Its name.
        name: String,
    },
    /// A lock can't be had at once.
    #[error("lock {name:?} is taken")]
    LockTaken {
        /// Its name.
        name: String,
    },
    /// A lock has as many claims as it may have, or as many bytes of what they say.
    #[error("lock {name:?} has {max_claims} claims already, or {max_bytes} bytes of their values")]
    LockFull {
        /// Its name.
        name: String,
        /// Most claims.
        max_claims: u64,
        /// Most bytes.
        max_bytes: u64,
    },
    /// There is no such service.
    #[error(
        "there is no service {name:?} in namespace {namespace:?}: nobody has registered an instance of it"
    )]
    ServiceNotFound {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// There is no such node.
    #[error("node {name:?} does not exist: register it, or send it along as `node`")]
    NodeNotFound {
        /// Its name.
        name: String,
    },
    /// There is no such instance.
    #[error("service {service:?} has no instance {id:?}")]
    InstanceNotFound {
        /// Its service.
        service: String,
        /// Its id.
        id: String,
    },
    /// There is no such check.
    #[error("check {id:?} does not exist")]
    CheckNotFound {
        /// Its id.
        id: String,
    },
    /// Only TTL checks are set by hand.
    #[error("check {id:?} is none with a TTL: its status comes from its own results, and can't be set")]
    CheckNotTtl {
        /// Its id.
        id: String,
    },
    /// The catalog has as many of something as it may have.
    #[error("the catalog has its limit of {limit} {what} already: deregister some first")]
    CatalogFull {
        /// Of what, in words.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A filter takes too many steps.
    #[error("select.filter takes more than {limit} steps: make it simpler, or select by tags and metadata")]
    FilterTooCostly {
        /// The limit.
        limit: u64,
    },
    /// A later call of the same lease waits for the lock.
    #[error("a later call under the same lease waits for this lock now")]
    ClaimTakenOver,
    /// The claim ended while it waited.
    #[error("the claim ended while it waited: its lease expired, or it was given up elsewhere")]
    ClaimLost,
    /// Too many of something at the same time.
    #[error("this member has its limit of {limit} {what} already: try again later or on another member")]
    TooMany {
        /// Of what, in words.
        what: &'static str,
        /// Stable name of the limit, for `ErrorInfo.reason`.
        reason: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A stale read on a member that lost its leader for too long.
    #[error("this member last heard of the leader {} ago, longer than max_staleness: read from another member", age(.last_contact))]
    StaleReadTooOld {
        /// How long ago; `None` if never.
        last_contact: Option<Duration>,
    },
    /// What is to be restored is no backup, or damaged.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What is to be restored is of another cluster.
    #[error(
        "the backup is of cluster {found:?}, and this is {own:?}: restore it with `other_cluster` (--other-cluster) if that is meant"
    )]
    BackupOfOtherCluster {
        /// The backup's cluster.
        found: String,
        /// This one.
        own: String,
    },
    /// What is to be restored can't be.
    #[error("the backup can't be restored: {what}")]
    RestoreRefused {
        /// Why.
        what: String,
    },
    /// Another restore was begun.
    #[error("another restore was begun meanwhile, and nothing has changed: try again when it has ended")]
    RestoreGone,
    /// The caller's stream broke.
    #[error("the call's stream broke: {}", .0.message())]
    Broken(Status),
    /// The call's deadline has passed.
    #[error(
        "the deadline has passed: a write may have happened, and repeating it with the same idempotency-key tells"
    )]
    DeadlineExceeded,
    /// The membership was not changed.
    #[error(transparent)]
    Change(ChangeError),
    /// Consensus did not carry the write out, or does not know.
    #[error("{}", propose_message(.0))]
    Propose(ProposeError),
    /// A member of the cluster that applied the write is too old for it.
    #[error("the cluster has members that don't know command format {format}: finish the upgrade first")]
    UnknownFormat {
        /// The format.
        format: u32,
    },
    /// This member's state is broken.
    #[error("{}", state_message(.0))]
    State(StateError),
    /// History lacks a revision that is not compacted.
    #[error("this member's history lacks revision {revision}: use another member, and report this")]
    HistoryMissing {
        /// The revision.
        revision: Revision,
    },
    /// The state answered a Command with something else than its kind of outcome.
    #[error("this member answered a write with an outcome of another kind: see its log, and report this")]
    UnexpectedOutcome,
    /// A call of a method ended in a panic.
    #[error("this member failed while serving the call: see its log, and report this")]
    Panicked,
}

impl ServiceError {
    /// A field that is not what it should be.
    pub(crate) fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidField { field: field.into(), problem: problem.into() }
    }

    /// The same, of a field within the message at this path, which ends with a dot.
    pub(crate) fn within(self, path: &str) -> Self {
        match self {
            Self::InvalidField { field, problem } => {
                Self::InvalidField { field: format!("{path}{field}"), problem }
            }
            other => other,
        }
    }

    /// The stable name of the refusal.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.shape().reason
    }

    /// The one map from refusals to what the wire carries.
    fn shape(&self) -> Shape {
        use Code::{
            Aborted, AlreadyExists, DataLoss, DeadlineExceeded, FailedPrecondition, Internal,
            InvalidArgument, NotFound, OutOfRange, ResourceExhausted, Unavailable,
        };
        match self {
            Self::Backup(_) => Shape::new(InvalidArgument, "BACKUP_UNREADABLE"),
            Self::BackupOfOtherCluster { found, .. } => {
                Shape::new(FailedPrecondition, "BACKUP_OF_OTHER_CLUSTER").with("cluster_id", found)
            }
            Self::RestoreRefused { .. } => Shape::new(InvalidArgument, "RESTORE_REFUSED"),
            Self::RestoreGone => Shape::new(Aborted, "RESTORE_GONE"),
            Self::Broken(status) => Shape::new(status.code(), "STREAM_BROKEN"),
            Self::InvalidField { field, problem } => {
                Shape::new(InvalidArgument, "INVALID_FIELD").field(field, problem.clone())
            }
            Self::MalformedMessage(_) => Shape::new(InvalidArgument, "MALFORMED_MESSAGE"),
            Self::InvalidPageToken => Shape::new(InvalidArgument, "INVALID_PAGE_TOKEN")
                .field("page_token", "must be the next_page_token of this very request"),
            Self::IdempotencyKeyReused => Shape::new(InvalidArgument, "IDEMPOTENCY_KEY_REUSED"),
            Self::ValueTooLarge { field, limit, .. } => Shape::new(ResourceExhausted, "VALUE_TOO_LARGE")
                .field(field, format!("must be at most {limit} bytes"))
                .with("limit", limit),
            Self::RequestTooLarge { limit } => {
                Shape::new(ResourceExhausted, "REQUEST_TOO_LARGE").with("limit", limit)
            }
            Self::KeyNotFound { revision, .. } => {
                Shape::new(NotFound, "KEY_NOT_FOUND").with("current_revision", revision)
            }
            Self::PreconditionFailed(found) => Shape::new(FailedPrecondition, "PRECONDITION_FAILED")
                .precondition(found)
                .with("key", &found.key)
                .with("condition", &found.condition)
                .with("current_revision", found.mod_revision)
                .with("current_version", found.version),
            Self::Compacted { compact_revision, .. } => {
                Shape::new(OutOfRange, "REVISION_COMPACTED").with("compact_revision", compact_revision)
            }
            Self::Future { current, .. } => {
                Shape::new(OutOfRange, "REVISION_IN_FUTURE").with("current_revision", current)
            }
            Self::RangeTooLarge { max_keys, max_bytes } => Shape::new(ResourceExhausted, "RANGE_TOO_LARGE")
                .with("limit_keys", max_keys)
                .with("limit_bytes", max_bytes),
            Self::AnswerTooLarge { limit } => {
                Shape::new(ResourceExhausted, "ANSWER_TOO_LARGE").with("limit", limit)
            }
            Self::StoreFull { used, limit } => Shape::new(ResourceExhausted, "STORE_FULL")
                .retry(5_000)
                .with("used", used)
                .with("limit", limit),
            Self::LeaseNotFound(id) => Shape::new(NotFound, "LEASE_NOT_FOUND").with("lease", id),
            Self::LeaseExists(id) => Shape::new(AlreadyExists, "LEASE_EXISTS").with("lease", id),
            Self::LeaseFull { id, max_keys, max_bytes } => Shape::new(ResourceExhausted, "LEASE_FULL")
                .with("lease", id)
                .with("limit_keys", max_keys)
                .with("limit_bytes", max_bytes),
            Self::ServiceNotFound { name, .. } => {
                Shape::new(NotFound, "SERVICE_NOT_FOUND").with("service", name)
            }
            Self::NodeNotFound { name } => Shape::new(NotFound, "NODE_NOT_FOUND").with("node", name),
            Self::InstanceNotFound { service, id } => {
                Shape::new(NotFound, "INSTANCE_NOT_FOUND").with("service", service).with("instance", id)
            }
            Self::CheckNotFound { id } => Shape::new(NotFound, "CHECK_NOT_FOUND").with("check", id),
            Self::CheckNotTtl { id } => Shape::new(FailedPrecondition, "CHECK_NOT_TTL").with("check", id),
            Self::CatalogFull { limit, .. } => {
                Shape::new(ResourceExhausted, "CATALOG_FULL").with("limit", limit)
            }
            Self::FilterTooCostly { limit } => {
                Shape::new(InvalidArgument, "FILTER_TOO_COSTLY").with("limit", limit)
            }
            Self::Deposed => Shape::new(Unavailable, "NO_LEADER").retry(100),
            Self::LockNotHeld { name, .. } => {
                Shape::new(FailedPrecondition, "LOCK_NOT_HELD").with("name", name)
            }
            Self::LockLimitDiffers { name, limit } => {
                Shape::new(FailedPrecondition, "LOCK_LIMIT_DIFFERS").with("name", name).with("limit", limit)
            }
            Self::LockModeDiffers { name } => {
                Shape::new(FailedPrecondition, "LOCK_MODE_DIFFERS").with("name", name)
            }
            Self::LockTaken { name } => Shape::new(FailedPrecondition, "LOCK_TAKEN").with("name", name),
            Self::LockFull { name, max_claims, max_bytes } => Shape::new(ResourceExhausted, "LOCK_FULL")
                .retry(1_000)
                .with("name", name)
                .with("limit", max_claims)
                .with("limit_bytes", max_bytes),
            // Not ABORTED, which is retried: two callers would take it over from each other for ever.
            Self::ScriptsDisabled => Shape::new(FailedPrecondition, "SCRIPTS_DISABLED"),
            Self::ClaimTakenOver => Shape::new(FailedPrecondition, "CLAIM_TAKEN_OVER"),
            Self::ClaimLost => Shape::new(FailedPrecondition, "CLAIM_LOST"),
            Self::TooMany { reason, limit, .. } => {
                Shape::new(ResourceExhausted, reason).retry(1_000).with("limit", limit)
            }
            Self::StaleReadTooOld { .. } => Shape::new(Unavailable, "STALE_READ_TOO_OLD").retry(1_000),
            Self::DeadlineExceeded => Shape::new(DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Propose(ProposeError::NoLeader) => Shape::new(Unavailable, "NO_LEADER").retry(100),
            Self::Propose(ProposeError::ShuttingDown) => Shape::new(Unavailable, "SHUTTING_DOWN").retry(500),
            Self::Propose(ProposeError::Unknown) => Shape::new(Unavailable, "OUTCOME_UNKNOWN").retry(100),
            Self::Propose(ProposeError::Diverged) => Shape::new(Unavailable, "STATE_DIVERGED").retry(1_000),
            Self::Propose(ProposeError::Removed) => Shape::new(Unavailable, "MEMBER_REMOVED"),
            Self::Propose(ProposeError::Busy) => Shape::new(ResourceExhausted, "TOO_MANY_WRITES").retry(100),
            Self::Propose(ProposeError::TooLarge { max_bytes, .. }) => {
                Shape::new(ResourceExhausted, "WRITE_TOO_LARGE").with("limit", max_bytes)
            }
            Self::Propose(ProposeError::DiskFull) => Shape::new(ResourceExhausted, "DISK_FULL").retry(5_000),
            Self::Propose(ProposeError::Broken(_)) => Shape::new(Internal, "STORAGE_FAILED"),
            Self::Change(ChangeError::NoLeader) => Shape::new(Unavailable, "NO_LEADER").retry(100),
            Self::Change(ChangeError::Unknown) => Shape::new(Unavailable, "OUTCOME_UNKNOWN").retry(100),
            Self::Change(ChangeError::NoSuchMember(_)) => Shape::new(NotFound, "MEMBER_NOT_FOUND"),
            Self::Change(ChangeError::Refused(_)) => Shape::new(FailedPrecondition, "CHANGE_REFUSED"),
            Self::UnknownFormat { .. } => Shape::new(FailedPrecondition, "FORMAT_UNKNOWN"),
            Self::State(StateError::Corrupt { .. }) => Shape::new(DataLoss, "STATE_CORRUPT"),
            Self::State(
                StateError::Lmdb(_)
                | StateError::File { .. }
                | StateError::Newer { .. }
                | StateError::NewerCommand { .. }
                | StateError::Unreleased { .. }
                | StateError::InUse
                | StateError::OutOfOrder { .. },
            ) => Shape::new(Internal, "STORAGE_FAILED"),
            Self::HistoryMissing { .. } => Shape::new(DataLoss, "HISTORY_MISSING"),
            Self::UnexpectedOutcome => Shape::new(Internal, "UNEXPECTED_OUTCOME"),
            Self::Panicked => Shape::new(Internal, "PANICKED"),
        }
    }
}

/// A refusal as the wire carries it, but for its message.
struct Shape {
    code: Code,
    reason: &'static str,
    details: ErrorDetails,
    metadata: HashMap<String, String>,
}

impl Shape {
    fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, details: ErrorDetails::new(), metadata: HashMap::new() }
    }

    fn field(mut self, field: &str, should: impl Into<String>) -> Self {
        self.details.add_bad_request_violation(field, should);
        self
    }

    fn precondition(mut self, found: &command::PreconditionFailed) -> Self {
        let kind = found.condition.to_ascii_uppercase();
        self.details.add_precondition_failure_violation(kind, &found.key, precondition_message(found));
        self
    }

    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.insert(name.to_owned(), value.to_string());
        self
    }

    /// Says that waiting helps, and for how long to wait.
    fn retry(mut self, after_ms: u64) -> Self {
        self.details.set_retry_info(Some(Duration::from_millis(after_ms)));
        self
    }

    fn status(mut self, message: String) -> Status {
        self.details.set_error_info(self.reason, DOMAIN, self.metadata);
        Status::with_error_details(self.code, message, self.details)
    }
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Self {
        if let ServiceError::State(cause) = &error {
            tracing::error!(error = %cause, "the state store failed");
        }
        if let ServiceError::Propose(ProposeError::Broken(cause)) = &error {
            tracing::error!(error = %cause, "this member's storage failed");
        }
        error.shape().status(error.to_string())
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::State(error) => Self::State(error),
            ReadError::Compacted { revision, compact_revision } => {
                Self::Compacted { revision, compact_revision }
            }
            ReadError::Future { revision, current } => Self::Future { revision, current },
        }
    }
}

impl From<StateError> for ServiceError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<ChangeError> for ServiceError {
    fn from(error: ChangeError) -> Self {
        Self::Change(error)
    }
}

impl From<ProposeError> for ServiceError {
    fn from(error: ProposeError) -> Self {
        Self::Propose(error)
    }
}

impl From<command::Refusal> for ServiceError {
    fn from(refusal: command::Refusal) -> Self {
        match refusal.reason {
            Some(Reason::PreconditionFailed(found)) => Self::PreconditionFailed(found),
            Some(Reason::RangeTooLarge(r)) => {
                Self::RangeTooLarge { max_keys: r.max_keys, max_bytes: r.max_bytes }
            }
            Some(Reason::FutureRevision(r)) => {
                Self::Future { revision: Revision(r.revision), current: Revision(r.current) }
            }
            Some(Reason::IdempotencyKeyReused(_)) => Self::IdempotencyKeyReused,
            Some(Reason::UnknownFormat(r)) => Self::UnknownFormat { format: r.format },
            Some(Reason::LeaseExists(r)) => Self::LeaseExists(LeaseId(r.id)),
            Some(Reason::LeaseNotFound(r)) => Self::LeaseNotFound(LeaseId(r.id)),
            Some(Reason::LeaseFull(r)) => {
                Self::LeaseFull { id: LeaseId(r.id), max_keys: r.max_keys, max_bytes: r.max_bytes }
            }
            Some(Reason::Deposed(_)) => Self::Deposed,
            Some(Reason::LockNotHeld(r)) => {
                let what = match r.kind() {
                    LockKind::Lock => "lock",
                    LockKind::Election => "election",
                };
                Self::LockNotHeld { what, name: r.name, token: r.token }
            }
            Some(Reason::LockLimitDiffers(r)) => Self::LockLimitDiffers { name: r.name, limit: r.limit },
            Some(Reason::LockModeDiffers(r)) => Self::LockModeDiffers { name: r.name },
            Some(Reason::LockTaken(r)) => Self::LockTaken { name: r.name },
            Some(Reason::LockFull(r)) => {
                Self::LockFull { name: r.name, max_claims: r.max_claims, max_bytes: r.max_bytes }
            }
            Some(Reason::NodeNotFound(r)) => Self::NodeNotFound { name: r.name },
            Some(Reason::InstanceNotFound(r)) => Self::InstanceNotFound { service: r.service, id: r.id },
            Some(Reason::CheckNotFound(r)) => Self::CheckNotFound { id: r.id },
            Some(Reason::CheckNotTtl(r)) => Self::CheckNotTtl { id: r.id },
            Some(Reason::CatalogFull(r)) => Self::CatalogFull { what: r.what, limit: r.limit },
            Some(Reason::RestoreGone(_)) => Self::RestoreGone,
            Some(Reason::RestoreRefused(r)) => Self::RestoreRefused { what: r.what },
            Some(Reason::TooManyLeases(r)) => {
                let limit = usize::try_from(r.max_leases).unwrap_or(usize::MAX);
                Self::TooMany { what: "leases", reason: "TOO_MANY_LEASES", limit }
            }
            None => Self::UnexpectedOutcome,
        }
    }
}

fn precondition_message(found: &command::PreconditionFailed) -> String {
    let command::PreconditionFailed { key, mod_revision, version, condition, .. } = found;
    match mod_revision {
        0 => format!("precondition {condition} failed: key {key:?} does not exist"),
        _ => format!(
            "precondition {condition} failed: key {key:?} is at revision {mod_revision}, version {version}"
        ),
    }
}

/// The cause goes into the log: it may name paths of the machine.
fn propose_message(error: &ProposeError) -> String {
    match error {
        ProposeError::Broken(_) => STORAGE_FAILED.to_owned(),
        other => other.to_string(),
    }
}

fn state_message(error: &StateError) -> String {
    match error {
        StateError::Corrupt { table, .. } => {
            format!(
                "this member found table {table} damaged and does not serve it: use another member, see its log"
            )
        }
        StateError::Lmdb(_)
        | StateError::File { .. }
        | StateError::Newer { .. }
        | StateError::NewerCommand { .. }
        | StateError::Unreleased { .. }
        | StateError::InUse
        | StateError::OutOfOrder { .. } => STORAGE_FAILED.to_owned(),
    }
}

const STORAGE_FAILED: &str = "this member's storage failed: use another member, and see this one's log";

fn age(last_contact: &Option<Duration>) -> String {
    last_contact.map_or("never or too long".to_owned(), |age| format!("{age:?}"))
}
