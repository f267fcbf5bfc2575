//! From a name to a connection: lookup, guard, connect, TLS. Every socket of a check is opened here, after the guard was asked
//! for the very address it is opened to: a name that means something else a moment later gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::failure::{Failure, TOO_MUCH};
use crate::guard::Guard;
use crate::limits::{ADDRESSES, RECEIVED_BYTES};
use crate::probe::Tls;
use crate::settings::{Settings, SettingsError};
use crate::target::{Host, Target};
use crate::tls::{Connectors, Protocol};

/// Opens connections.
pub(crate) struct Dialer {
    guard: Guard,
    connectors: Connectors,
    lookups: Arc<Semaphore>,
}

/// Bytes to a target and back.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How far a check is, and how long it may go on.
#[derive(Debug)]
pub(crate) struct Progress {
    phase: AtomicU8,
    pub(crate) deadline: Instant,
}

/// What a check is at.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Phase {
    Lookup,
    Connect,
    Handshake,
    Answer,
    Body,
    Run,
}

impl Dialer {
    /// # Errors
    /// [`SettingsError`] when the file of certificates can't be used.
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        Ok(Self {
            guard: Guard::new(&settings.allow, &settings.deny),
            connectors: Connectors::new(settings.ca_file.as_deref())?,
            lookups: Arc::new(Semaphore::new(settings.max_lookups)),
        })
    }

    /// A TCP connection to the first address of a target that takes one.
    ///
    /// # Errors
    /// [`Failure`] of the last address, when none does.
    pub(crate) async fn tcp(
        &self,
        target: &Target,
        progress: &Progress,
    ) -> Result<impl Stream + 'static, Failure> {
        let addresses = self.addresses(target, progress).await?;
        progress.at(Phase::Connect);
        let mut failure = None;
        for (index, address) in addresses.iter().enumerate() {
            // One that does not answer leaves time for the others.
            let connecting = TcpStream::connect(address);
            let connected = match progress.share(addresses.len() - index) {
                Some(share) => timeout_at(share, connecting).await.unwrap_or_else(|late| Err(late.into())),
                None => connecting.await,
            };
            match connected {
                Ok(stream) => {
                    // A request is one write, but a handshake is not.
                    stream.set_nodelay(true).map_err(|error| Failure::Connect(address.ip(), error))?;
                    return Ok(Bounded { stream, left: RECEIVED_BYTES });
                }
                Err(error) => failure = Some(Failure::Connect(address.ip(), error)),
            }
        }
        Err(failure.unwrap_or_else(|| Failure::NoAddress(target.host.to_string())))
    }

    /// A connection with or without TLS.
    ///
    /// # Errors
    /// [`Failure`] when it can't be made.
    pub(crate) async fn stream(
        &self,
        target: &Target,
        tls: Option<&Tls>,
        protocol: Protocol,
        progress: &Progress,
    ) -> Result<Box<dyn Stream>, Failure> {
        let stream = self.tcp(target, progress).await?;
        let Some(tls) = tls else { return Ok(Box::new(stream)) };
        progress.at(Phase::Handshake);
        let connector = self.connectors.for_check(tls, protocol);
        let stream = connector.connect(tls.server_name.clone(), stream).await.map_err(Failure::Tls)?;
        Ok(Box::new(stream))
    }

    /// A socket that hears nobody but an address.
    ///
    /// # Errors
    /// [`Failure`] when the system has none.
    pub(crate) async fn udp(&self, address: SocketAddr) -> Result<UdpSocket, Failure> {
        let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
        let connected = async {
            let socket = UdpSocket::bind((any, 0)).await?;
            socket.connect(address).await?;
            Ok(socket)
        };
        connected.await.map_err(|error| Failure::Connect(address.ip(), error))
    }

    /// The addresses of a target that may be connected to; at least one.
    ///
    /// # Errors
    /// [`Failure`] when there is none.
    pub(crate) async fn addresses(
        &self,
        target: &Target,
        progress: &Progress,
    ) -> Result<Vec<SocketAddr>, Failure> {
        let found = match &target.host {
            Host::Address(address) => vec![SocketAddr::new(*address, target.port)],
            Host::Name(name) => {
                progress.at(Phase::Lookup);
                self.look_up(name, target.port).await?
            }
        };
        let mut denied = None;
        let permitted: Vec<_> = found
            .into_iter()
            .filter(|address| match self.guard.permit(address.ip()) {
                Ok(()) => true,
                Err(denial) => {
                    denied = Some(Failure::Denied(address.ip(), denial));
                    false
                }
            })
            .take(ADDRESSES)
            .collect();
        match denied {
            Some(denied) if permitted.is_empty() => Err(denied),
            _ if permitted.is_empty() => Err(Failure::NoAddress(target.host.to_string())),
            _ => Ok(permitted),
        }
    }

    /// Asks the system's resolver. It can't be interrupted: its thread goes on, and keeps its place, when the check is given up.
    async fn look_up(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let failed = |error| Failure::Lookup(name.to_owned(), error);
        let place =
            self.lookups.clone().acquire_owned().await.map_err(|error| failed(io::Error::other(error)))?;
        let asked = name.to_owned();
        let looking = tokio::task::spawn_blocking(move || {
            let found = (asked.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            drop(place);
            found
        });
        looking.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
    }
}

