//! Konsul, through the raw stubs of konsul-proto.

use std::time::Duration;

use bytes::Bytes;
use konsul_proto::v1;
use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::kv_client::KvClient;
use konsul_proto::v1::lease_client::LeaseClient;
use konsul_proto::v1::lock_client::LockClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::{CasOutcome, Coordinating, Freshness, Refreshing, Target, Watching, ended};

/// A connection to Konsul, or to the bare server, which speaks the same.
#[derive(Debug, Clone)]
pub(crate) struct Konsul {
    kv: KvClient<Channel>,
    admin: AdminClient<Channel>,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
}

/// Requests of one stream that wait to be sent.
const WAITING: usize = 1_024;
/// Deletes of one call.
const DELETES: usize = 256;

/// An open stream of refreshes on Konsul.
#[derive(Debug)]
pub(crate) struct KonsulRefreshes {
    requests: mpsc::Sender<v1::KeepAliveRequest>,
    answers: Streaming<v1::KeepAliveResponse>,
}

/// An open watch on Konsul.
#[derive(Debug)]
pub(crate) struct KonsulWatch(Streaming<v1::WatchResponse>);

impl Konsul {
    /// Writes one key with an idempotency key, as Konsul's SDKs do.
    ///
    /// # Errors
    /// The server's status; INVALID_ARGUMENT when the idempotency key is not printable ASCII.
    pub(crate) async fn put_idempotent(&mut self, key: String, value: Bytes, id: &str) -> Result<(), Status> {
        let id = AsciiMetadataValue::try_from(id)
            .map_err(|_| Status::invalid_argument("the idempotency key is not printable ASCII"))?;
        let mut request = Request::new(v1::PutRequest { key, value, ..Default::default() });
        request.metadata_mut().insert("idempotency-key", id);
        self.kv.put(request).await.map(|_| ())
    }
}

/// What a store takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Bytes that hold data.
    pub(crate) used: u64,
    /// Bytes of its file on the disk.
    pub(crate) file: u64,
}

/// What an operator asks for.
impl Konsul {
    /// How many leases there are, up to a page of them.
    ///
    /// # Errors
    /// The server's status.
    pub(crate) async fn leases(&mut self) -> Result<usize, Status> {
        Ok(self.lease.list(v1::LeaseListRequest::default()).await?.into_inner().leases.len())
    }

    /// Reads a backup; how many bytes it has.
    ///
    /// # Errors
    /// The server's status.
    pub(crate) async fn snapshot(&mut self) -> Result<u64, Status> {
        let mut pieces = self.admin.snapshot(v1::SnapshotRequest::default()).await?.into_inner();
        let mut bytes = 0;
        while let Some(piece) = pieces.message().await? {
            bytes += piece.chunk.len() as u64;
        }
        Ok(bytes)
    }

    /// Deletes keys, as many at a time as one call takes.
    ///
    /// # Errors
    /// The server's status.
    pub(crate) async fn delete_all(&mut self, keys: Vec<String>) -> Result<(), Status> {
        for keys in keys.chunks(DELETES) {
            let delete = |key: &String| v1::DeleteOperation { key: key.clone(), ..Default::default() };
            let deletes = keys.iter().map(delete).collect();
            self.kv.batch_delete(v1::BatchDeleteRequest { deletes, ..Default::default() }).await?;
        }
        Ok(())
    }

    /// Compacts all history there is.
    ///
    /// # Errors
    /// The server's status.
    pub(crate) async fn compact(&mut self) -> Result<(), Status> {
        let revision = self.admin.status(v1::StatusRequest {}).await?.into_inner().revision;
        self.admin.compact(v1::CompactRequest { revision }).await.map(|_| ())
    }

    /// Shrinks the store's file.
    ///
    /// # Errors
    /// The server's status.
    pub(crate) async fn defragment(&mut self) -> Result<(), Status> {
        self.admin.defragment(v1::DefragmentRequest {}).await.map(|_| ())
    }

    /// What the store takes.
    ///
    /// # Errors
    /// The server's status.
    pub(crate) async fn size(&mut self) -> Result<Size, Status> {
        let status = self.admin.status(v1::StatusRequest {}).await?.into_inner();
        Ok(Size { used: status.store_used_bytes, file: status.store_file_bytes })
    }
}

impl Target for Konsul {
    type Watch = KonsulWatch;

