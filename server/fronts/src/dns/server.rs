//! The front as a whole: binds its sockets, runs what serves them, and ends it.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counters::Counters;
use super::directory::Directory;
use super::error::DnsError;
use super::handler::{Handler, Transport};
use super::recursor::Recursor;
use super::settings::Settings;
use super::shared::Shared;
use super::stream::{self, Desk};
use super::{https, udp};
use crate::listener::pause_after;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1_024;
/// What the kernel keeps of packets that we have not read, in bytes, if it allows so much.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
/// How many free ports are tried until one is free for UDP and TCP.
const TRIES: usize = 32;

/// Bound sockets with a directory to answer from.
pub struct DnsServer {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    tls: Vec<TcpListener>,
    https: Vec<TcpListener>,
    listen: Vec<SocketAddr>,
    shared: Arc<Shared>,
    recursor: Option<Recursor>,
    runtimes: Vec<Handle>,
}

impl DnsServer {
    /// Checks the settings and binds all sockets. Where the port is 0, one is taken that is free for UDP and TCP.
    ///
    /// # Errors
    /// Those of [`DnsError`].
    pub fn bind(settings: Settings, directory: Arc<dyn Directory>) -> Result<Self, DnsError> {
        for (setting, addresses) in
            [("tls_listen", &settings.tls_listen), ("https_listen", &settings.https_listen)]
        {
            if !addresses.is_empty() && settings.tls.is_none() {
                return Err(DnsError::NoCertificate { setting });
            }
        }
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sockets = if settings.udp_sockets == 0 { cores() } else { settings.udp_sockets };
        let (mut udp, mut tcp, mut listen) = (Vec::new(), Vec::new(), Vec::new());
        for &address in &settings.listen {
            let (stream, datagrams) = bind_both(address, sockets)?;
            listen.push(stream.local_addr().map_err(|source| bind_error(address, "TCP", source))?);
            tcp.push(stream);
            udp.extend(datagrams);
        }
        let bind_all = |addresses: &[SocketAddr], protocol| -> Result<Vec<TcpListener>, DnsError> {
            let bind = |&address| bind_tcp(address).map_err(|source| bind_error(address, protocol, source));
            addresses.iter().map(bind).collect()
        };
        let (tls, https) =
            (bind_all(&settings.tls_listen, "TLS")?, bind_all(&settings.https_listen, "HTTPS")?);
        let shared = Arc::new(Shared::new(settings, directory)?);
        let recursor = Recursor::new(&shared, &listen)?;
        Ok(Self { udp, tcp, tls, https, listen, shared, recursor, runtimes: Vec::new() })
    }

    /// Serves sockets and connections on these runtimes in turn, rather than on the one that runs the front.
    #[must_use]
    pub fn on(mut self, runtimes: Vec<Handle>) -> Self {
        self.runtimes = runtimes;
        self
    }

    /// The addresses that plain DNS is served on, in the order of the settings.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.listen
    }

    /// The first address of DNS over TLS.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.first().and_then(|socket| socket.local_addr().ok())
    }

    /// The first address of DNS over HTTPS.
    #[must_use]
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https.first().and_then(|socket| socket.local_addr().ok())
    }

    /// What the front counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Serves until `stop` is cancelled. Connections then have the grace time of the settings to end, and are cut after it; nothing
    /// runs any more when this returns.
    pub async fn run(self, stop: CancellationToken) {
        let bounds = self.shared.resolver.settings.bounds;
        let desk = Desk {
            handler: Arc::new(Mutex::new(Handler::with(self.shared.clone()))),
            recursor: self.recursor.clone(),
            bounds,
        };
        let crew =
            Crew { tasks: TaskTracker::new(), cut: CancellationToken::new(), stop, runtimes: self.runtimes };
        for (turn, socket) in self.udp.into_iter().enumerate() {
            crew.spawn(
                turn,
                udp::serve(socket, self.shared.clone(), self.recursor.clone(), crew.stop.clone()),
            );
        }
        let tls = self.shared.resolver.settings.tls.as_deref();
        let over_tls = tls.map(|tls| with_alpn(tls, &[b"dot"]));
        let over_https = tls.map(|tls| with_alpn(tls, &[b"h2", b"http/1.1"]));
        let kinds = [
            (self.tcp, Transport::Tcp, None),
            (self.tls, Transport::Tls, over_tls),
            (self.https, Transport::Https, over_https),
        ];
        for (sockets, transport, tls) in kinds {
            let places = Arc::new(Semaphore::new(bounds.max_connections.min(Semaphore::MAX_PERMITS)));
            for socket in sockets {
                let kind = Kind { transport, tls: tls.clone(), desk: desk.clone(), places: places.clone() };
                let crew_of_it = crew.clone();
                crew.tasks.spawn(async move { accept(socket, kind, crew_of_it).await });
            }
        }
        crew.stop.cancelled().await;
        crew.tasks.close();
        if tokio::time::timeout(bounds.grace, crew.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = crew.tasks.len(), "cutting DNS connections that did not end in time");
            crew.cut.cancel();
            crew.tasks.wait().await;
        }
    }
}

