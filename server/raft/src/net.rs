//! The network between members as the peer port sees it: listening and connecting, so that a simulation can put a network of
//! its own in place. What is spoken over it is not known here.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::transport::{Channel, Endpoint};

/// Listens for members, and reaches them.
pub trait Net: Send + Sync + 'static {
    /// Listens at an address. Port 0 is any that is free.
    ///
    /// # Errors
    /// What the system says.
    fn listen(&self, address: SocketAddr)
    -> Pin<Box<dyn Future<Output = io::Result<Listening>> + Send + '_>>;

    /// A way to another member. It connects when it is first used, and again after it broke.
    fn channel(&self, to: &Endpoint) -> Channel;
}

/// Where a member listens, and who connects.
pub struct Listening {
    /// The address, with the port it got.
    pub address: SocketAddr,
    /// Who connects, one after the other.
    pub connections: Connections,
}

/// Those who connect.
pub type Connections = Pin<Box<dyn Stream<Item = io::Result<Box<dyn Connection>>> + Send>>;

/// Bytes to another member and back.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

impl Connected for Box<dyn Connection> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// The network as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealNet;

impl Net for RealNet {
    fn listen(
        &self,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Listening>> + Send + '_>> {
        Box::pin(async move {
            let socket = TcpListener::bind(address).await?;
            let address = socket.local_addr()?;
            let incoming = TcpIncoming::from(socket).with_nodelay(Some(true));
            let connections = incoming.map(|connected| connected.map(|c| Box::new(c) as Box<dyn Connection>));
            Ok(Listening { address, connections: Box::pin(connections) })
        })
    }

    fn channel(&self, to: &Endpoint) -> Channel {
        to.connect_lazy()
    }
}
