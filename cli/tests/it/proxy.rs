//! A TCP proxy that holds back what passes through it when a test says so: for the client a member that hangs, or a
//! network that swallows packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::server::Server;

/// A proxy that stops when this is dropped. It accepts connections also while it holds what they bring.
pub(crate) struct Proxy {
    pub(crate) address: String,
    requests: watch::Sender<bool>,
    answers: watch::Sender<bool>,
    connections: Arc<AtomicU32>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// In front of a server.
    pub(crate) async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, answers) = (watch::Sender::new(false), watch::Sender::new(false));
        let connections = Arc::new(AtomicU32::new(0));
        let serving = tokio::spawn(serve(
            listener,
            server.address.clone(),
            requests.subscribe(),
            answers.subscribe(),
            connections.clone(),
        ));
        Self { address, requests, answers, connections, serving }
    }

    /// Holds back everything.
    pub(crate) fn hold(&self) {
        self.requests.send_replace(true);
        self.answers.send_replace(true);
    }

    /// Holds back what the server says; the client is heard.
    pub(crate) fn hold_answers(&self) {
        self.answers.send_replace(true);
    }

    /// Passes on what was held back, and whatever comes.
    pub(crate) fn release(&self) {
        self.requests.send_replace(false);
        self.answers.send_replace(false);
    }

    /// How many connections there were so far.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    listener: TcpListener,
    server: String,
    requests: watch::Receiver<bool>,
    answers: watch::Receiver<bool>,
    connections: Arc<AtomicU32>,
) {
    let mut passing = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = TcpStream::connect(&server).await.unwrap().into_split();
        passing.spawn(pass(from_client, to_server, requests.clone()));
        passing.spawn(pass(from_server, to_client, answers.clone()));
    }
}

/// Passes on what one end says, until either is gone.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut held: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        if held.wait_for(|held| !held).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
