//! Every bound of the API by name. What the protos fix is a constant; what an operator may set is a field of
//! [`Limits`]. Nothing is enforced here.

use std::time::Duration;

/// Most keys of a BatchGet, puts of a BatchPut, deletes of a BatchDelete.
pub const BATCH_KEYS: usize = 256;
/// Most comparisons of a Txn.
pub const TXN_COMPARES: usize = 256;
/// Most operations of a Txn, both branches together.
pub const TXN_OPERATIONS: usize = 256;
/// Most bytes of a content type.
pub const CONTENT_TYPE_BYTES: usize = 128;
/// Most bytes of an idempotency key.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;
/// Most bytes of a listing's separator.
pub const SEPARATOR_BYTES: usize = 16;
/// Most bytes of a page token; one with the longest key as its cursor fits.
pub const PAGE_TOKEN_BYTES: usize = 2048;
/// Most items of a List page, and how many one has unless asked otherwise.
pub const LIST_PAGE: PageSize = PageSize { max: 10_000, default: 1_000 };
/// Most versions of a History page, and how many one has unless asked otherwise.
pub const HISTORY_PAGE: PageSize = PageSize { max: 1_000, default: 100 };
/// Most entries of a List within a Txn, and how many it has unless asked otherwise.
pub const TXN_LIST: PageSize = PageSize { max: 1_000, default: 1_000 };
/// Bytes after which a page, or the list of a lock's claims, ends: with one more value it still fits into the 4 MiB that gRPC clients accept by default.
pub const PAGE_BYTES: usize = 2 << 20;
/// Bytes of values from which on a BatchGet is refused; a single key is always answered.
pub const BATCH_GET_BYTES: usize = 3 << 20;
/// Rows after which a page ends, however little it found, so that no read transaction is long.
pub const PAGE_ROWS: usize = 20_000;
/// How far ahead of this member a `min_revision` may be to be waited for.
pub const REVISIONS_AHEAD: u64 = 1_000_000;
/// Most backups that a member streams at a time.
pub const SNAPSHOTS: usize = 4;
/// Most addresses of a JoinCluster.
pub const JOIN_ADDRESSES: usize = 64;
/// Most targets of a watch stream.
pub const WATCH_TARGETS: usize = 1_000;
/// Shortest and longest interval of progress messages.
pub const PROGRESS_INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// Shortest and longest time to live of a lease, and of a key that has one.
pub const LEASE_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
/// Most bytes of what a lease's holder says of itself.
pub const LEASE_HOLDER_BYTES: usize = 256;
/// Most leases of one refresh.
pub const REFRESH_LEASES: usize = 10_000;
/// Most keys that a lease is shown with.
pub const LEASE_KEYS: usize = 1_000;
/// Greatest limit of a lock: how many may hold it at a time.
pub const LOCK_LIMIT: u32 = 10_000;
/// Shortest and longest `lock_delay`.
pub const LOCK_DELAY: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(60));
/// Most claims that a lock is shown with.
pub const LOCK_CLAIMS: usize = 1_000;
/// Most bytes of a claim's value.
pub const CLAIM_VALUE_BYTES: usize = 4 << 10;
/// Most registrations of a RegisterBatch.
pub const REGISTRATIONS: usize = 256;
/// Most warnings of a Register.
pub const WARNINGS: usize = 32;
/// Most bytes of a node's own id, and of an instance's version.
pub const CATALOG_ID_BYTES: usize = 128;
/// Most bytes of a DNS name (RFC 1035 §2.3.4, as text).
pub const DNS_NAME_BYTES: usize = 253;
/// Most tagged addresses of a node.
pub const TAGGED_ADDRESSES: usize = 16;
/// Most items of metadata of a node, an instance or a service.
pub const METADATA_ITEMS: usize = 64;
/// Most bytes of the value of an item of metadata.
pub const METADATA_VALUE_BYTES: usize = 512;
/// Most named ports of an instance.
pub const NAMED_PORTS: usize = 16;
/// Most tags of an instance.
pub const TAGS: usize = 64;
/// Most services that an instance depends on.
pub const DEPENDS_ON: usize = 64;
/// Most bytes of the reason for maintenance.
pub const MAINTENANCE_REASON_BYTES: usize = 256;
/// Shortest and longest time to live of DNS answers about a service.
pub const DNS_TTL: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(24 * 3600));
/// Most checks of an instance or a node.
pub const CHECKS: usize = 32;
/// Most bytes of a check's name.
pub const CHECK_NAME_BYTES: usize = 256;
/// Shortest and longest interval of active checks.
pub const CHECK_INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Shortest and longest timeout of active checks.
pub const CHECK_TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
/// Shortest and longest time for which a check is critical before its instance is deregistered.
pub const DEREGISTER_AFTER: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));
/// Greatest number of results in a row that a check waits for.
pub const CHECK_COUNT: u32 = 100;
/// Most bytes of a check's output; the rest is cut.
pub const CHECK_OUTPUT_BYTES: usize = 4 << 10;
/// Most passes of one heartbeat.
pub const HEARTBEAT_PASSES: usize = 10_000;
/// Most tags, items of metadata and healths that instances are selected by.
pub const SELECTOR_ITEMS: usize = 64;
/// Most bytes of a filter.
pub const FILTER_BYTES: usize = 2_048;
/// Most steps of a filter for one instance.
pub const FILTER_STEPS: u64 = 10_000;
/// Most instances of a Resolve.
pub const RESOLVE_INSTANCES: u32 = 1_000;
/// Most bytes of the key of a consistent hash.
pub const HASH_KEY_BYTES: usize = 1_024;
/// Most services of a graph of dependencies, and most circles that are told of it.
pub const DEPENDENCIES: usize = 1_000;
/// See [`DEPENDENCIES`].
pub const DEPENDENCY_CYCLES: usize = 100;
/// Most tags that a service is shown with.
pub const SERVICE_TAGS: usize = 1_000;
/// Shortest and longest `max_staleness`.
pub const STALENESS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
/// Greatest value of [`Limits::max_value_bytes`].
pub const GREATEST_VALUE_BYTES: usize = 8 << 20;
/// What a request may have beside a value and the value its precondition compares with.
const REQUEST_OVERHEAD_BYTES: usize = 64 << 10;

