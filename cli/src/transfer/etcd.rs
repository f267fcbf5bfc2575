//! Reads the keys of an etcd v3 server, page by page, all of one revision.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use self::api::kv_client::KvClient;
use super::format::Record;
use crate::failure::Failure;

#[allow(missing_docs, clippy::pedantic)]
mod api {
    tonic::include_proto!("etcdserverpb");
}

/// Keys of the first page. etcd counts all keys that are left for each page, so that small pages of many keys would take ever longer:
/// pages of small keys grow.
const PAGE_KEYS: i64 = 1_000;
/// Keys of the largest page.
const PAGE_MAX_KEYS: i64 = 32_000;
/// A page of fewer bytes is followed by one of more keys, and one of more by one of fewer.
const PAGE_BYTES: usize = 4 << 20;
/// Most bytes of a page, because etcd has no limit of its own: a page of more is asked for again, with fewer keys.
const PAGE_MAX_BYTES: usize = 64 << 20;

/// The keys of an etcd from one on, in order.
pub(super) struct Etcd {
    client: KvClient<Channel>,
    endpoint: String,
    /// The next page begins here; `None` after the last one.
    from: Option<Vec<u8>>,
    end: Vec<u8>,
    /// The revision of the first page, which is that of all; 0 before it.
    revision: i64,
    /// Keys of the next page.
    limit: i64,
    page: VecDeque<api::KeyValue>,
    /// How long it may take to connect, and to answer.
    timeout: Duration,
    /// Keys that are bound to a lease.
    leased: u64,
}

impl Etcd {
    /// Connects to `http://host:port`, for the keys under a prefix that come after a key.
    pub(super) async fn connect(
        endpoint: &str,
        prefix: &str,
        after: &str,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        let name = endpoint.to_owned();
        let failed = |why: String| Failure::Etcd { endpoint: name.clone(), why };
        let url = if endpoint.contains("://") { endpoint.to_owned() } else { format!("http://{endpoint}") };
        let endpoint = Endpoint::from_shared(url).map_err(|error| failed(error.to_string()))?;
        let channel = tokio::time::timeout(timeout, endpoint.connect()).await;
        let channel = channel.map_err(|_| failed(format!("no connection within {timeout:?}")))?;
        let channel = channel.map_err(|error| failed(root(&error)))?;
        let after = [after.as_bytes(), &[0]].concat();
        // An empty key would mean none to etcd.
        let from = prefix.as_bytes().to_vec().max(after);
        Ok(Self {
            client: KvClient::new(channel).max_decoding_message_size(PAGE_MAX_BYTES),
            endpoint: name,
            from: Some(from),
            end: end_of(prefix),
            revision: 0,
            limit: PAGE_KEYS,
            page: VecDeque::new(),
            timeout,
            leased: 0,
        })
    }

    /// How many keys were left out so far, because they are bound to a lease: they are true only as long as somebody is alive.
    pub(super) fn leased(&self) -> u64 {
        self.leased
    }

    pub(super) async fn next(&mut self) -> Result<Option<Record>, Failure> {
        while self.page.is_empty() {
            let Some(from) = self.from.take() else { return Ok(None) };
            self.read(from).await?;
        }
        let Some(entry) = self.page.pop_front() else { return Ok(None) };
        let key = String::from_utf8(entry.key.to_vec()).map_err(|error| {
            let key = String::from_utf8_lossy(error.as_bytes()).into_owned();
            self.failed(format!("key {key:?} is not UTF-8, which keys are here"))
        })?;
        Ok(Some(Record { key, value: entry.value, flags: 0, content_type: String::new() }))
    }

    async fn read(&mut self, from: Vec<u8>) -> Result<(), Failure> {
        let page = self.range(from.into()).await?;
        // Later pages tell the revision that the store has come to meanwhile.
        if self.revision == 0 {
            self.revision = page.header.as_ref().map_or(0, |header| header.revision);
        }
        self.from = page.kvs.last().filter(|_| page.more).map(|last| [&last.key[..], &[0]].concat());
        self.limit = limit_after(self.limit, &page);
        let keys = page.kvs.len();
        self.page = page.kvs.into_iter().filter(|entry| entry.lease == 0).collect();
        self.leased += (keys - self.page.len()) as u64;
        Ok(())
    }

    /// The page from a key on, of fewer keys if that many are too large.
    async fn range(&mut self, from: Bytes) -> Result<api::RangeResponse, Failure> {
        loop {
            let request = api::RangeRequest {
                key: from.clone(),
                range_end: self.end.clone().into(),
                limit: self.limit,
                revision: self.revision,
            };
            let page = tokio::time::timeout(self.timeout, self.client.range(request)).await;
            let page = page.map_err(|_| self.failed(format!("no answer within {:?}", self.timeout)))?;
            match page {
                Ok(page) => return Ok(page.into_inner()),
                // The answer is larger than what is taken of it.
                Err(status) if status.code() == Code::OutOfRange && self.limit > 1 => {
                    self.limit = (self.limit / 8).max(1);
                }
                Err(status) => return Err(self.failed(status.message().to_owned())),
            }
        }
    }

    fn failed(&self, why: String) -> Failure {
        Failure::Etcd { endpoint: self.endpoint.clone(), why }
    }
}

/// How many keys the page after this one shall have.
fn limit_after(limit: i64, page: &api::RangeResponse) -> i64 {
    let bytes: usize = page.kvs.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
    match bytes {
        0..PAGE_BYTES => (limit * 2).min(PAGE_MAX_KEYS),
        _ => (limit / 2).max(1),
    }
}

/// The first key after all that begin with a prefix, as etcd has it: a NUL stands for none.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // UTF-8 never holds 0xFF.
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}

/// The innermost error, which is the one that says what happened.
fn root(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => root(source),
        None => error.to_string(),
    }
}
