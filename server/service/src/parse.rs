//! What callers send, parsed into domain types at the edge: each function names the field it refuses and says
//! what it should be. Nothing is read from the state here.

use std::sync::LazyLock;
use std::time::Duration;

use konsul_proto::v1;
use konsul_state::command::{Fence, Health, KeySpan, KvPrecondition, LockKind};
use konsul_state::ids::NameError;
use konsul_state::view::Direction;
use konsul_state::{Key, LeaseId, Namespace, Revision};
use tonic::metadata::MetadataMap;

use crate::error::ServiceError;
use crate::limits::{self, Limits, PageSize};

/// The metadata that names a write.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

static DEFAULT_NAMESPACE: LazyLock<Option<Namespace>> = LazyLock::new(|| Namespace::parse("").ok());

/// A namespace; empty is the default one.
pub(crate) fn namespace(text: &str) -> Result<Namespace, ServiceError> {
    if text.is_empty()
        && let Some(default) = &*DEFAULT_NAMESPACE
    {
        return Ok(default.clone());
    }
    Namespace::parse(text).map_err(|e| name_error("namespace", e))
}

/// A key.
pub(crate) fn key(field: &str, text: &str) -> Result<Key, ServiceError> {
    Key::parse(text).map_err(|e| name_error(field, e))
}

/// The `key` of a write, which goes into a Command as it is. Here and below `path` is what comes before the name
/// of a field, and is made a field's path only when it is refused.
pub(crate) fn check_key(path: &str, text: &str) -> Result<(), ServiceError> {
    Key::check(text).map_err(|e| name_error(&format!("{path}key"), e))
}

fn name_error(field: &str, error: NameError) -> ServiceError {
    ServiceError::field(field, error.to_string())
}

/// The keys under a prefix.
pub(crate) fn prefix(field: &str, prefix: &str) -> Result<KeySpan, ServiceError> {
    bound(field, prefix)?;
    Ok(KeySpan::prefix(prefix))
}

/// The keys in a range.
pub(crate) fn range(field: &str, range: &v1::KeyRange) -> Result<KeySpan, ServiceError> {
    bound(&format!("{field}.start"), &range.start)?;
    bound(&format!("{field}.end"), &range.end)?;
    if !range.end.is_empty() && range.end <= range.start {
        return Err(ServiceError::field(format!("{field}.end"), "must be empty or greater than start"));
    }
    Ok(KeySpan::range(&range.start, &range.end))
}

/// A point between keys: a byte longer than a key may be, because the least point after a key is the key and a NUL.
fn bound(field: &str, text: &str) -> Result<(), ServiceError> {
    if text.len() > Key::MAX_BYTES + 1 {
        return Err(ServiceError::field(field, format!("must be at most {} bytes", Key::MAX_BYTES + 1)));
    }
    Ok(())
}

/// A revision to read at; 0 is now.
pub(crate) fn at(revision: u64) -> Option<Revision> {
    (revision != 0).then_some(Revision(revision))
}

/// The `value` that is to be stored or compared with.
pub(crate) fn check_value(path: &str, value: &[u8], limits: &Limits) -> Result<(), ServiceError> {
    let limit = limits.max_value_bytes;
    if value.len() > limit {
        return Err(ServiceError::ValueTooLarge { field: format!("{path}value"), bytes: value.len(), limit });
    }
    Ok(())
}

/// The `content_type` of a value.
pub(crate) fn check_content_type(path: &str, text: &str) -> Result<(), ServiceError> {
    if text.len() > limits::CONTENT_TYPE_BYTES {
        let problem = format!("must be at most {} bytes", limits::CONTENT_TYPE_BYTES);
        return Err(ServiceError::field(format!("{path}content_type"), problem));
    }
    Ok(())
}

/// The `precondition` of a write.
pub(crate) fn precondition(
    path: &str,
    precondition: Option<v1::Precondition>,
    limits: &Limits,
) -> Result<Option<KvPrecondition>, ServiceError> {
    let Some(wanted) = precondition else { return Ok(None) };
    if let Some(value) = &wanted.value {
        check_value(&format!("{path}precondition."), value, limits)?;
    }
    let v1::Precondition { exists, mod_revision, version, value, lease, fence } = wanted;
    let fence = fence.map(|f| self::fence(&format!("{path}precondition.fence."), f)).transpose()?;
    Ok(Some(KvPrecondition { exists, mod_revision, version, value, lease, fence }))
}

