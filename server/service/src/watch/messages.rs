//! The messages of a watch stream, encoded. A message is encoded without its target's id, so that all
//! watchers of equal targets are sent the same bytes; the id goes in front when it is written.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use konsul_proto::rpc;
use konsul_proto::v1::catalog_object::Object;
use konsul_proto::v1::{self, watch_event, watch_response};
use konsul_state::Revision;
use konsul_state::batch::{Batch, Change, CheckChange, InstanceChange, KvChange, NodeChange, ServiceChange};
use konsul_state::command::{CheckRecord, InstanceRecord, KvRecord, NodeRecord, ServiceRecord};
use prost::Message;
use prost::encoding::{self, WireType};
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::{Code, Status};

use super::stream::{EncodedStream, Position};
use super::target::TargetSpec;
use crate::catalog::shown;
use crate::convert;
use crate::limits::Limits;

/// Tags of `WatchResponse`, for what is encoded by hand; those of `CatalogWatchResponse` and `HealthWatchResponse` are the same.
const TARGET_ID: u32 = 1;
const KIND: u32 = 2;
const REVISION: u32 = 3;
const EVENTS: u32 = 4;
const FRAGMENT: u32 = 5;

/// A message of a watch stream whose fields but the target's id are encoded already.
#[derive(Debug, Clone)]
pub struct EncodedMessage {
    pub(super) target_id: u64,
    pub(super) rest: Bytes,
}

impl EncodedMessage {
    fn write_to(self, into: &mut impl BufMut) {
        if self.target_id != 0 {
            encoding::encode_key(TARGET_ID, WireType::Varint, into);
            encoding::encode_varint(self.target_id, into);
        }
        into.put(self.rest);
    }
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
pub(super) fn encode(message: &impl Message) -> Bytes {
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
            if !spec.admits(change) {
                continue;
            }
            let Some(event) = Event::of(batch, change, spec.previous) else { continue };
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
            event.encode(&mut self.bytes);
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

/// A change as the stream of its service tells it. What events are called differs; their place in the message does not.
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, until it is encoded")]
enum Event {
    Kv(v1::WatchEvent),
    Catalog(v1::CatalogEvent),
    Health(v1::HealthEvent),
}

impl Event {
    fn of(batch: &Batch, change: &Change, previous: bool) -> Option<Self> {
        let at = batch.revision;
        Some(match change {
            Change::Kv(change) => Self::Kv(kv_event(batch, change, previous)),
            Change::Service(ServiceChange { id, before, after }) => {
                let shown = |record: &ServiceRecord| shown::service(&id.name, record.clone());
                let last = |info| v1::ServiceInfo { mod_revision: at.0, ..info };
                Self::Catalog(catalog_event((before, after), previous, shown, last, Object::Service))
            }
            Change::Instance(InstanceChange { id, before, after }) => {
                let shown = |record: &InstanceRecord| shown::instance(id, record.clone());
                let last = |info| v1::InstanceInfo { mod_revision: at.0, ..info };
                Self::Catalog(catalog_event((before, after), previous, shown, last, Object::Instance))
            }
            Change::Node(NodeChange { id, before, after }) => {
                let shown = |record: &NodeRecord| shown::node(&id.name, record.clone());
                let last = |info| v1::NodeInfo { mod_revision: at.0, ..info };
                Self::Catalog(catalog_event((before, after), previous, shown, last, Object::Node))
            }
            Change::Check(change) => Self::Health(health_event(at, change, previous)),
            Change::Lease(_) | Change::Lock(_) | Change::Claim(_) => return None,
        })
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Kv(event) => event.encoded_len(),
            Self::Catalog(event) => event.encoded_len(),
            Self::Health(event) => event.encoded_len(),
        }
    }

    fn encode(&self, into: &mut BytesMut) {
        match self {
            Self::Kv(event) => encoding::message::encode(EVENTS, event, into),
            Self::Catalog(event) => encoding::message::encode(EVENTS, event, into),
            Self::Health(event) => encoding::message::encode(EVENTS, event, into),
        }
    }
}

fn catalog_event<R, I>(
    (before, after): (&Option<R>, &Option<R>),
    previous: bool,
    shown: impl Fn(&R) -> I,
    last: impl Fn(I) -> I,
    object: impl Fn(I) -> Object,
) -> v1::CatalogEvent {
    use v1::catalog_event::Type;
    let object = |info: I| v1::CatalogObject { object: Some(object(info)) };
    let (kind, now) = match (before, after) {
        (_, Some(after)) => (Type::Put, Some(shown(after))),
        // As it was last, and when it went.
        (before, None) => (Type::Delete, before.as_ref().map(|before| last(shown(before)))),
    };
    let before = before.as_ref().filter(|_| previous).map(shown);
    v1::CatalogEvent { r#type: kind.into(), object: now.map(&object), previous: before.map(object) }
}

fn health_event(at: Revision, change: &CheckChange, previous: bool) -> v1::HealthEvent {
    use v1::health_event::Type;
    let CheckChange { id, before, after } = change;
    let shown = |record: &CheckRecord| shown::check(id, record.clone());
    let (kind, check) = match (before, after) {
        (_, Some(after)) => (Type::Put, Some(shown(after))),
        (before, None) => {
            let gone = |before| v1::CheckInfo { mod_revision: at.0, ..shown(before) };
            (Type::Delete, before.as_ref().map(gone))
        }
    };
    let previous = before.as_ref().filter(|_| previous).map(shown);
    v1::HealthEvent { r#type: kind.into(), check, previous }
}

fn kv_event(batch: &Batch, change: &KvChange, previous: bool) -> v1::WatchEvent {
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

/// The codec of a Watch that is asked for by `Q`: requests are decoded as ever, messages come encoded.
#[derive(Debug)]
pub(crate) struct WatchCodec<Q>(PhantomData<Q>);

impl<Q> Default for WatchCodec<Q> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q: Message + Default + Send + 'static> Codec for WatchCodec<Q> {
    type Encode = EncodedMessage;
    type Decode = Q;
    type Encoder = WatchEncoder;
    type Decoder = konsul_proto::codec::StrictDecoder<Q>;

    fn encoder(&mut self) -> WatchEncoder {
        WatchEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        konsul_proto::codec::Codec::<v1::WatchResponse, Q>::default().decoder()
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
        message.write_to(into);
        Ok(())
    }

    /// An idle stream shall not hold tonic's usual 8 KiB; the buffer grows with the message.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(256, 32 << 10)
    }
}

/// Most bytes of a target's id and its tag.
const MAX_ID_BYTES: usize = 11;

/// A watch stream with its messages decoded again into `M`, for who calls the service without the Door.
pub struct DecodedStream<M> {
    stream: EncodedStream,
    message: PhantomData<fn() -> M>,
}

impl<M> DecodedStream<M> {
    pub(crate) fn new(stream: EncodedStream) -> Self {
        Self { stream, message: PhantomData }
    }
}

impl<M: Message + Default> Stream for DecodedStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let decode = |message: EncodedMessage| {
            let mut bytes = BytesMut::with_capacity(message.rest.len() + MAX_ID_BYTES);
            message.write_to(&mut bytes);
            M::decode(bytes).map_err(|e| Status::internal(format!("a watch message is malformed: {e}")))
        };
        Pin::new(&mut self.stream).poll_next(cx).map(|item| item.map(|item| item.and_then(decode)))
    }
}
