//! What several builders offer in the same words, as macros. No builder of its own.

use std::time::Duration;

use konsul_proto::v1::{Consistency, ReadOptions};

/// A duration as the proto has it; what does not fit is the longest there is, which the server refuses.
pub(crate) fn proto_duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// Asks for a read from what the member has applied.
pub(super) fn stale(read: &mut Option<ReadOptions>, max_staleness: Option<Duration>) {
    let read = read.get_or_insert_default();
    read.consistency = Consistency::Stale.into();
    if let Some(bound) = max_staleness {
        read.max_staleness = Some(proto_duration(bound));
    }
}

/// Makes a builder awaitable: `builder.await` sends it.
macro_rules! awaitable {
    ($builder:ty => $output:ty) => {
        impl std::future::IntoFuture for $builder {
            type Output = Result<$output, crate::error::Error>;
            type IntoFuture = std::pin::Pin<Box<dyn std::future::Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}

/// How a read is served; the builder has a `request` with a field `read`.
macro_rules! read_options {
    () => {
        /// Reads at once what the member has applied, even if it lags behind (CONSISTENCY_STALE).
        /// Default: linearizable, which sees every write acknowledged before.
        pub fn stale(mut self) -> Self {
            crate::kv::options::stale(&mut self.request.read, None);
            self
        }

        /// Like [`stale`](Self::stale), but refused (UNAVAILABLE) when the member has had no contact to the leader for longer
        /// than this. Range: 1 ms to 24 h.
        pub fn max_staleness(mut self, bound: std::time::Duration) -> Self {
            crate::kv::options::stale(&mut self.request.read, Some(bound));
            self
        }

        /// Waits until the member has applied this revision, up to the call's deadline: reads its own writes on any member.
        pub fn min_revision(mut self, revision: u64) -> Self {
            self.request.read.get_or_insert_default().min_revision = revision;
            self
        }
    };
}

/// What must hold for a write to happen; `$($path).+` is an `Option<Precondition>` of the builder. Conditions add up.
macro_rules! preconditions {
    ($($path:ident).+) => {
        /// Only if the key does not exist.
        pub fn if_absent(mut self) -> Self {
            self.$($path).+.get_or_insert_default().exists = Some(false);
            self
        }

        /// Only if the key exists.
        pub fn if_exists(mut self) -> Self {
            self.$($path).+.get_or_insert_default().exists = Some(true);
            self
        }

        /// Only if the key's modify revision is this; 0 means that it must not exist.
        pub fn if_revision(mut self, mod_revision: u64) -> Self {
            self.$($path).+.get_or_insert_default().mod_revision = Some(mod_revision);
            self
        }

        /// Only if the key's version is this; 0 means that it must not exist.
        pub fn if_version(mut self, version: u64) -> Self {
            self.$($path).+.get_or_insert_default().version = Some(version);
            self
        }

        /// Only if the key is bound to this lease; 0 means to none.
        pub fn if_lease(mut self, id: u64) -> Self {
            self.$($path).+.get_or_insert_default().lease = Some(id);
            self
        }

        /// Only if a lock or an election is held under a token: see [`LockGuard::fence`](crate::LockGuard::fence) and
        /// [`Leadership::fence`](crate::Leadership::fence). Refused with reason LOCK_NOT_HELD otherwise.
        pub fn fence(mut self, fence: crate::proto::Fence) -> Self {
            self.$($path).+.get_or_insert_default().fence = Some(fence);
            self
        }

        /// Only if the key's value is this.
        pub fn if_value(mut self, value: impl Into<bytes::Bytes>) -> Self {
            self.$($path).+.get_or_insert_default().value = Some(value.into());
            self
        }
    };
}

/// The idempotency key of a write; the builder has a field `idempotency_key`.
macro_rules! idempotency_key {
    () => {
        /// Names this write, in 1 to 128 printable ASCII characters. A write repeated with the same key within ten minutes
        /// changes nothing and returns the first outcome, even from another process. Default: a fresh UUID, which
        /// covers the attempts of this one call.
        pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
            self.idempotency_key = Some(key.into());
            self
        }
    };
}

pub(super) use {awaitable, idempotency_key, preconditions, read_options};
