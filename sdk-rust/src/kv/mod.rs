//! The KV service: one file a kind of call, each a builder that is awaited.

mod batch;
mod delete;
mod get;
mod history;
mod list;
mod operation;
mod options;
mod put;
mod revert;
mod txn;

use bytes::Bytes;
use konsul_proto::v1::kv_client::KvClient;

pub use batch::{BatchDelete, BatchGet, BatchPut};
pub use delete::{Delete, DeleteRange};
pub use get::Get;
pub use history::History;
pub use list::List;
pub use operation::{Compare, DeleteOperation, Operation, PutOperation};
pub(crate) use options::proto_duration;
pub use put::Put;
pub use revert::{Difference, Reverted};
pub use txn::Txn;

use crate::keys::Keys;
use crate::scope::{Scope, scoped};
use crate::transport::Transport;
use crate::watch::{Watch, WatchOptions};

/// Keys and values, their history, and their changes as they happen.
///
/// Every method returns a builder: add what the call needs beyond its first arguments, then `.await` it.
/// Writes carry an idempotency key of their own, so that the attempts of one call happen once.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// let kv = client.kv();
/// let written = kv.put("app/port", "8080").content_type("text/plain").await?;
/// let entry = kv.get("app/port").await?.expect("it was just written");
/// assert_eq!(entry.mod_revision, written.revision);
///
/// // Compare and swap: written only if nobody wrote in between.
/// kv.put("app/port", "8081").if_revision(entry.mod_revision).await?;
///
/// // The past stays readable until it is compacted.
/// let before = kv.get("app/port").at_revision(written.revision).await?;
/// assert_eq!(before, Some(entry));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Kv {
    pub(crate) scope: Scope,
}

scoped!(Kv);

impl Kv {
    /// Reads one key, now or at a past revision.
    pub fn get(&self, key: impl Into<String>) -> Get {
        Get::new(self, key.into())
    }

    /// Lists the keys under a prefix or in a range.
    pub fn list(&self, keys: impl Into<Keys>) -> List {
        List::new(self, keys.into())
    }

    /// Writes one key.
    pub fn put(&self, key: impl Into<String>, value: impl Into<Bytes>) -> Put {
        Put::new(self, key.into(), value.into())
    }

    /// Deletes one key.
    pub fn delete(&self, key: impl Into<String>) -> Delete {
        Delete::new(self, key.into())
    }

    /// Deletes all keys under a prefix or in a range, at one revision.
    pub fn delete_range(&self, keys: impl Into<Keys>) -> DeleteRange {
        DeleteRange::new(self, keys.into())
    }

    /// Reads up to 256 keys at one revision.
    pub fn batch_get<K: Into<String>>(&self, keys: impl IntoIterator<Item = K>) -> BatchGet {
        BatchGet::new(self, keys.into_iter().map(Into::into).collect())
    }

    /// Writes up to 256 keys at one revision, all or none.
    pub fn batch_put(&self, puts: impl IntoIterator<Item = PutOperation>) -> BatchPut {
        BatchPut::new(self, puts.into_iter().collect())
    }

    /// Deletes up to 256 keys at one revision, all or none.
    pub fn batch_delete(&self, deletes: impl IntoIterator<Item = DeleteOperation>) -> BatchDelete {
        BatchDelete::new(self, deletes.into_iter().collect())
    }

    /// Compares, then carries out one of two lists of operations, all at one revision or not at all.
    pub fn txn(&self) -> Txn {
        Txn::new(self)
    }

    /// The versions of one key that are not compacted yet.
    pub fn history(&self, key: impl Into<String>) -> History {
        History::new(self, key.into())
    }

    /// Streams the changes of keys, prefixes and ranges. Connects when it is first polled, and again whenever the
    /// connection breaks.
    pub fn watch(&self, options: WatchOptions) -> Watch {
        Watch::new(self, options)
    }

    /// The generated client over a transport.
    pub(crate) fn stub(transport: Transport, max_message_bytes: usize) -> KvClient<Transport> {
        KvClient::new(transport).max_decoding_message_size(max_message_bytes)
    }
}
