//! HTTP/1 and HTTP/2 on one connection, with its bounds and its graceful end.

use std::pin::pin;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::listener::Bounds;
use crate::port::{Grpc, Port};

/// What a stream may be ahead of its reader, in bytes: the rest stays where it comes from.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How much a caller may send on a stream, and on all streams of a connection, before it is read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Serves a connection until it ends. After `stop` it takes no new streams and ends with the last.
pub(crate) async fn serve<D: Grpc>(
    stream: std::net::TcpStream,
    port: Port<D>,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::error!(%error, "a connection could not be taken up"),
    };
    let builder = builder(&bounds);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), port));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A peer that goes away is no news to anybody but whoever looks for it.
        tracing::debug!(error = %error, "a connection ended with an error");
    }
}

fn builder(bounds: &Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.max_streams)
        .keep_alive_interval(bounds.keepalive_interval)
        .keep_alive_timeout(bounds.keepalive_timeout)
        .max_header_list_size(bounds.max_header_bytes)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // No gRPC client looks at it, and each answer would carry it.
        .auto_date_header(false);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.keepalive_interval)
        .max_buf_size((bounds.max_header_bytes as usize).max(8 << 10));
    builder
}
