//! Where other members are answered.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::links::MAX_MESSAGE_BYTES;
use super::pb::peer_server::PeerServer;
use super::service::PeerService;
use super::tls::Tls;
use crate::error::RaftError;
use crate::net::{Connections, Listening, Net};

const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A connection whose other side is gone is given up after these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long calls under way have at the end.
const GRACE: Duration = Duration::from_millis(500);
/// Most calls at a time on one connection.
const MAX_STREAMS: u32 = 256;

/// The bound port, not served yet.
pub(crate) struct PeerPort {
    connections: Connections,
    pub(crate) address: SocketAddr,
    tls: Option<Tls>,
}

/// The port, served until it is stopped.
pub(crate) struct ServedPort {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl PeerPort {
    /// Binds the address.
    pub(crate) async fn bind(
        net: &dyn Net,
        address: SocketAddr,
        tls: Option<Tls>,
    ) -> Result<Self, RaftError> {
        let failed = |e: std::io::Error| RaftError::Listen { address, error: e.to_string() };
        let Listening { address, connections } = net.listen(address).await.map_err(failed)?;
        Ok(Self { connections, address, tls })
    }

    pub(crate) fn serve(self, service: PeerService) -> Result<ServedPort, RaftError> {
        let Self { connections, address, tls } = self;
        let failed = |e: tonic::transport::Error| RaftError::Listen { address, error: error_chain(&e) };
        let mut server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
        if let Some(tls) = &tls {
            server = server.tls_config(tls.server()).map_err(failed)?;
        }
        let service = PeerServer::new(service)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let stop = CancellationToken::new();
        let until = stop.clone();
        let task = tokio::spawn(async move {
            let serving = server.add_service(service);
            if let Err(error) = serving.serve_with_incoming_shutdown(connections, until.cancelled()).await {
                tracing::error!(%error, "the peer port failed");
            }
        });
        Ok(ServedPort { stop, task })
    }
}

impl ServedPort {
    /// Takes no calls any more. Those under way end with consensus, which they ask; whatever does not is cut.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Ok(Err(error)) = tokio::time::timeout(GRACE, self.task).await {
            tracing::error!(%error, "the peer port failed");
        }
    }
}

/// tonic keeps the reason in the source of its errors.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
