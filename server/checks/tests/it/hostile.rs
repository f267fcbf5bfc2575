//! Targets that mean harm, or are broken: each check of them ends in time, and says why.

use std::io;
use std::time::{Duration, Instant};

use konsul_checks::{HttpDefinition, Probe, Status, TlsDefinition, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{BRIEF, PATIENCE, Target, is, probe, prober, read_head};

/// Takes a connection and says nothing.
async fn silent() -> Target {
    Target::serve(|mut stream| async move {
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    })
    .await
}

/// Says the beginning, and then a piece after the other without end, as fast as it is taken or at a pace.
async fn endless(beginning: &'static [u8], piece: &'static [u8], pace: Option<Duration>) -> Target {
    Target::serve(move |mut stream| async move {
        read_head(&mut stream).await;
        let _ = say_for_ever(&mut stream, beginning, piece, pace).await;
    })
    .await
}

async fn say_for_ever(
    stream: &mut TcpStream,
    beginning: &[u8],
    piece: &[u8],
    pace: Option<Duration>,
) -> io::Result<()> {
    stream.write_all(beginning).await?;
    loop {
        stream.write_all(piece).await?;
        if let Some(pace) = pace {
            tokio::time::sleep(pace).await;
        }
    }
}

/// Carries a probe out briefly: it must not take much longer than it may.
async fn briefly(probe: &Probe) -> Verdict {
    let started = Instant::now();
    let verdict = prober().probe(probe, BRIEF).await;
    let took = started.elapsed();
    assert!(took >= BRIEF && took < BRIEF + Duration::from_secs(5), "{took:?}: {}", verdict.output);
    verdict
}

#[tokio::test]
async fn a_target_that_never_answers() {
    let target = silent().await;
    let address = target.address.to_string();
    let tls = TlsDefinition { insecure_skip_verify: true, ..TlsDefinition::default() };
    let https = HttpDefinition { url: format!("https://{address}/"), ..HttpDefinition::default() };
    for (probe, phase) in [
        (target.get("/"), " waiting for an answer"),
        (Probe::http(&https).unwrap(), " in the TLS handshake"),
        (Probe::tcp(&address, Some(&tls)).unwrap(), " in the TLS handshake"),
        (Probe::grpc(&address, "", None).unwrap(), " waiting for an answer"),
    ] {
        is(&briefly(&probe).await, Status::Critical, &format!("{probe}: timed out after 300ms{phase}"));
    }
}

#[tokio::test]
async fn a_target_that_takes_no_connection() {
    // A full queue of connections that nobody accepts: the kernel drops what comes after.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(BRIEF, TcpStream::connect(address)).await {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue is never full");
    }
    let probe = Probe::tcp(&address.to_string(), None).unwrap();
    is(&briefly(&probe).await, Status::Critical, "timed out after 300ms connecting");
}

#[tokio::test]
async fn a_target_that_drips() {
    let pace = Some(Duration::from_millis(5));
    let head = endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", pace).await;
    is(&briefly(&head.get("/")).await, Status::Critical, "timed out after 300ms waiting for an answer");
    let body = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", pace).await;
    is(&briefly(&body.get("/")).await, Status::Critical, "timed out after 300ms in the midst of the answer");
    let chunks = endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n", pace).await;
    is(
        &briefly(&chunks.get("/")).await,
        Status::Critical,
        "timed out after 300ms in the midst of the answer",
    );
}

#[tokio::test]
async fn a_target_that_never_stops() {
    for (beginning, piece, status, words) in [
        (&b"HTTP/1.1 200 OK\r\n"[..], &b"x: y\r\n"[..], Status::Critical, "larger than 16 KiB"),
        (
            b"HTTP/1.1 200 OK\r\nx: ",
            b"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy",
            Status::Critical,
            "larger than 16 KiB",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n", Status::Passing, ": 200 OK\nxxx"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", Status::Critical, "sent more than 256 KiB"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"1;xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\nx\r\n",
            Status::Critical,
            "the answer is no HTTP",
        ),
    ] {
        let target = endless(beginning, piece, None).await;
        is(&probe(&target.get("/")).await, status, words);
    }
}

