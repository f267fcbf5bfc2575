//! Three servers that share the active checks of a catalog, and go on with them when one is killed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use konsul_proto::v1::catalog_client::CatalogClient;
use konsul_proto::v1::{HealthStatus, ListInstancesRequest};

use crate::konsul::LIMIT;
use crate::members::Trio;
use crate::server::Server;

const INSTANCES: usize = 60;
const INTERVAL: Duration = Duration::from_secs(1);

/// An HTTP server whose status is settable, and which counts.
struct Target {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Target {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Self { address, status: Arc::new(AtomicU16::new(200)), asked: Arc::default() };
        let (status, asked) = (target.status.clone(), target.asked.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4_096]);
                asked.fetch_add(1, Relaxed);
                let status = status.load(Relaxed);
                let answer = format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        target
    }
}

fn register(server: &Server, id: &str, target: &Target) {
    let (port, url) = (target.address.port().to_string(), format!("http://{}/{id}", target.address));
    let place = ["service", "register", "web", "--id", id, "--address", "127.0.0.1", "--port", &port];
    server.ok(&[&place[..], &["--http", &url, "--interval", "1s"]].concat());
}

/// Waits until all instances are so.
async fn all_are(server: &Server, status: HealthStatus) {
    let began = Instant::now();
    loop {
        let request =
            ListInstancesRequest { service: "web".into(), page_size: INSTANCES as u32, ..Default::default() };
        // While there is no leader nothing is told.
        if let Ok(told) = CatalogClient::new(server.channel()).list_instances(request).await {
            let instances = told.into_inner().instances;
            if instances.len() == INSTANCES && instances.iter().all(|i| i.health() == status) {
                return;
            }
        }
        assert!(began.elapsed() < LIMIT, "not all instances are {status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn members_share_active_checks_and_those_of_a_dead_one_move() {
    let mut trio = Trio::start(None).await;
    let target = Target::start();
    for i in 0..INSTANCES {
        register(&trio.servers[0], &format!("web-{i}"), &target);
    }
    all_are(&trio.servers[0], HealthStatus::Passing).await;

    // Never oftener than each interval by one member. If all carried out all, it would be three times as often.
    let (began, before) = (Instant::now(), target.asked.load(Relaxed));
    while target.asked.load(Relaxed) < before + 4 * INSTANCES {
        assert!(began.elapsed() < LIMIT, "checks are not carried out");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rounds = began.elapsed().as_secs_f64() / INTERVAL.as_secs_f64();
    assert!(rounds > 2.0, "four rounds in the time of {rounds}: checks are carried out several times");

    let leader = trio.leader().await;
    let follower = (leader + 1) % trio.servers.len();
    trio.servers[follower].kill();
    target.status.store(503, Relaxed);
    all_are(&trio.servers[leader], HealthStatus::Critical).await;
    trio.servers[follower].restart();

    trio.servers[leader].kill();
    target.status.store(200, Relaxed);
    all_are(&trio.servers[follower], HealthStatus::Passing).await;
}
