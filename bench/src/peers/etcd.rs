//! etcd, through stubs generated from `proto/etcd.proto` and `proto/etcd_lock.proto`.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use self::api::kv_client::KvClient;
use self::api::lease_client::LeaseClient;
use self::api::maintenance_client::MaintenanceClient;
use self::api::watch_client::WatchClient;
use self::lock_api::lock_client::LockClient;
use super::{CasOutcome, Coordinating, Freshness, Refreshing, Target, Watching, ended};

#[allow(missing_docs)]
mod api {
    tonic::include_proto!("etcdserverpb");
}

#[allow(missing_docs)]
mod lock_api {
    tonic::include_proto!("v3lockpb");
}

/// Requests of one stream that wait to be sent.
const WAITING: usize = 1_024;

/// A connection to etcd.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
}

/// An open stream of refreshes on etcd.
#[derive(Debug)]
pub(crate) struct EtcdRefreshes {
    requests: mpsc::Sender<api::LeaseKeepAliveRequest>,
    answers: Streaming<api::LeaseKeepAliveResponse>,
}

/// An open watch on etcd.
#[derive(Debug)]
pub(crate) struct EtcdWatch(Streaming<api::WatchResponse>);

impl Target for Etcd {
    type Watch = EtcdWatch;

    fn new(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            lock: LockClient::new(channel),
        }
    }

    async fn put(&mut self, key: String, value: Bytes) -> Result<(), Status> {
        self.kv.put(api::PutRequest { key: key.into(), value }).await.map(|_| ())
    }

    async fn get(&mut self, key: String, freshness: Freshness) -> Result<Option<Bytes>, Status> {
        let request = api::RangeRequest { key: key.into(), serializable: freshness == Freshness::Stale };
        let mut response = self.kv.range(request).await?.into_inner();
        Ok(response.kvs.pop().map(|entry| entry.value))
    }

    async fn cas(&mut self, key: String, mod_revision: u64, value: Bytes) -> Result<CasOutcome, Status> {
        let key = Bytes::from(key);
        let revision = i64::try_from(mod_revision).map_err(|_| Status::out_of_range("revision"))?;
        let compare = api::Compare {
            result: api::compare::CompareResult::Equal.into(),
            target: api::compare::CompareTarget::Mod.into(),
            key: key.clone(),
            target_union: Some(api::compare::TargetUnion::ModRevision(revision)),
        };
        let read = api::RangeRequest { key: key.clone(), serializable: false };
        let request = api::TxnRequest {
            compare: vec![compare],
            success: vec![put(key, value)],
            failure: vec![api::RequestOp { request: Some(api::request_op::Request::RequestRange(read)) }],
        };
        let response = self.kv.txn(request).await?.into_inner();
        let mod_revision = if response.succeeded {
            response.header.map(|header| header.revision)
        } else {
            found_revision(&response)
        };
        let mod_revision = u64::try_from(mod_revision.unwrap_or(0)).unwrap_or(0);
        Ok(CasOutcome { succeeded: response.succeeded, mod_revision })
    }

    async fn put_all(&mut self, keys: Vec<String>, value: Bytes) -> Result<(), Status> {
        let success = keys.into_iter().map(|key| put(key.into(), value.clone())).collect();
        let request = api::TxnRequest { success, ..Default::default() };
        self.kv.txn(request).await.map(|_| ())
    }

    async fn leads(&mut self) -> Result<bool, Status> {
        let status = self.maintenance.status(api::StatusRequest {}).await?.into_inner();
        Ok(status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader))
    }

    async fn watch(&mut self, key: String) -> Result<EtcdWatch, Status> {
        let create = api::WatchCreateRequest { key: key.into() };
        let request = api::WatchRequest {
            request_union: Some(api::watch_request::RequestUnion::CreateRequest(create)),
        };
        // The request stream stays open: its end would end the watch.
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let mut stream = self.watch.watch(requests).await?.into_inner();
        let opened = stream.message().await?.ok_or_else(ended)?;
        if !opened.created || opened.canceled {
            return Err(Status::aborted(format!("etcd refused the watch: {}", opened.cancel_reason)));
        }
        Ok(EtcdWatch(stream))
    }
}

impl Coordinating for Etcd {
    type Refreshes = EtcdRefreshes;
    /// The key of its claim.
    type Held = Bytes;

    async fn grant(&mut self, ttl: Duration) -> Result<u64, Status> {
        let ttl = ttl.as_secs() as i64;
        let granted = self.lease.lease_grant(api::LeaseGrantRequest { ttl, id: 0 }).await?.into_inner();
        u64::try_from(granted.id).map_err(|_| Status::out_of_range(granted.error))
    }

    async fn keep_alive(&mut self, first: u64) -> Result<EtcdRefreshes, Status> {
        let (requests, sent) = mpsc::channel(WAITING);
        let id = i64::try_from(first).map_err(|_| Status::out_of_range("lease"))?;
        requests.send(api::LeaseKeepAliveRequest { id }).await.map_err(|_| ended())?;
        let mut answers = self.lease.lease_keep_alive(ReceiverStream::new(sent)).await?.into_inner();
        answers.message().await?.ok_or_else(ended)?;
        Ok(EtcdRefreshes { requests, answers })
    }

    async fn lock(&mut self, name: String, lease: u64) -> Result<Bytes, Status> {
        let lease = i64::try_from(lease).map_err(|_| Status::out_of_range("lease"))?;
        let request = lock_api::LockRequest { name: name.into(), lease };
        Ok(self.lock.lock(request).await?.into_inner().key)
    }

    async fn unlock(&mut self, key: Bytes) -> Result<(), Status> {
        self.lock.unlock(lock_api::UnlockRequest { key }).await.map(|_| ())
    }
}

impl Refreshing for EtcdRefreshes {
    async fn refresh(&mut self, ids: &[u64], _together: bool) -> Result<(), Status> {
        for id in ids {
            let id = i64::try_from(*id).map_err(|_| Status::out_of_range("lease"))?;
            self.requests.send(api::LeaseKeepAliveRequest { id }).await.map_err(|_| ended())?;
        }
        for _ in ids {
            let answer = self.answers.message().await?.ok_or_else(ended)?;
            if answer.ttl == 0 {
                return Err(Status::not_found("a lease"));
            }
        }
        Ok(())
    }
}

impl Watching for EtcdWatch {
    async fn next(&mut self, values: &mut Vec<Bytes>) -> Result<(), Status> {
        let message = self.0.message().await?.ok_or_else(ended)?;
        if message.canceled {
            return Err(Status::aborted(format!("etcd ended the watch: {}", message.cancel_reason)));
        }
        values.extend(message.events.into_iter().filter_map(|event| event.kv).map(|kv| kv.value));
        Ok(())
    }
}

/// A put as an operation of a transaction.
fn put(key: Bytes, value: Bytes) -> api::RequestOp {
    api::RequestOp { request: Some(api::request_op::Request::RequestPut(api::PutRequest { key, value })) }
}

/// The modify revision that a transaction's read found.
fn found_revision(response: &api::TxnResponse) -> Option<i64> {
    match response.responses.first()?.response.as_ref()? {
        api::response_op::Response::ResponseRange(range) => Some(range.kvs.first()?.mod_revision),
        api::response_op::Response::ResponsePut(_) => None,
    }
}
