//! What the rows may ask of a peer, whichever it is. No row names a peer's own messages; what differs between
//! the peers' APIs is settled in this folder.

pub(crate) mod bare;
pub(crate) mod etcd;
pub(crate) mod konsul;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    /// The floor: a tonic server that stores nothing, spoken to with Konsul's stubs
    Bare,
    /// etcd, the peer to beat
    Etcd,
    /// Konsul
    Konsul,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare",
            Self::Etcd => "etcd",
            Self::Konsul => "konsul",
        })
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Sees every write acknowledged before.
    Linearizable,
    /// Whatever the member has applied (etcd: serializable, Konsul: stale).
    Stale,
}

/// What a compare-and-swap did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CasOutcome {
    /// Whether the key was written.
    pub(crate) succeeded: bool,
    /// The key's modify revision after the call.
    pub(crate) mod_revision: u64,
}

/// One connection to a peer. Clones share the connection.
pub(crate) trait Target: Clone + Send + Sync + 'static {
    /// An open watch.
    type Watch: Watching;

    /// Wraps an open connection.
    fn new(channel: Channel) -> Self;

    /// Writes one key.
    fn put(&mut self, key: String, value: Bytes) -> impl Future<Output = Result<(), Status>> + Send;

    /// Reads one key; `None` when it is not there.
    fn get(
        &mut self,
        key: String,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Option<Bytes>, Status>> + Send;

    /// Writes the key if its modify revision is `mod_revision` (0: it does not exist), otherwise reads its
    /// revision, in one transaction.
    fn cas(
        &mut self,
        key: String,
        mod_revision: u64,
        value: Bytes,
    ) -> impl Future<Output = Result<CasOutcome, Status>> + Send;

    /// Writes up to 100 keys in one transaction.
    fn put_all(&mut self, keys: Vec<String>, value: Bytes)
    -> impl Future<Output = Result<(), Status>> + Send;

    /// Whether this member leads its cluster.
    fn leads(&mut self) -> impl Future<Output = Result<bool, Status>> + Send;

    /// Watches one key on a stream of its own; returns once the peer has confirmed it.
    fn watch(&mut self, key: String) -> impl Future<Output = Result<Self::Watch, Status>> + Send;
}

/// A connection to a peer that has leases and locks.
pub(crate) trait Coordinating: Target {
    /// An open stream of refreshes.
    type Refreshes: Refreshing;
    /// A lock that is held.
    type Held: Send;

    /// Makes a lease that lives so long, in whole seconds.
    fn grant(&mut self, ttl: Duration) -> impl Future<Output = Result<u64, Status>> + Send;

    /// Opens a stream of refreshes with the first of them: a server may answer nothing before it.
    fn keep_alive(&mut self, first: u64) -> impl Future<Output = Result<Self::Refreshes, Status>> + Send;

    /// Waits for a lock.
    fn lock(&mut self, name: String, lease: u64) -> impl Future<Output = Result<Self::Held, Status>> + Send;

    /// Gives a lock up.
    fn unlock(&mut self, held: Self::Held) -> impl Future<Output = Result<(), Status>> + Send;
}

/// An open stream of refreshes.
pub(crate) trait Refreshing: Send + 'static {
    /// Refreshes leases, one message each, or all in one if the peer can and is asked to; waits for the answers.
    fn refresh(&mut self, ids: &[u64], together: bool) -> impl Future<Output = Result<(), Status>> + Send;
}

/// An open watch stream.
pub(crate) trait Watching: Send + 'static {
    /// Waits for the next message with events and appends their values to `values`.
    fn next(&mut self, values: &mut Vec<Bytes>) -> impl Future<Output = Result<(), Status>> + Send;
}

/// Opens one connection, the same way for every peer.
///
/// # Errors
/// When nobody listens at `address`.
pub(crate) async fn connect<T: Target>(address: SocketAddr) -> Result<T, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))?.connect().await.map(T::new)
}

/// A stream that ended although nobody ended it.
fn ended() -> Status {
    Status::aborted("the watch stream ended")
}
