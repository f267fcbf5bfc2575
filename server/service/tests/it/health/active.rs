//! Checks that the server carries out itself, of targets of our own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use konsul_proto::v1::{self, HealthStatus, check::Kind};

use super::{Checks, checks, millis};

/// An HTTP server that answers with one status, and counts.
struct Target {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Target {
    fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (status, asked) = (Arc::new(AtomicU16::new(status)), Arc::new(AtomicUsize::new(0)));
        let target = Self { address, status: status.clone(), asked: asked.clone() };
        // Ends with the test's process.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut request = [0; 4_096];
                let _ = connection.read(&mut request);
                asked.fetch_add(1, Relaxed);
                let status = status.load(Relaxed);
                let answer =
                    format!("HTTP/1.1 {status} -\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello");
                let _ = connection.write_all(answer.as_bytes());
            }
        });
        target
    }

    fn check(&self) -> v1::Check {
        let http = v1::HttpCheck { url: format!("http://{}/health", self.address), ..Default::default() };
        every_second(Kind::Http(http))
    }
}

/// Called `ttl`, as all checks that the fixture looks at.
fn every_second(kind: Kind) -> v1::Check {
    v1::Check {
        id: "ttl".into(),
        interval: millis(1_000),
        timeout: millis(500),
        kind: Some(kind),
        ..Default::default()
    }
}

async fn is_in(c: &mut Checks, id: &str, status: HealthStatus) -> v1::CheckInfo {
    c.becomes(id, |check| check.status() == status).await
}

#[tokio::test]
async fn an_http_server_that_fails_and_comes_back() {
    let mut c = checks().await;
    let target = Target::start(200);
    c.register("a", vec![target.check()]).await;
    let told = is_in(&mut c, "a", HealthStatus::Passing).await;
    assert!(told.output.contains("200") && told.output.ends_with("hello"), "{}", told.output);
    target.status.store(503, Relaxed);
    let told = is_in(&mut c, "a", HealthStatus::Critical).await;
    assert!(told.output.contains("503"), "{}", told.output);
    target.status.store(429, Relaxed);
    is_in(&mut c, "a", HealthStatus::Warning).await;
    target.status.store(204, Relaxed);
    is_in(&mut c, "a", HealthStatus::Passing).await;
}

#[tokio::test]
async fn results_that_change_nothing_are_not_written() {
    let mut c = checks().await;
    let target = Target::start(200);
    c.register("a", vec![target.check()]).await;
    is_in(&mut c, "a", HealthStatus::Passing).await;
    let (revision, asked) = (c.server.state.view().unwrap().revision(), target.asked.load(Relaxed));
    // Three rounds later.
    super::soon(async {
        while target.asked.load(Relaxed) < asked + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(c.server.state.view().unwrap().revision(), revision);
}

#[tokio::test]
async fn it_takes_so_many_failures_to_warn_and_to_fail() {
    let mut c = checks().await;
    let target = Target::start(200);
    c.register("a", vec![v1::Check { warns_after: 2, fails_after: 3, ..target.check() }]).await;
    is_in(&mut c, "a", HealthStatus::Passing).await;
    let asked = target.asked.load(Relaxed);
    target.status.store(500, Relaxed);
    is_in(&mut c, "a", HealthStatus::Warning).await;
    assert!(target.asked.load(Relaxed) >= asked + 2);
    is_in(&mut c, "a", HealthStatus::Critical).await;
    assert!(target.asked.load(Relaxed) >= asked + 3);
}

#[tokio::test]
async fn a_port_that_is_closed_and_opened_again() {
    let mut c = checks().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = v1::TcpCheck { address: address.to_string(), tls: None };
    c.register("a", vec![every_second(Kind::Tcp(tcp))]).await;
    is_in(&mut c, "a", HealthStatus::Passing).await;
    drop(listener);
    let told = is_in(&mut c, "a", HealthStatus::Critical).await;
    assert!(told.output.contains(&address.to_string()), "{}", told.output);
    let _listener = TcpListener::bind(address).unwrap();
    is_in(&mut c, "a", HealthStatus::Passing).await;
}

#[tokio::test]
async fn a_target_that_never_answers_is_late() {
    let mut c = checks().await;
    // Takes connections into its backlog, and no more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let http = v1::HttpCheck { url, ..Default::default() };
    c.register(
        "a",
        vec![v1::Check { initial: HealthStatus::Passing.into(), ..every_second(Kind::Http(http)) }],
    )
    .await;
    let told = is_in(&mut c, "a", HealthStatus::Critical).await;
    assert!(told.output.contains("timed out after 500ms"), "{}", told.output);
}

#[tokio::test]
async fn metadata_addresses_are_not_connected_to() {
    let mut c = checks().await;
    let http = v1::HttpCheck { url: "http://169.254.169.254/latest/".into(), ..Default::default() };
    c.register(
        "a",
        vec![v1::Check { initial: HealthStatus::Passing.into(), ..every_second(Kind::Http(http)) }],
    )
    .await;
    let told = is_in(&mut c, "a", HealthStatus::Critical).await;
    assert!(told.output.contains("169.254.169.254"), "{}", told.output);
    assert!(!told.output.contains("timed out"), "{}", told.output);
}

#[tokio::test]
async fn a_check_that_is_gone_is_not_carried_out() {
    let mut c = checks().await;
    let (gone, stays) = (Target::start(200), Target::start(200));
    c.register("a", vec![gone.check()]).await;
    is_in(&mut c, "a", HealthStatus::Passing).await;
    c.register("a", vec![stays.check()]).await;
    is_in(&mut c, "a", HealthStatus::Passing).await;
    // One may have been under way.
    let (of_gone, of_stays) = (gone.asked.load(Relaxed), stays.asked.load(Relaxed));
    super::soon(async {
        while stays.asked.load(Relaxed) < of_stays + 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(gone.asked.load(Relaxed) <= of_gone + 1);
}