    fn new(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()),
            admin: AdminClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            lock: LockClient::new(channel),
        }
    }

    async fn put(&mut self, key: String, value: Bytes) -> Result<(), Status> {
        self.kv.put(v1::PutRequest { key, value, ..Default::default() }).await.map(|_| ())
    }

    async fn get(&mut self, key: String, freshness: Freshness) -> Result<Option<Bytes>, Status> {
        let read = match freshness {
            Freshness::Linearizable => None,
            Freshness::Stale => {
                Some(v1::ReadOptions { consistency: v1::Consistency::Stale.into(), ..Default::default() })
            }
        };
        match self.kv.get(v1::GetRequest { key, read, ..Default::default() }).await {
            Ok(response) => Ok(response.into_inner().entry.map(|entry| entry.value)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn cas(&mut self, key: String, mod_revision: u64, value: Bytes) -> Result<CasOutcome, Status> {
        let compare = v1::Compare {
            key: key.clone(),
            operator: v1::compare::Operator::Equal.into(),
            target: Some(v1::compare::Target::ModRevision(mod_revision)),
        };
        let read = v1::operation::Operation::Get(v1::GetOperation { key: key.clone() });
        let request = v1::TxnRequest {
            compare: vec![compare],
            then: vec![put(key, value)],
            otherwise: vec![v1::Operation { operation: Some(read) }],
            ..Default::default()
        };
        let response = self.kv.txn(request).await?.into_inner();
        let mod_revision =
            if response.succeeded { response.revision } else { found_revision(&response).unwrap_or(0) };
        Ok(CasOutcome { succeeded: response.succeeded, mod_revision })
    }

    async fn put_all(&mut self, keys: Vec<String>, value: Bytes) -> Result<(), Status> {
        let then = keys.into_iter().map(|key| put(key, value.clone())).collect();
        self.kv.txn(v1::TxnRequest { then, ..Default::default() }).await.map(|_| ())
    }

    async fn leads(&mut self) -> Result<bool, Status> {
        let status = self.admin.status(v1::StatusRequest {}).await?.into_inner();
        Ok(status.leader_id != 0 && status.leader_id == status.member_id)
    }

    async fn watch(&mut self, key: String) -> Result<KonsulWatch, Status> {
        let target =
            v1::WatchTarget { selector: Some(v1::watch_target::Selector::Key(key)), ..Default::default() };
        let request = v1::WatchRequest { targets: vec![target], ..Default::default() };
        let mut stream = self.kv.watch(request).await?.into_inner();
        let opened = stream.message().await?.ok_or_else(ended)?;
        if opened.kind() != v1::watch_response::Kind::Opened {
            return Err(Status::aborted(format!("the watch began with {:?}", opened.kind())));
        }
        Ok(KonsulWatch(stream))
    }
}

impl Coordinating for Konsul {
    type Refreshes = KonsulRefreshes;
    /// The lock's name, and the lease it is held under.
    type Held = (String, u64);

    async fn grant(&mut self, ttl: Duration) -> Result<u64, Status> {
        let ttl = prost_types::Duration::try_from(ttl).ok();
        let request = v1::GrantRequest { ttl, ..Default::default() };
        Ok(self.lease.grant(request).await?.into_inner().id)
    }

    async fn keep_alive(&mut self, first: u64) -> Result<KonsulRefreshes, Status> {
        let (requests, sent) = mpsc::channel(WAITING);
        let request = v1::KeepAliveRequest { ids: vec![first], ..Default::default() };
        requests.send(request).await.map_err(|_| ended())?;
        let mut answers = self.lease.keep_alive(ReceiverStream::new(sent)).await?.into_inner();
        answers.message().await?.ok_or_else(ended)?;
        Ok(KonsulRefreshes { requests, answers })
    }

    async fn lock(&mut self, name: String, lease: u64) -> Result<(String, u64), Status> {
        let request = v1::LockRequest { name: name.clone(), lease, ..Default::default() };
        self.lock.lock(request).await.map(|_| (name, lease))
    }

    async fn unlock(&mut self, (name, lease): (String, u64)) -> Result<(), Status> {
        let request = v1::UnlockRequest { name, lease, ..Default::default() };
        self.lock.unlock(request).await.map(|_| ())
    }
}

impl Refreshing for KonsulRefreshes {
    async fn refresh(&mut self, ids: &[u64], together: bool) -> Result<(), Status> {
        let a_message = if together { ids.len() } else { 1 };
        for ids in ids.chunks(a_message) {
            let request = v1::KeepAliveRequest { ids: ids.to_vec(), ..Default::default() };
            self.requests.send(request).await.map_err(|_| ended())?;
        }
        let mut answered = 0;
        while answered < ids.len() {
            let answer = self.answers.message().await?.ok_or_else(ended)?;
            if answer.results.iter().any(|result| result.ttl.is_none()) {
                return Err(Status::not_found("a lease"));
            }
            answered += answer.results.len();
        }
        Ok(())
    }
}

impl Watching for KonsulWatch {
    async fn next(&mut self, values: &mut Vec<Bytes>) -> Result<(), Status> {
        let message = self.0.message().await?.ok_or_else(ended)?;
        if message.kind() == v1::watch_response::Kind::Ended {
            return Err(Status::aborted("Konsul ended the watch"));
        }
        let entries = message.events.into_iter().filter_map(|event| event.entry);
        values.extend(entries.map(|entry| entry.value));
        Ok(())
    }
}

/// A put as an operation of a transaction.
fn put(key: String, value: Bytes) -> v1::Operation {
    let put = v1::PutOperation { key, value, ..Default::default() };
    v1::Operation { operation: Some(v1::operation::Operation::Put(put)) }
}

/// The modify revision that a transaction's read found.
fn found_revision(response: &v1::TxnResponse) -> Option<u64> {
    match response.results.first()?.result.as_ref()? {
        v1::operation_result::Result::Get(found) => Some(found.entry.as_ref()?.mod_revision),
        _ => None,
    }
}
