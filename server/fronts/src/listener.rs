//! Accepts connections and hands them, in turn, to the runtimes that serve calls. Owns no signal and no port:
//! both are handed in.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection;
use crate::port::{Grpc, Port};

/// What a connection may take. Defaults are those of the server's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most connections at a time; one more waits in the kernel's queue until another ends. Default 10,000.
    pub max_connections: usize,
    /// Most streams at a time on one connection; a client that keeps to HTTP/2 waits with the next, and
    /// one that doesn't has it refused (RFC 9113 §5.1.2). Default 4,096.
    pub max_streams: u32,
    /// How long a connection may be silent before it is asked for a sign of life (an HTTP/2 ping). Default 20 s.
    pub keepalive_interval: Duration,
    /// How long it has for that sign. Default 10 s.
    pub keepalive_timeout: Duration,
    /// Most bytes of one request's headers. Default 16 KiB.
    pub max_header_bytes: u32,
    /// How long streams may take to end after the listener was told to stop. Default 10 s.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_streams: 4_096,
            keepalive_interval: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            max_header_bytes: 16 << 10,
            grace: Duration::from_secs(10),
        }
    }
}

/// A bound socket with what is to be spoken on it.
pub struct Listener<D> {
    socket: TcpListener,
    port: Port<D>,
    bounds: Bounds,
    runtimes: Vec<Handle>,
}

impl<D: Grpc> Listener<D> {
    /// Serves `port` on `socket`. Connections are served on `runtimes` in turn; if there are none, on the
    /// runtime that runs the listener.
    #[must_use]
    pub fn new(socket: TcpListener, port: Port<D>, bounds: Bounds, runtimes: Vec<Handle>) -> Self {
        Self { socket, port, bounds, runtimes }
    }

    /// Accepts connections until `stop` is cancelled, then lets the calls in flight finish within the
    /// grace time and returns. Connections that are still open after it are cut.
    pub async fn run(self, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        let places = Arc::new(Semaphore::new(self.bounds.max_connections));
        let mut turn = 0;
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = places.clone().acquire_owned() => place,
            };
            // The semaphore is never closed, so a place is always given.
            let Ok(place) = place else { break };
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        pause_after(&error).await;
                        continue;
                    }
                },
            };
            let Some(stream) = detach(stream) else { continue };
            let serve = connection::serve(stream, self.port.clone(), self.bounds, stop.clone());
            let cut = cut.clone();
            let task = async move {
                tokio::select! {
                    () = cut.cancelled() => {}
                    () = serve => {}
                }
                drop(place);
            };
            turn += 1;
            match self.runtimes.len() {
                0 => connections.spawn(task),
                n => connections.spawn_on(task, &self.runtimes[turn % n]),
            };
        }
        drop(self.socket);
        connections.close();
        if tokio::time::timeout(self.bounds.grace, connections.wait()).await.is_err() {
            tracing::warn!(connections = connections.len(), "cutting connections that did not end in time");
            cut.cancel();
            connections.wait().await;
        }
    }
}

/// Takes a stream off this runtime, so that the one that serves it can take it up.
fn detach(stream: tokio::net::TcpStream) -> Option<std::net::TcpStream> {
    match stream.set_nodelay(true).and_then(|()| stream.into_std()) {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::debug!(%error, "a connection was gone before it was served");
            None
        }
    }
}

/// Errors of `accept` are either about one connection that is gone already, or about a lack of file
/// descriptors or memory, which passes only with time.
pub(crate) async fn pause_after(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "cannot accept connections; trying again in 100 ms");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
