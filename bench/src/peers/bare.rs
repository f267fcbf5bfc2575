//! The floor: a tonic server that speaks Konsul's `KV` and does nothing for it. What it reaches is what the
//! client, HTTP/2 and gRPC leave to any server on this machine. It runs in a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use bytes::Bytes;
use konsul_proto::v1;
use konsul_proto::v1::kv_server::{Kv, KvServer};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::rows::{FAN_OUT_KEY, VALUE_BYTES};

/// Messages a slow stream may be behind before it is ended.
const BROADCAST_CAPACITY: usize = 4096;
/// Connections that may wait to be taken by a runtime.
const ACCEPT_CAPACITY: usize = 64;

/// Serves on a free port of the loopback until it is killed, and writes its address to `address_file`. Each
/// of `runtimes` single-threaded runtimes is given every n-th connection.
///
/// # Errors
/// When it can't listen or can't write the file.
pub(crate) fn serve(address_file: &Path, runtimes: usize) -> Result<()> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let service = BareKv { changes: broadcast::channel(BROADCAST_CAPACITY).0 };
    let mut serving = Vec::new();
    for _ in 0..runtimes.max(1) {
        let (sender, accepted) = mpsc::channel::<std::net::TcpStream>(ACCEPT_CAPACITY);
        let service = service.clone();
        thread::spawn(move || run(service, accepted));
        serving.push(sender);
    }
    crate::process::publish_address(address_file, listener.local_addr()?)?;
    for runtime in serving.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        runtime.blocking_send(stream).context("a runtime of the bare server ended")?;
    }
    Ok(())
}

/// One single-threaded runtime.
fn run(service: BareKv, accepted: mpsc::Receiver<std::net::TcpStream>) -> Result<()> {
    let incoming = ReceiverStream::new(accepted).map(TcpStream::from_std);
    let server = tonic::transport::Server::builder();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(server.serve_with_incoming(KvServer::new(service), incoming))?;
    Ok(())
}

/// `KV` with answers made of nothing.
#[derive(Debug, Clone)]
struct BareKv {
    changes: broadcast::Sender<v1::WatchResponse>,
}

/// What a stream of the bare server yields.
type Changes = std::pin::Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for BareKv {
    type WatchStream = Changes;

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let key = request.into_inner().key;
        let entry = v1::Entry {
            key,
            value: Bytes::from_static(&[0; VALUE_BYTES]),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            ..Default::default()
        };
        Ok(Response::new(v1::GetResponse { revision: 1, entry: Some(entry) }))
    }

    async fn put(&self, request: Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        let put = request.into_inner();
        if put.key == FAN_OUT_KEY {
            let entry = v1::Entry { key: put.key, value: put.value, ..Default::default() };
            let kind = v1::watch_event::Type::Put.into();
            let event = v1::WatchEvent { r#type: kind, entry: Some(entry), previous: None };
            let kind = v1::watch_response::Kind::Events.into();
            let message = v1::WatchResponse { kind, events: vec![event], ..Default::default() };
            // Nobody watching is no error.
            let _ = self.changes.send(message);
        }
        Ok(Response::new(v1::PutResponse { revision: 1, previous: None }))
    }

    // Only the key of the fan-out row ever changes here; any other watch is an idle stream.
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Changes>, Status> {
        let kind = v1::watch_response::Kind::Opened.into();
        let opened = tokio_stream::once(Ok(v1::WatchResponse { kind, ..Default::default() }));
        let target = request.into_inner().targets.pop().and_then(|target| target.selector);
        let stream: Changes = match target {
            Some(v1::watch_target::Selector::Key(key)) if key == FAN_OUT_KEY => {
                let changes = BroadcastStream::new(self.changes.subscribe())
                    .map(|change| change.map_err(|_| Status::out_of_range("the watcher is too slow")));
                Box::pin(opened.chain(changes))
            }
            _ => Box::pin(opened.chain(tokio_stream::pending())),
        };
        Ok(Response::new(stream))
    }

    async fn list(&self, _: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        Err(absent())
    }
    async fn delete(&self, _: Request<v1::DeleteRequest>) -> Result<Response<v1::DeleteResponse>, Status> {
        Err(absent())
    }
    async fn delete_range(
        &self,
        _: Request<v1::DeleteRangeRequest>,
    ) -> Result<Response<v1::DeleteRangeResponse>, Status> {
        Err(absent())
    }
    async fn batch_get(
        &self,
        _: Request<v1::BatchGetRequest>,
    ) -> Result<Response<v1::BatchGetResponse>, Status> {
        Err(absent())
    }
    async fn batch_put(
        &self,
        _: Request<v1::BatchPutRequest>,
    ) -> Result<Response<v1::BatchPutResponse>, Status> {
        Err(absent())
    }
    async fn batch_delete(
        &self,
        _: Request<v1::BatchDeleteRequest>,
    ) -> Result<Response<v1::BatchDeleteResponse>, Status> {
        Err(absent())
    }
    async fn txn(&self, _: Request<v1::TxnRequest>) -> Result<Response<v1::TxnResponse>, Status> {
        Err(absent())
    }
    async fn find_revision(
        &self,
        _: Request<v1::FindRevisionRequest>,
    ) -> Result<Response<v1::FindRevisionResponse>, Status> {
        Err(absent())
    }
    async fn history(&self, _: Request<v1::HistoryRequest>) -> Result<Response<v1::HistoryResponse>, Status> {
        Err(absent())
    }
}

/// What no row asks of the floor.
fn absent() -> Status {
    Status::unimplemented("the bare server only knows Get, Put and Watch")
}
