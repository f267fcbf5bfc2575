//! What a call and a watch event cost the server in CPU: a Door on a thread of its own, clients on others.
//! `cargo run --release -p konsul-service --example call_cost`. No part of the product.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use konsul_proto::v1::kv_client::KvClient;
use konsul_proto::v1::{GetRequest, PutRequest, WatchRequest, WatchTarget, watch_target};
use konsul_service::{About, Door, Limits, Parts, Readers};
use konsul_state::propose::Solo;
use konsul_state::{Durability, Persistence, StoreOptions};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tonic::transport::{Channel, Endpoint};

type Failure = Box<dyn Error + Send + Sync>;

const CALLS: usize = 30_000;
const IN_FLIGHT: usize = 256;
const CONNECTIONS: usize = 8;
const WATCHERS: usize = 1_000;
const WRITES: usize = 300;

fn main() -> Result<(), Failure> {
    for (name, watch_shared_bytes) in [("shared", Limits::default().watch_shared_bytes), ("not shared", 0)] {
        let (tell, told) = channel();
        let limits = Limits { watch_shared_bytes, ..Limits::default() };
        std::thread::spawn(move || serve(limits, tell));
        let (address, schedstat) = told.recv()?;
        let server_cpu = || -> Result<u64, Failure> {
            let text = std::fs::read_to_string(&schedstat)?;
            Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let channels = runtime.block_on(connect(address))?;
        for kind in ["put", "get"] {
            let (cpu, began) = (server_cpu()?, Instant::now());
            runtime.block_on(calls(&channels, kind == "put"))?;
            report(kind, server_cpu()? - cpu, began.elapsed(), CALLS);
        }
        let (cpu, took) = runtime.block_on(fan_out(&channels, &server_cpu))?;
        report(&format!("event, encodings {name}"), cpu, took, WATCHERS * WRITES);
    }
    Ok(())
}

fn report(what: &str, cpu_ns: u64, took: Duration, n: usize) {
    let per_second = n as f64 / took.as_secs_f64();
    println!("{what}: {:.2} us of server CPU, {per_second:.0}/s", cpu_ns as f64 / 1e3 / n as f64);
}

/// Serves on this thread, and tells its address and where its CPU time can be read.
fn serve(limits: Limits, tell: Sender<(SocketAddr, String)>) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let options = StoreOptions {
        dir: dir.path().to_owned(),
        map_bytes: 4 << 30,
        persistence: Persistence::Memory,
        durability: Durability::Log,
        boot_id: String::new(),
    };
    let (state, writer, _) = konsul_state::store::open(options)?;
    let readers = Readers::new(state.clone(), limits.clone())?;
    let parts = Parts {
        propose: Arc::new(Solo::new(state.clone(), writer, readers.clone())),
        state,
        readers,
        limits,
        about: About { version: String::new(), persistence: "memory" },
        compacted: Arc::new(Notify::new()),
        observer: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (door, _health) = Door::new(parts).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let thread = std::fs::read_link("/proc/thread-self")?;
        tell.send((listener.local_addr()?, format!("/proc/{}/schedstat", thread.display())))?;
        loop {
            let (connection, _) = listener.accept().await?;
            connection.set_nodelay(true)?;
            let service = TowerToHyperService::new(door.clone());
            tokio::spawn(async move {
                let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
                builder.http2().max_concurrent_streams(10_000);
                builder.serve_connection(TokioIo::new(connection), service).await
            });
        }
    })
}

async fn connect(address: SocketAddr) -> Result<Vec<Channel>, Failure> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?);
    }
    Ok(channels)
}

async fn calls(channels: &[Channel], put: bool) -> Result<(), Failure> {
    let mut tasks = Vec::new();
    for i in 0..IN_FLIGHT {
        let mut kv = KvClient::new(channels[i % CONNECTIONS].clone());
        tasks.push(tokio::spawn(async move {
            for j in 0..CALLS / IN_FLIGHT {
                let key = format!("bench/some/longer/path/{:08}", (i * 7919 + j) % 10_000);
                if put {
                    let value = vec![b'v'; 128].into();
                    kv.put(PutRequest { key, value, ..Default::default() }).await?;
                } else if let Err(status) = kv.get(GetRequest { key, ..Default::default() }).await
                    && status.code() != tonic::Code::NotFound
                {
                    return Err(status);
                }
            }
            Ok::<_, tonic::Status>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn fan_out(
    channels: &[Channel],
    server_cpu: &impl Fn() -> Result<u64, Failure>,
) -> Result<(u64, Duration), Failure> {
    let mut tasks = Vec::new();
    for i in 0..WATCHERS {
        let mut kv = KvClient::new(channels[i % CONNECTIONS].clone());
        let selector = Some(watch_target::Selector::Key("watched".into()));
        let targets = vec![WatchTarget { id: 1, selector, ..Default::default() }];
        let mut stream = kv.watch(WatchRequest { targets, ..Default::default() }).await?.into_inner();
        stream.message().await?;
        tasks.push(tokio::spawn(async move {
            let mut seen = 0;
            while seen < WRITES {
                seen += stream.message().await?.map_or(WRITES, |message| message.events.len());
            }
            Ok::<_, tonic::Status>(())
        }));
    }
    let (cpu, began) = (server_cpu()?, Instant::now());
    let mut kv = KvClient::new(channels[0].clone());
    for _ in 0..WRITES {
        let value = vec![b'v'; 128].into();
        kv.put(PutRequest { key: "watched".into(), value, ..Default::default() }).await?;
    }
    for task in tasks {
        task.await??;
    }
    Ok((server_cpu()? - cpu, began.elapsed()))
}
