//! What the log carries and what applying it yields: generated from `proto/command.proto`.
//! No logic lives here but how a key span is made.

#![allow(missing_docs, clippy::large_enum_variant, clippy::module_inception)]

include!(concat!(env!("OUT_DIR"), "/konsul.state.rs"));

/// Version of the Commands this binary writes, and the greatest it can apply.
pub const FORMAT: u32 = 1;

/// Most keys that one delete of a range may delete.
pub const MAX_RANGE_KEYS: u64 = 100_000;
/// Most bytes of records that one delete of a range may delete.
pub const MAX_RANGE_BYTES: u64 = 64 << 20;
/// Most entries that one operation returns (`previous` of a deleted range, a List in a Txn).
pub const MAX_RESULT_KEYS: u64 = 1_000;
/// Most bytes of records that one Command returns (a greater one may still be returned alone). With the message around them
/// they fit into the 4 MiB that gRPC clients accept by default.
pub const MAX_RESULT_BYTES: u64 = 2 << 20;

/// Most claims on a lock, held and waiting.
pub const MAX_CLAIMS: u64 = 10_000;
/// Most bytes of what all of them say of themselves: one Command may grant every claim that waits.
pub const MAX_CLAIM_BYTES: u64 = 4 << 20;
/// Most leases of all namespaces, which the leader has in memory (about 300 bytes each).
pub const MAX_LEASES: u64 = 1_000_000;

/// Most nodes of all namespaces.
pub const MAX_NODES: u64 = 100_000;
/// Most instances of all namespaces, which each member has in memory (about a kilobyte each).
pub const MAX_INSTANCES: u64 = 1_000_000;
/// Most instances of a service: each change of one makes the list of all anew.
pub const MAX_SERVICE_INSTANCES: u64 = 10_000;
/// Most instances on a node: a change of the node's health is one of each of them, in one Command.
pub const MAX_NODE_INSTANCES: u64 = 1_000;
/// Most alias checks that follow an instance.
pub const MAX_FOLLOWERS: u64 = 32;

impl KeySpan {
    /// All keys that start with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        Self { start: prefix.to_owned(), end: prefix_end(prefix.as_bytes()).into() }
    }

    /// The keys from `start` on and before `end`; empty means open.
    #[must_use]
    pub fn range(start: &str, end: &str) -> Self {
        Self { start: start.to_owned(), end: end.as_bytes().to_vec().into() }
    }

    /// Whether the span has this key.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        key.as_bytes() >= self.start.as_bytes() && (self.end.is_empty() || key.as_bytes() < &self.end[..])
    }
}

/// The first string after all that start with `prefix`; empty if there is none. UTF-8 never holds 0xFF, so
/// raising the last byte is always possible.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
