//! The messages of a watch stream, encoded. A message is encoded without its target's id, so that all
//! watchers of equal targets are sent the same bytes; the id goes in front when it is written.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use konsul_proto::rpc;
use konsul_proto::v1::{self, watch_event, watch_response};
use konsul_state::batch::{Batch, KvChange};
use konsul_state::{Revision, command::KvRecord};
use prost::Message;
use prost::encoding::{self, WireType};
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::stream::{EncodedStream, Position};
use super::target::TargetSpec;
use crate::convert;
use crate::limits::Limits;

/// Tags of `WatchResponse`, for what is encoded by hand.
const TARGET_ID: u32 = 1;
const KIND: u32 = 2;
const REVISION: u32 = 3;
const EVENTS: u32 = 4;
const FRAGMENT: u32 = 5;

/// A `WatchResponse` whose fields but the target's id are encoded already.
#[derive(Debug, Clone)]
pub struct EncodedMessage {
    pub(super) target_id: u64,
    pub(super) rest: Bytes,
}

/// Some of a target's events, and where the rest begins.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    /// The encoded message; `None` if no change concerned the target.
    pub(super) message: Option<Bytes>,
    pub(super) events: u64,
    /// The first change that was not looked at.
    pub(super) next: Position,
}

/// A message with nothing shared in it.
pub(super) fn encode(message: &v1::WatchResponse) -> Bytes {
    message.encode_to_vec().into()
}

/// A message of a kind that says nothing but a revision.
pub(super) fn plain(kind: watch_response::Kind, revision: Revision) -> Bytes {
    encode(&v1::WatchResponse { kind: kind.into(), revision: revision.0, ..Default::default() })
}

/// The message that ends a target.
pub(super) fn ended(status: &Status) -> Bytes {
    let code = Code::into(status.code());
    // The details are an encoded google.rpc.Status that has the code and the message as well.
    let status = rpc::Status::decode(status.details())
        .ok()
        .filter(|s| s.code == code)
        .unwrap_or_else(|| rpc::Status { code, message: status.message().to_owned(), details: vec![] });
    let kind = watch_response::Kind::Ended.into();
    encode(&v1::WatchResponse { kind, status: Some(status), ..Default::default() })
}

/// Encodes the events of consecutive Batches that concern a target, from `start` on, into one message: whole
/// revisions until `watch_batch_bytes` are reached, or a part of one that alone exceeds `watch_fragment_bytes`.
pub(super) fn events(spec: &TargetSpec, batches: &[Arc<Batch>], start: Position, limits: &Limits) -> Chunk {
    let mut message = EventsMessage::default();
    let mut next = start;
    for batch in batches {
        let from = if batch.revision == start.revision { start.change } else { 0 };
        if let Some(cut) = message.add(spec, batch, from, limits.watch_fragment_bytes) {
            return message.finish(cut);
        }
        next = Position { revision: batch.revision.next(), change: 0 };
        // What follows the last fragment of a revision goes into a message of its own.
        if from > 0 || message.bytes.len() >= limits.watch_batch_bytes {
            break;
        }
    }
    message.finish(next)
}

#[derive(Default)]
struct EventsMessage {
    bytes: BytesMut,
    events: u64,
    /// The last revision that has events in the message.
    revision: Revision,
}

impl EventsMessage {
    /// Adds a Batch's events. Returns where the message has to be cut, if it has to.
    fn add(&mut self, spec: &TargetSpec, batch: &Batch, from: usize, max_bytes: usize) -> Option<Position> {
        let (whole_bytes, whole_events) = (self.bytes.len(), self.events);
        for (i, change) in batch.changes.iter().enumerate().skip(from) {
            let Some(change) = change.kv().filter(|change| spec.admits(change)) else { continue };
            let event = event(batch, change, spec.previous);
            if !self.bytes.is_empty() && self.bytes.len() + event.encoded_len() > max_bytes {
                if whole_bytes == 0 {
                    self.revision = batch.revision;
                    return Some(Position { revision: batch.revision, change: i });
                }
                // Only a revision that does not fit by itself is cut: this one begins the next message.
                self.bytes.truncate(whole_bytes);
                self.events = whole_events;
                return Some(Position { revision: batch.revision, change: 0 });
            }
            encoding::message::encode(EVENTS, &event, &mut self.bytes);
            self.events += 1;
        }
        if self.events > whole_events {
            self.revision = batch.revision;
        }
        None
    }

    fn finish(mut self, next: Position) -> Chunk {
        if self.events == 0 {
            return Chunk { message: None, events: 0, next };
        }
        encoding::int32::encode(KIND, &watch_response::Kind::Events.into(), &mut self.bytes);
        encoding::uint64::encode(REVISION, &self.revision.0, &mut self.bytes);
        if next.change > 0 {
            encoding::bool::encode(FRAGMENT, &true, &mut self.bytes);
        }
        Chunk { message: Some(self.bytes.freeze()), events: self.events, next }
    }
}

fn event(batch: &Batch, change: &KvChange, previous: bool) -> v1::WatchEvent {
    let entry = |record: &KvRecord| convert::entry(change.key.as_str().to_owned(), record.clone());
    let (kind, after) = match &change.after {
        Some(record) => (watch_event::Type::Put, entry(record)),
        None => {
            let gone = v1::Entry {
                key: change.key.as_str().to_owned(),
                mod_revision: batch.revision.0,
                update_time: Some(convert::timestamp(batch.time_ms)),
                ..Default::default()
            };
            (watch_event::Type::Delete, gone)
        }
    };
    let previous = change.before.as_ref().filter(|_| previous).map(entry);
    v1::WatchEvent { r#type: kind.into(), entry: Some(after), previous }
}

/// The codec of Watch: requests are decoded as ever, messages come encoded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = EncodedMessage;
    type Decode = v1::WatchRequest;
    type Encoder = WatchEncoder;
    type Decoder = konsul_proto::codec::StrictDecoder<v1::WatchRequest>;

    fn encoder(&mut self) -> WatchEncoder {
        WatchEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        konsul_proto::codec::Codec::<v1::WatchResponse, v1::WatchRequest>::default().decoder()
    }
}

/// Writes an encoded message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WatchEncoder;

impl Encoder for WatchEncoder {
    type Item = EncodedMessage;
    type Error = Status;

    fn encode(&mut self, message: EncodedMessage, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(message.rest.len() + MAX_ID_BYTES);
        if message.target_id != 0 {
            encoding::encode_key(TARGET_ID, WireType::Varint, into);
            encoding::encode_varint(message.target_id, into);
        }
        into.put(message.rest);
        Ok(())
    }

    /// An idle stream shall not hold tonic's usual 8 KiB; the buffer grows with the message.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(256, 32 << 10)
    }
}

/// Most bytes of a target's id and its tag.
const MAX_ID_BYTES: usize = 11;

/// A watch stream with its messages decoded again, for who calls the service without the Door.
pub struct DecodedStream(EncodedStream);

impl DecodedStream {
    pub(crate) fn new(stream: EncodedStream) -> Self {
        Self(stream)
    }
}

impl Stream for DecodedStream {
    type Item = Result<v1::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let decode = |message: EncodedMessage| {
            let decoded = v1::WatchResponse::decode(message.rest);
            let decoded =
                decoded.map_err(|e| Status::internal(format!("a watch message is malformed: {e}")))?;
            Ok(v1::WatchResponse { target_id: message.target_id, ..decoded })
        };
        Pin::new(&mut self.0).poll_next(cx).map(|item| item.map(|item| item.and_then(decode)))
    }
}