/// The tasks of the front, and what ends them.
#[derive(Clone)]
struct Crew {
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
    runtimes: Vec<Handle>,
}

impl Crew {
    /// Runs a task on a runtime, until it ends or is cut.
    fn spawn(&self, turn: usize, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        let task = async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = task => {}
            }
        };
        match self.runtimes.len() {
            0 => self.tasks.spawn(task),
            n => self.tasks.spawn_on(task, &self.runtimes[turn % n]),
        };
    }
}

/// What is spoken on a connection.
#[derive(Clone)]
struct Kind {
    transport: Transport,
    tls: Option<TlsAcceptor>,
    desk: Desk,
    places: Arc<Semaphore>,
}

async fn accept(socket: TcpListener, kind: Kind, crew: Crew) {
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "a DNS listener could not be taken up"),
    };
    let mut turn = 0;
    loop {
        let place = tokio::select! {
            () = crew.stop.cancelled() => return,
            place = kind.places.clone().acquire_owned() => place,
        };
        // The semaphore is never closed, so a place is always given.
        let Ok(place) = place else { return };
        let (stream, peer) = tokio::select! {
            () = crew.stop.cancelled() => return,
            accepted = socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        // Off this runtime, so that the one that serves it can take it up.
        let Ok(stream) = stream.set_nodelay(true).and_then(|()| stream.into_std()) else { continue };
        turn += 1;
        let (kind, stop) = (kind.clone(), crew.stop.clone());
        crew.spawn(turn, async move {
            serve(stream, peer, kind, stop).await;
            drop(place);
        });
    }
}

async fn serve(stream: std::net::TcpStream, peer: SocketAddr, kind: Kind, stop: CancellationToken) {
    let Ok(stream) = tokio::net::TcpStream::from_std(stream) else { return };
    let Kind { transport, tls, desk, .. } = kind;
    let source = peer.ip();
    let Some(tls) = tls else { return stream::serve(stream, source, transport, desk, stop).await };
    let handshake = tokio::select! {
        () = stop.cancelled() => return,
        done = tokio::time::timeout(desk.bounds.idle_timeout, tls.accept(stream)) => done,
    };
    let Ok(Ok(stream)) = handshake else {
        return tracing::debug!(%peer, "a TLS handshake for DNS failed");
    };
    match transport {
        Transport::Https => https::serve(stream, source, desk, stop).await,
        _ => stream::serve(stream, source, transport, desk, stop).await,
    }
}

fn with_alpn(tls: &ServerConfig, protocols: &[&[u8]]) -> TlsAcceptor {
    let mut tls = tls.clone();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(tls))
}

/// One address for TCP and UDP. The TCP socket comes first: it shares its port with no other process, so that two servers can't have one
/// address, as the UDP sockets alone could.
fn bind_both(address: SocketAddr, sockets: usize) -> Result<(TcpListener, Vec<UdpSocket>), DnsError> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = bind_tcp(address).map_err(|source| bind_error(address, "TCP", source))?;
        let bound = tcp.local_addr().map_err(|source| bind_error(address, "TCP", source))?;
        match (0..sockets).map(|_| bind_udp(bound)).collect::<io::Result<Vec<_>>>() {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(bind_error(bound, "UDP", source)),
        }
    }
}

fn bind_error(address: SocketAddr, protocol: &'static str, source: io::Error) -> DnsError {
    DnsError::Bind { address, protocol, source }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_reuse_port(true)?;
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the kernel keeps fewer packets than asked");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        // So that `0.0.0.0` and `[::]` can be listened on side by side.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
