//! Questions and answers on one connection (RFC 7766), encrypted (RFC 7858) or not: many at a time, answered as they are ready.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::handler::{Handler, Outcome, Transport};
use super::recursor::Recursor;
use super::settings::Bounds;

/// Answers are collected up to so many bytes before they are sent.
const WRITE_BYTES: usize = 64 << 10;

/// What connections answer from: one handler for them all, because there are few questions that come by connection.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) handler: Arc<Mutex<Handler>>,
    pub(super) recursor: Option<Recursor>,
    pub(super) bounds: Bounds,
}

/// What became of a message.
pub(super) enum Answer {
    /// Nothing is to be sent.
    Silent,
    /// This is.
    Ready(Vec<u8>),
    /// It is to be asked of other servers.
    Later(Recursor, tokio::sync::OwnedSemaphorePermit),
}

impl Desk {
    /// Answers a message, or says that it takes time.
    pub(super) fn answer(&self, message: &[u8], source: IpAddr, transport: Transport) -> Answer {
        let mut out = Vec::with_capacity(512);
        let mut handler = self.handler.lock();
        let outcome = handler.handle(message, source, transport, &mut out);
        // After it, so that the counts are seen as soon as the answer is.
        handler.tick();
        match (outcome, &self.recursor) {
            (Outcome::Silent, _) => Answer::Silent,
            (Outcome::Answered, _) => Answer::Ready(out),
            (Outcome::Forward, recursor) => {
                let place =
                    recursor.as_ref().and_then(|recursor| Some((recursor.clone(), recursor.place()?)));
                if let Some((recursor, place)) = place {
                    return Answer::Later(recursor, place);
                }
                handler.fail(message, source, transport, &mut out);
                Answer::Ready(out)
            }
        }
    }
}

/// Serves a connection until its client ends it, is silent or does not read for too long, or `stop` is cancelled.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send>(
    stream: S,
    source: IpAddr,
    transport: Transport,
    desk: Desk,
    stop: CancellationToken,
) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let idle = desk.bounds.idle_timeout;
    let (mut input, mut output) = (BytesMut::new(), Vec::new());
    let mut waiting = JoinSet::new();
    let mut is_read = false;
    // Moved on by whole messages only, so that dripping bytes keeps no connection open.
    let mut deadline = Instant::now() + idle;
    loop {
        while waiting.len() < desk.bounds.max_pipelined && output.len() < WRITE_BYTES {
            let Some(message) = take_message(&mut input) else { break };
            deadline = Instant::now() + idle;
            match desk.answer(&message, source, transport) {
                Answer::Silent => {}
                Answer::Ready(answer) => push_message(&mut output, &answer),
                Answer::Later(recursor, place) => {
                    waiting.spawn(async move {
                        let answer = recursor.answer(&message, source, transport).await;
                        drop(place);
                        answer
                    });
                }
            }
        }
        if !output.is_empty() {
            match timeout(idle, async { writer.write_all(&output).await.and(writer.flush().await) }).await {
                Ok(Ok(())) => output.clear(),
                _ => return,
            }
            continue;
        }
        if is_read && waiting.is_empty() {
            break;
        }
        let has_room = waiting.len() < desk.bounds.max_pipelined;
        tokio::select! {
            () = stop.cancelled() => break,
            Some(answered) = waiting.join_next(), if !waiting.is_empty() => {
                deadline = Instant::now() + idle;
                if let Ok(Some(answer)) = answered {
                    push_message(&mut output, &answer);
                }
            }
            read = reader.read_buf(&mut input), if has_room && !is_read => match read {
                Ok(0) => is_read = true,
                Ok(_) => {}
                Err(_) => return,
            },
            () = sleep_until(deadline), if waiting.is_empty() => break,
        }
    }
    // The client sees the end rather than a reset; if it does not take even that, nothing is owed to it.
    let _ = timeout(idle, writer.shutdown()).await;
}

/// A message with its length before it (RFC 1035 §4.2.2). None: not all of it is there yet.
fn take_message(input: &mut BytesMut) -> Option<BytesMut> {
    let length = usize::from(u16::from_be_bytes(*input.first_chunk::<2>()?));
    if input.len() < 2 + length {
        input.reserve(2 + length - input.len());
        return None;
    }
    input.advance(2);
    Some(input.split_to(length))
}

fn push_message(output: &mut Vec<u8>, message: &[u8]) {
    // No answer is longer than 65,535 bytes.
    output.extend_from_slice(&(message.len() as u16).to_be_bytes());
    output.extend_from_slice(message);
}