/// The bounds of a page's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    /// Most items.
    pub max: u32,
    /// Items of a page when the request says 0.
    pub default: u32,
}

/// What an operator may set. `Limits::default()` has the documented defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a value. Default 1 MiB, up to 8 MiB.
    pub max_value_bytes: usize,
    /// Most bytes of a request after decompression. Default 4 MiB; see [`Limits::request_bytes`].
    pub max_request_bytes: usize,
    /// Bytes of data in the store from which on writes that grow it are refused; deletes and compaction go
    /// on working. Default 8 GiB. The store's map must be larger, so that there is room for those.
    pub max_store_bytes: u64,
    /// Per cent of `max_store_bytes` from which on the server warns, in its status, metrics and log. Default 80.
    pub store_warning_percent: u32,
    /// Most reads that wait at a time for a `min_revision`. Default 10,000.
    pub max_waiting_reads: usize,
    /// Most calls that wait at a time for a lock or an election, or observe one. Default 100,000.
    pub max_waiting_locks: usize,
    /// Most streams of refreshes of leases of this member. Default 100,000.
    pub max_keep_alive_streams: usize,
    /// Most streams of heartbeats of this member. Default 100,000.
    pub max_heartbeat_streams: usize,
    /// Most watch streams of this member. Default 100,000.
    pub max_watch_streams: usize,
    /// Most targets of all watch streams of this member. Default 1,000,000.
    pub max_watch_targets: usize,
    /// Most bytes of recent changes kept in memory for watchers. Default 16 MiB.
    pub watch_ring_bytes: usize,
    /// Most recent revisions kept in memory for watchers. Default 16,384.
    pub watch_ring_batches: usize,
    /// Bytes after which a watch message takes in no further revision. Default 64 KiB.
    pub watch_batch_bytes: usize,
    /// Bytes from which on the changes of one revision are sent in fragments. Default 1 MiB.
    pub watch_fragment_bytes: usize,
    /// Most bytes of encoded watch messages kept for other watchers of the same target, for each
    /// runtime. Default 4 MiB.
    pub watch_shared_bytes: usize,
    /// How long history is kept at least, unless it outgrows `history_max_bytes`. Default 1 h.
    pub history_min_age: Duration,
    /// Most bytes of history. From half of it on, what is older than `history_min_age` is compacted; beyond it the
    /// older half is, whatever its age. Default 1 GiB.
    pub history_max_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_value_bytes: 1 << 20,
            max_request_bytes: 4 << 20,
            max_store_bytes: 8 << 30,
            store_warning_percent: 80,
            max_waiting_reads: 10_000,
            max_waiting_locks: 100_000,
            max_keep_alive_streams: 100_000,
            max_heartbeat_streams: 100_000,
            max_watch_streams: 100_000,
            max_watch_targets: 1_000_000,
            watch_ring_bytes: 16 << 20,
            watch_ring_batches: 16_384,
            watch_batch_bytes: 64 << 10,
            watch_fragment_bytes: 1 << 20,
            watch_shared_bytes: 4 << 20,
            history_min_age: Duration::from_secs(3600),
            history_max_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// Bytes of data in the store from which on the server warns.
    #[must_use]
    pub fn soft_store_bytes(&self) -> u64 {
        self.max_store_bytes / 100 * u64::from(self.store_warning_percent)
    }

    /// Most bytes of a request: as set, but always enough for the greatest value and a precondition that
    /// compares with another one.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        self.max_request_bytes.max(2 * self.max_value_bytes + REQUEST_OVERHEAD_BYTES)
    }
}