impl Progress {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { phase: AtomicU8::new(Phase::Run as u8), deadline }
    }

    pub(crate) fn at(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the check is at, in words that follow "timed out after 5s".
    pub(crate) fn words(&self) -> &'static str {
        const LOOKUP: u8 = Phase::Lookup as u8;
        const CONNECT: u8 = Phase::Connect as u8;
        const HANDSHAKE: u8 = Phase::Handshake as u8;
        const ANSWER: u8 = Phase::Answer as u8;
        const BODY: u8 = Phase::Body as u8;
        match self.phase.load(Ordering::Relaxed) {
            LOOKUP => " looking up the name",
            CONNECT => " connecting",
            HANDSHAKE => " in the TLS handshake",
            ANSWER => " waiting for an answer",
            BODY => " in the midst of the answer",
            _ => "",
        }
    }

    /// When to give up the first of some attempts, so that the others have as much time. The last one is given up with the check.
    fn share(&self, attempts: usize) -> Option<Instant> {
        let attempts = u32::try_from(attempts).ok().filter(|attempts| *attempts > 1)?;
        let now = Instant::now();
        Some(now + self.deadline.saturating_duration_since(now) / attempts)
    }
}

/// Carries out an exchange over a connection that only moves when it is asked to.
pub(crate) async fn beside<E: Future>(connection: impl Future, exchange: E) -> E::Output {
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        // The exchange knows what an end of the connection means to it.
        _ = connection => exchange.await,
    }
}

/// A stream that ends with an error when too much was read of it.
struct Bounded<S> {
    stream: S,
    left: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(TOO_MUCH.into()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_lookup_waits_for_its_turn_and_says_so() {
        let dialer = Dialer::new(&Settings { max_lookups: 1, ..Settings::default() }).unwrap();
        let progress = Progress::until(Instant::now() + Duration::from_millis(50));
        let (name, address) =
            (Target::parse("localhost:80").unwrap(), Target::parse("192.0.2.10:80").unwrap());
        let slow = dialer.lookups.clone().acquire_owned().await.unwrap();
        assert!(timeout_at(progress.deadline, dialer.addresses(&name, &progress)).await.is_err());
        assert_eq!(progress.words(), " looking up the name");
        // An address needs no lookup.
        assert_eq!(dialer.addresses(&address, &progress).await.unwrap(), ["192.0.2.10:80".parse().unwrap()]);
        drop(slow);
        assert!(dialer.addresses(&name, &progress).await.is_ok());
    }

    #[test]
    fn each_address_of_a_name_has_a_share_of_the_time() {
        let progress = Progress::until(Instant::now() + Duration::from_secs(10));
        let left = |attempts| progress.share(attempts).unwrap().saturating_duration_since(Instant::now());
        assert!(left(2) <= Duration::from_secs(5) && left(5) <= Duration::from_secs(2));
        assert_eq!(progress.share(1), None);
    }
}
