//! Leases, locks and elections as their callers see them.

mod elections;
mod leases;
mod locks;

use std::time::Duration;

use konsul_proto::v1;
use konsul_proto::v1::election_client::ElectionClient;
use konsul_proto::v1::lease_client::LeaseClient;
use konsul_proto::v1::lock_client::LockClient;
use konsul_service::duties::Duties;
use tonic::transport::Channel;

use crate::harness::{Kv, Server, get, refusal, soon, start, start_duties, watch_key, watching};

/// Why a call was refused.
fn reason<T: std::fmt::Debug>(result: Result<T, tonic::Status>) -> String {
    refusal(&result.unwrap_err()).reason
}

struct Coordination {
    server: Server,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
    kv: Kv,
    duties: Option<Duties>,
}

async fn with_duties() -> Coordination {
    coordination(start().await).await
}

async fn coordination(server: Server) -> Coordination {
    let channel = server.channel().await;
    let duties = Some(start_duties(&server, &server.limits));
    let mut lease = LeaseClient::new(channel.clone());
    // Until the leader has read the leases, it can't tell how long they have.
    let refresh = || v1::RefreshRequest { ids: vec![1], ..Default::default() };
    soon(async { while lease.refresh(refresh()).await.is_err() {} }).await;
    Coordination {
        lease,
        lock: LockClient::new(channel.clone()),
        election: ElectionClient::new(channel),
        kv: server.kv().await,
        server,
        duties,
    }
}

impl Coordination {
    async fn grant(&mut self, ttl_ms: u64) -> u64 {
        let request = v1::GrantRequest { ttl: millis(ttl_ms), ..Default::default() };
        self.lease.grant(request).await.unwrap().into_inner().id
    }

    async fn put(&mut self, key: &str, lease: u64) -> Result<(), tonic::Status> {
        let request = v1::PutRequest { key: key.into(), lease, ..Default::default() };
        self.kv.put(request).await.map(|_| ())
    }

    async fn exists(&mut self, key: &str) -> bool {
        self.kv.get(get(key)).await.is_ok()
    }

    /// Returns when so many wait for a lock.
    async fn in_line(&mut self, name: &str, count: u64) {
        let get = || v1::LockGetRequest { name: name.into(), ..Default::default() };
        soon(async {
            while self.lock.get(get()).await.unwrap().into_inner().lock.unwrap().waiting < count {}
        })
        .await;
    }

    /// Returns when a key is gone.
    async fn gone(&mut self, key: &str) {
        let target = v1::WatchTarget { initial_state: true, ..watch_key(1, key) };
        let mut stream = self.kv.watch(watching(vec![target])).await.unwrap().into_inner();
        let mut is_there = false;
        soon(async {
            while let Some(message) = stream.message().await.unwrap() {
                is_there |= !message.entries.is_empty();
                let is_deleted = message.events.iter().any(|e| e.r#type() == v1::watch_event::Type::Delete);
                if is_deleted || (message.kind() == v1::watch_response::Kind::Synced && !is_there) {
                    return;
                }
            }
        })
        .await;
    }
}

fn millis(ms: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(ms)).ok()
}

fn lock(name: &str, lease: u64) -> v1::LockRequest {
    v1::LockRequest { name: name.into(), lease, ..Default::default() }
}

fn unlock(name: &str, lease: u64) -> v1::UnlockRequest {
    v1::UnlockRequest { name: name.into(), lease, ..Default::default() }
}

#[tokio::test]
async fn leases_and_locks_are_listed_in_pages() {
    let mut c = with_duties().await;
    for id in 1..=5 {
        let request = v1::GrantRequest { ttl: millis(60_000), id, ..Default::default() };
        c.lease.grant(request).await.unwrap();
        c.lock.lock(lock(&format!("l{id}"), id)).await.unwrap();
    }
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::LeaseListRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = c.lease.list(request).await.unwrap().into_inner();
        ids.extend(page.leases.iter().map(|lease| lease.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = v1::LockListRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = c.lock.list(request).await.unwrap().into_inner();
        names.extend(page.locks.iter().map(|lock| lock.name.clone()));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["l1", "l2", "l3", "l4", "l5"]);
}