fn fence(path: &str, fence: v1::Fence) -> Result<Fence, ServiceError> {
    use v1::fence::Held;
    let (kind, field, name) = match fence.held {
        None => return Err(ServiceError::field(format!("{path}held"), "must be a lock or an election")),
        Some(Held::Lock(name)) => (LockKind::Lock, "lock", name),
        Some(Held::Election(name)) => (LockKind::Election, "election", name),
    };
    Key::check(&name).map_err(|e| name_error(&format!("{path}{field}"), e))?;
    Ok(Fence { kind: kind.into(), name, token: fence.token })
}

/// The id of a lease.
pub(crate) fn lease(field: &str, id: u64) -> Result<LeaseId, ServiceError> {
    match (1..=LeaseId::MAX).contains(&id) {
        true => Ok(LeaseId(id)),
        false => Err(ServiceError::field(field, "must be the id of a lease, 1 to 2^63-1")),
    }
}

/// A health that is asked for.
pub(crate) fn health(field: &str, status: i32) -> Result<Health, ServiceError> {
    match v1::HealthStatus::try_from(status) {
        Ok(v1::HealthStatus::Passing) => Ok(Health::Passing),
        Ok(v1::HealthStatus::Warning) => Ok(Health::Warning),
        Ok(v1::HealthStatus::Critical) => Ok(Health::Critical),
        Ok(v1::HealthStatus::Maintenance) => Ok(Health::Maintenance),
        Ok(v1::HealthStatus::Unspecified) | Err(_) => {
            Err(ServiceError::field(field, "must be PASSING, WARNING, CRITICAL or MAINTENANCE"))
        }
    }
}

/// A point in time, in ms since 1970.
pub(crate) fn time_ms(field: &str, time: &prost_types::Timestamp) -> Result<u64, ServiceError> {
    let since = std::time::SystemTime::try_from(*time)
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok());
    since.ok_or_else(|| ServiceError::field(field, "must be a time since 1970"))
}

/// A time to live, in ms.
pub(crate) fn ttl_ms(field: &str, ttl: &prost_types::Duration) -> Result<u64, ServiceError> {
    Ok(duration(field, ttl, limits::LEASE_TTL)?.as_millis() as u64)
}

/// What a put binds its key to: a lease, or one of its own for a time in ms.
pub(crate) fn binding(
    path: &str,
    id: u64,
    ttl: Option<&prost_types::Duration>,
) -> Result<(u64, u64), ServiceError> {
    match (id, ttl) {
        (0, None) => Ok((0, 0)),
        (0, Some(ttl)) => Ok((0, ttl_ms(&format!("{path}ttl"), ttl)?)),
        (_, Some(_)) => Err(ServiceError::field(format!("{path}ttl"), "must be unset together with lease")),
        (id, None) => Ok((lease(&format!("{path}lease"), id)?.0, 0)),
    }
}

/// A page size; 0 is the default.
pub(crate) fn page_size(field: &str, size: u32, bounds: PageSize) -> Result<usize, ServiceError> {
    match size {
        0 => Ok(bounds.default as usize),
        size if size <= bounds.max => Ok(size as usize),
        _ => Err(ServiceError::field(field, format!("must be at most {}", bounds.max))),
    }
}

/// A direction.
pub(crate) fn direction(order: i32, default: Direction) -> Result<Direction, ServiceError> {
    match v1::Order::try_from(order) {
        Ok(v1::Order::Unspecified) => Ok(default),
        Ok(v1::Order::Ascending) => Ok(Direction::Ascending),
        Ok(v1::Order::Descending) => Ok(Direction::Descending),
        Err(_) => Err(ServiceError::field("order", "must be a value of Order")),
    }
}

/// A duration within bounds.
pub(crate) fn duration(
    field: &str,
    duration: &prost_types::Duration,
    (least, greatest): (Duration, Duration),
) -> Result<Duration, ServiceError> {
    match Duration::try_from(*duration) {
        Ok(parsed) if parsed >= least && parsed <= greatest => Ok(parsed),
        _ => Err(ServiceError::field(field, format!("must be {least:?} to {greatest:?}"))),
    }
}

/// The idempotency key of a write; empty if it has none.
pub(crate) fn idempotency_key(metadata: &MetadataMap) -> Result<String, ServiceError> {
    let mut values = metadata.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(String::new()) };
    let printable = |b: &u8| (b' '..=b'~').contains(b);
    match value.to_str() {
        Ok(text)
            if (1..=limits::IDEMPOTENCY_KEY_BYTES).contains(&text.len())
                && text.bytes().all(|b| printable(&b))
                && values.next().is_none() =>
        {
            Ok(text.to_owned())
        }
        _ => Err(ServiceError::field(
            IDEMPOTENCY_KEY,
            format!(
                "must be one metadata value of 1 to {} printable ASCII characters",
                limits::IDEMPOTENCY_KEY_BYTES
            ),
        )),
    }
}
