//! The simulated network under a member: turmoil's, which delays, loses and holds what the faults say.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use futures_util::stream;
use hyper_util::rt::TokioIo;
use konsul_raft::net::{Connection, Listening, Net};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};

/// The network of the simulation that the calling host belongs to.
pub(crate) struct SimNet;

impl Net for SimNet {
    fn listen(
        &self,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Listening>> + Send + '_>> {
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            let connections = stream::unfold(listener, |listener| async move {
                let accepted = listener.accept().await;
                let connection = accepted.map(|(stream, _)| Box::new(stream) as Box<dyn Connection>);
                Some((connection, listener))
            });
            Ok(Listening { address, connections: Box::pin(connections) })
        })
    }

    fn channel(&self, to: &Endpoint) -> Channel {
        to.connect_with_connector_lazy(service_fn(|to: Uri| async move {
            let host = to.host().unwrap_or_default();
            let stream = TcpStream::connect((host, to.port_u16().unwrap_or_default())).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }))
    }
}