#[tokio::test]
async fn a_grpc_server_that_never_stops() {
    // An empty SETTINGS frame, then those of a ping without end (RFC 9113 §6.5, §6.7).
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let target = Target::serve(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let (mut sink, mut sunk) = (tokio::io::sink(), tokio::io::empty());
        let listening = tokio::io::copy(&mut read, &mut sink);
        let speaking = async {
            tokio::io::copy(&mut sunk, &mut write).await?;
            write.write_all(SETTINGS).await?;
            loop {
                write.write_all(PING).await?;
            }
        };
        let _: (io::Result<u64>, io::Result<()>) = tokio::join!(listening, speaking);
    })
    .await;
    let check = Probe::grpc(&target.address.to_string(), "", None).unwrap();
    is(&probe(&check).await, Status::Critical, "the target sent more than 256 KiB");
}

#[tokio::test]
async fn a_target_that_closes_at_once_or_in_the_midst() {
    let at_once = Target::serve(|stream| async move { drop(stream) }).await;
    let told = probe(&at_once.get("/")).await;
    // What arrives first, the end or the news that what was sent is not wanted, is the kernel's choice.
    let (closed, reset) = ("connection closed before there was an answer", "connection reset by the target");
    assert!(told.output.ends_with(closed) || told.output.ends_with(reset), "{}", told.output);
    assert_eq!(told.status, Status::Critical);
    for (answer, words) in [
        ("HTTP/1.1 200 OK\r\n", closed),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", "connection closed"),
        ("", closed),
    ] {
        is(&probe(&Target::says(answer).await.get("/")).await, Status::Critical, words);
    }
}

#[tokio::test]
async fn a_target_that_speaks_something_else() {
    let ssh = Target::says("SSH-2.0-OpenSSH_9.2p1\r\n").await;
    is(&probe(&ssh.get("/")).await, Status::Critical, "the answer is no HTTP");
    // At once: it would wait for the end of a request that never comes.
    let http = Target::serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
    })
    .await;
    let address = http.address.to_string();
    is(
        &probe(&Probe::grpc(&address, "", None).unwrap()).await,
        Status::Critical,
        &format!("gRPC {address}: the answer is no gRPC"),
    );
    let tls = TlsDefinition { insecure_skip_verify: true, ..TlsDefinition::default() };
    is(&probe(&Probe::tcp(&address, Some(&tls)).unwrap()).await, Status::Critical, "TLS handshake: ");
}

#[tokio::test]
async fn a_target_that_redirects_to_itself_for_ever() {
    let redirect =
        |to: String| format!("HTTP/1.1 301 Moved Permanently\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let itself = Target::answers(move |path| redirect(path.to_owned())).await;
    let turns =
        Target::answers(move |path| redirect(if path == "/a" { "/b".into() } else { "/a".into() })).await;
    for (target, words) in [(&itself, "/a again"), (&turns, "/a again")] {
        let definition =
            HttpDefinition { url: target.url("/a"), follow_redirects: true, ..HttpDefinition::default() };
        let told = probe(&Probe::http(&definition).unwrap()).await;
        is(&told, Status::Critical, "redirected in a circle, to http://");
        assert!(told.output.ends_with(words), "{}", told.output);
    }
}

#[tokio::test]
async fn a_check_that_is_given_up_leaves_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let definition = HttpDefinition {
        url: format!("http://{}/", listener.local_addr().unwrap()),
        ..HttpDefinition::default()
    };
    let check = Probe::http(&definition).unwrap();
    let prober = prober();
    let probing = tokio::spawn(async move { prober.probe(&check, PATIENCE).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    read_head(&mut stream).await;
    probing.abort();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "the connection is still there");
}
