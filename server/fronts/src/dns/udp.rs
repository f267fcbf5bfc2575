//! The receive loop: one socket, many packets a wake-up, no task for a packet that can be answered from here.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handler::{Handler, Outcome, Transport};
use super::recursor::Recursor;
use super::shared::Shared;

/// Room for one receive: the kernel may join datagrams of one sender (UDP_GRO). Pages of it that nobody writes to are none.
const BUFFER_BYTES: usize = 1 << 16;
/// So many batches before others of the runtime have their turn.
const BATCHES: usize = 4;

/// A socket, shared with the tasks that answer later.
struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// The socket is bound to all addresses, so that an answer must say from which of them it comes.
    is_wildcard: bool,
}

impl Socket {
    fn receive(&self, buffers: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, metas))
    }

    /// Sends an answer. One that finds no room in the kernel's queue is lost, as it might be anywhere else on its way.
    fn send(&self, to: SocketAddr, from: Option<IpAddr>, answer: &[u8]) {
        let src_ip = if self.is_wildcard { from } else { None };
        let transmit = Transmit { destination: to, ecn: None, contents: answer, segment_size: None, src_ip };
        if let Err(error) = self.state.try_send((&self.io).into(), &transmit) {
            tracing::debug!(%to, %error, "an answer could not be sent");
        }
    }
}

/// Answers what comes in at a socket, until `stop` is cancelled.
pub(super) async fn serve(
    socket: std::net::UdpSocket,
    shared: Arc<Shared>,
    recursor: Option<Recursor>,
    stop: CancellationToken,
) {
    let socket = match open(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(%error, "a DNS socket could not be taken up"),
    };
    let mut handler = Handler::with(shared);
    let forwarded = Forwarded { recursor, tasks: TaskTracker::new(), stop: stop.clone() };
    let mut memory = vec![0; BATCH_SIZE * BUFFER_BYTES];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    let mut out = Vec::with_capacity(4_096);
    'serving: loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            ready = socket.io.readable() => if let Err(error) = ready {
                tracing::error!(%error, "a DNS socket is gone");
                break;
            }
        }
        for _ in 0..BATCHES {
            let mut buffers = memory.chunks_exact_mut(BUFFER_BYTES).map(IoSliceMut::new);
            let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| buffers.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            let received = match socket.receive(&mut buffers, &mut metas) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue 'serving,
                // An earlier answer found nobody (ICMP); the next receive is about something else.
                Err(_) => continue,
            };
            handler.tick();
            for (buffer, meta) in buffers.iter().zip(&metas).take(received) {
                let packets = &buffer[..meta.len.min(buffer.len())];
                for packet in packets.chunks(meta.stride.max(1)) {
                    match handler.handle(packet, meta.addr.ip(), Transport::Udp, &mut out) {
                        Outcome::Answered => socket.send(meta.addr, meta.dst_ip, &out),
                        Outcome::Forward => forwarded.forward(&socket, &mut handler, packet, meta, &mut out),
                        Outcome::Silent => {}
                    }
                }
            }
        }
        tokio::task::yield_now().await;
    }
    handler.tick();
    forwarded.tasks.close();
    forwarded.tasks.wait().await;
}

fn open(socket: std::net::UdpSocket) -> io::Result<Socket> {
    let is_wildcard = socket.local_addr()?.ip().is_unspecified();
    let state = UdpSocketState::new((&socket).into())?;
    Ok(Socket { io: UdpSocket::from_std(socket)?, state, is_wildcard })
}

/// Questions that wait for other servers.
struct Forwarded {
    recursor: Option<Recursor>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Forwarded {
    fn forward(
        &self,
        socket: &Arc<Socket>,
        handler: &mut Handler,
        packet: &[u8],
        meta: &RecvMeta,
        out: &mut Vec<u8>,
    ) {
        let (to, from) = (meta.addr, meta.dst_ip);
        let Some((recursor, place)) =
            self.recursor.as_ref().and_then(|recursor| Some((recursor.clone(), recursor.place()?)))
        else {
            handler.fail(packet, to.ip(), Transport::Udp, out);
            return socket.send(to, from, out);
        };
        let (socket, packet, stop) = (socket.clone(), packet.to_vec(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                answer = recursor.answer(&packet, to.ip(), Transport::Udp) => if let Some(answer) = answer {
                    socket.send(to, from, &answer);
                }
            }
            drop(place);
        });
    }
}
