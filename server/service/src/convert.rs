//! From the state's records to the API's messages. Nothing is decided here.

use konsul_proto::v1;
use konsul_state::command::{Health, KvEntry, KvRecord};
use prost_types::{Duration, Timestamp};

use crate::limits;

/// An entry as the API shows it.
pub(crate) fn entry(key: String, record: KvRecord) -> v1::Entry {
    v1::Entry {
        key,
        value: record.value,
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        version: record.version,
        flags: record.flags,
        content_type: record.content_type,
        update_time: Some(timestamp(record.update_time_ms)),
        lease: record.lease,
    }
}

/// An entry that an outcome carries.
pub(crate) fn outcome_entry(entry_of: KvEntry) -> v1::Entry {
    entry(entry_of.key, entry_of.record.unwrap_or_default())
}

/// A health as the API shows it.
pub(crate) fn health(health: Health) -> v1::HealthStatus {
    match health {
        Health::Passing => v1::HealthStatus::Passing,
        Health::Warning => v1::HealthStatus::Warning,
        Health::Critical => v1::HealthStatus::Critical,
        Health::Maintenance => v1::HealthStatus::Maintenance,
    }
}

/// Milliseconds since 1970 as the API shows them.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    // Below 1,000,000,000.
    let nanos = (ms % 1000) as i32 * 1_000_000;
    Timestamp { seconds, nanos }
}

/// Milliseconds of time as the API shows them.
pub(crate) fn duration_ms(ms: u64) -> Option<Duration> {
    Duration::try_from(std::time::Duration::from_millis(ms)).ok()
}

/// Most bytes of an item of a page beside its names and values.
const ITEM_BYTES: usize = 64;

/// How many items with names and values of so many bytes fit into a page; at least one, if there is one.
pub(crate) fn fitting(sizes: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |(i, size): &(usize, usize)| {
        bytes += size + ITEM_BYTES;
        *i == 0 || bytes <= limits::PAGE_BYTES
    };
    sizes.enumerate().take_while(fits).count()
}
