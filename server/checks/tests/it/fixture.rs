//! Probers that may reach the loopback, and targets that say what a test wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use konsul_checks::{HttpDefinition, Probe, Prober, Settings, Status, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Long enough for whatever is expected to succeed, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Short enough to wait for.
pub const BRIEF: Duration = Duration::from_millis(300);

/// Nothing but the loopback.
pub fn settings() -> Settings {
    Settings {
        allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        ..Settings::default()
    }
}

pub fn prober() -> Arc<Prober> {
    Arc::new(Prober::new(&settings()).unwrap())
}

pub async fn probe(probe: &Probe) -> Verdict {
    prober().probe(probe, PATIENCE).await
}

/// A target that does the same with each connection, until it goes.
pub struct Target {
    pub address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Target {
    pub async fn serve<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream));
            }
        });
        Self { address, _accepting: accepting }
    }

    /// One that reads a request's head and says this.
    pub async fn says(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::serve(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await;
                let _ = stream.write_all(&answer).await;
            }
        })
        .await
    }

    /// One that answers each path as a function has it.
    pub async fn answers(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        Self::serve(move |mut stream| {
            let answer = answer.clone();
            async move {
                let head = read_head(&mut stream).await;
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = stream.write_all(answer(&path).as_bytes()).await;
            }
        })
        .await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Probe {
        Probe::http(&HttpDefinition { url: self.url(path), ..HttpDefinition::default() }).unwrap()
    }
}

/// An address where nobody listens, which stays so as long as the other end of it is held.
pub fn closed() -> (SocketAddr, std::net::TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    // The client's own port: taken, and listened to by nobody.
    (client.local_addr().unwrap(), client, server)
}

pub async fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

pub fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
pub fn is(verdict: &Verdict, status: Status, words: &str) {
    assert_eq!(verdict.status, status, "{}", verdict.output);
    assert!(verdict.output.contains(words), "{words:?} is not in {:?}", verdict.output);
    assert!(verdict.output.len() <= 4096);
}
