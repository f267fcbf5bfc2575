//! TCP and UDP checks.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use konsul_checks::{Probe, Status};

use crate::fixture::{BRIEF, PATIENCE, Target, closed, is, probe, prober};

/// Answers each datagram with what a function makes of it.
fn answering(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                socket.send_to(&answer, from).unwrap();
            }
        }
    });
    address
}

fn udp(address: &str, payload: &'static str, expect: &'static str) -> Probe {
    Probe::udp(address, payload.into(), expect.into()).unwrap()
}

#[tokio::test]
async fn a_tcp_connection_is_opened_or_not() {
    let target = Target::says("").await;
    let address = target.address;
    let told = probe(&Probe::tcp(&address.to_string(), None).unwrap()).await;
    assert_eq!((told.status, told.output), (Status::Passing, format!("TCP connect {address}: ok")));
    let by_name = format!("localhost:{}", address.port());
    is(&probe(&Probe::tcp(&by_name, None).unwrap()).await, Status::Passing, "TCP connect localhost:");
    let (address, _client, _server) = closed();
    let told = probe(&Probe::tcp(&address.to_string(), None).unwrap()).await;
    let expected = format!("TCP connect {address}: connection refused (127.0.0.1)");
    assert_eq!((told.status, told.output), (Status::Critical, expected));
}

#[tokio::test]
async fn a_datagram_that_is_to_be_answered() {
    let echo = answering(|asked| Some([b"you said ", asked].concat()));
    is(&probe(&udp(&echo, "ping", "said ping")).await, Status::Passing, "answered\nyou said ping");
    is(
        &probe(&udp(&echo, "ping", "pong\0")).await,
        Status::Critical,
        "answered without \"pong\\x00\"\nyou said ping",
    );
    let mute = answering(|_| None);
    let told = prober().probe(&udp(&mute, "ping", "pong"), BRIEF).await;
    is(&told, Status::Critical, &format!("UDP {mute}: timed out after 300ms waiting for an answer"));
}

#[tokio::test]
async fn a_datagram_that_needs_no_answer() {
    let mute = answering(|_| None);
    for (timeout, most) in [(BRIEF, BRIEF), (PATIENCE, Duration::from_secs(1))] {
        let started = Instant::now();
        let told = prober().probe(&udp(&mute, "", ""), timeout).await;
        is(&told, Status::Passing, &format!("UDP {mute}: not refused, no answer"));
        assert!(started.elapsed() < most + Duration::from_secs(5));
    }
    let echo = answering(|_| Some(b"here".to_vec()));
    is(&probe(&udp(&echo, "", "")).await, Status::Passing, "answered\nhere");
}

#[tokio::test]
async fn a_datagram_that_is_refused() {
    // A port that is taken by a socket which hears only itself: others are refused, and nobody else gets it.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    for expect in ["", "pong"] {
        let told = probe(&udp(&address, "ping", expect)).await;
        is(&told, Status::Critical, &format!("UDP {address}: connection refused (127.0.0.1)"));
    }
}

#[tokio::test]
async fn a_long_answer_is_looked_at_as_far_as_4_kib() {
    let long = answering(|_| Some(vec![b'x'; 9000]));
    let told = probe(&udp(&long, "", "xxx")).await;
    is(&told, Status::Passing, "answered\nxxx");
    assert_eq!(told.output.len(), 4096);
}
