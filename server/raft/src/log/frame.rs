//! A log entry's bytes, and the shape raft-engine wants them in. It takes messages of an old protobuf crate;
//! what it gets is one that writes its bytes as they are, so that a Command is encoded once, by its caller.
//!
//! Bytes, little-endian: length u32 of what follows, kind u8, term u64, leader u64, index u64, then for a
//! membership its encoding, for Commands each with its length u32 before it.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use protobuf::reflect::MessageDescriptor;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields};
use raft_engine::MessageExt;

use crate::types::{
    Group, LeaderId, LogId, Payload, RaftEntry, decode_membership, encode_membership, invalid, take_u32,
    take_u64, truncated,
};

const BLANK: u8 = 0;
const MEMBERSHIP: u8 = 1;
const COMMANDS: u8 = 2;
const HEAD: usize = 1 + 3 * 8;

/// One entry, to be written or as it was read.
#[derive(Clone, Default)]
pub(crate) struct Frame {
    content: Content,
    unknown: UnknownFields,
}

#[derive(Clone, Default)]
enum Content {
    #[default]
    Empty,
    Write {
        entry: RaftEntry,
        membership: Bytes,
    },
    Read(Bytes),
}

/// Names [`Frame`] to raft-engine.
#[derive(Clone)]
pub(crate) struct Frames;

impl MessageExt for Frames {
    type Entry = Frame;

    fn index(frame: &Frame) -> u64 {
        match &frame.content {
            Content::Empty => 0,
            Content::Write { entry, .. } => entry.log_id.index,
            Content::Read(bytes) => head(bytes).map(|(_, id)| id.index).unwrap_or_default(),
        }
    }
}

impl Frame {
    /// The frame that writes this entry.
    pub(crate) fn new(entry: RaftEntry) -> Self {
        let membership = match &entry.payload {
            Payload::Membership(membership) => encode_membership(membership),
            Payload::Blank | Payload::Normal(_) => Bytes::new(),
        };
        Self { content: Content::Write { entry, membership }, unknown: UnknownFields::new() }
    }

    /// The entry in this frame.
    pub(crate) fn into_entry(self) -> io::Result<RaftEntry> {
        match self.content {
            Content::Empty => Err(truncated()),
            Content::Write { entry, .. } => Ok(entry),
            Content::Read(bytes) => decode(&bytes),
        }
    }

    fn body_bytes(&self) -> usize {
        match &self.content {
            Content::Empty => 0,
            Content::Read(bytes) => bytes.len(),
            Content::Write { entry, membership } => match &entry.payload {
                Payload::Blank => HEAD,
                Payload::Membership(_) => HEAD + membership.len(),
                Payload::Normal(group) => HEAD + group.bytes() + 4 * group.commands().len(),
            },
        }
    }
}

fn head(bytes: &[u8]) -> io::Result<(u8, LogId)> {
    let (kind, mut rest) = bytes.split_first().ok_or_else(truncated)?;
    let leader_id = LeaderId { term: take_u64(&mut rest)?, node_id: take_u64(&mut rest)? };
    Ok((*kind, LogId { leader_id, index: take_u64(&mut rest)? }))
}

/// An entry's bytes, as other members get it.
pub(crate) fn encode(entry: &RaftEntry) -> Bytes {
    let mut out = BytesMut::new();
    let LogId { leader_id, index } = entry.log_id;
    let kind = kind(&entry.payload);
    let head = |out: &mut BytesMut| {
        out.put_u8(kind);
        for number in [leader_id.term, leader_id.node_id, index] {
            out.put_u64_le(number);
        }
    };
    match &entry.payload {
        Payload::Blank => head(&mut out),
        Payload::Membership(membership) => {
            head(&mut out);
            out.put_slice(&encode_membership(membership));
        }
        Payload::Normal(group) => {
            out.reserve(HEAD + group.bytes() + 4 * group.commands().len());
            head(&mut out);
            for command in group.commands() {
                out.put_u32_le(command.len() as u32);
                out.put_slice(command);
            }
        }
    }
    out.freeze()
}

fn kind(payload: &Payload) -> u8 {
    match payload {
        Payload::Blank => BLANK,
        Payload::Membership(_) => MEMBERSHIP,
        Payload::Normal(_) => COMMANDS,
    }
}

/// Reads an entry's bytes.
pub(crate) fn decode(bytes: &Bytes) -> io::Result<RaftEntry> {
    let (kind, log_id) = head(bytes)?;
    let body = bytes.slice(HEAD..);
    let payload = match kind {
        BLANK => Payload::Blank,
        MEMBERSHIP => Payload::Membership(decode_membership(&body)?),
        COMMANDS => Payload::Normal(decode_group(body)?),
        kind => return Err(invalid(format!("an entry of kind {kind} is unknown: use a newer konsul"))),
    };
    Ok(RaftEntry { log_id, payload })
}

fn decode_group(mut body: Bytes) -> io::Result<Group> {
    let mut commands = Vec::new();
    while !body.is_empty() {
        let len = take_u32(&mut &body[..])? as usize;
        if body.len() < 4 + len {
            return Err(truncated());
        }
        commands.push(body.slice(4..4 + len));
        body = body.slice(4 + len..);
    }
    Ok(Group::new(commands))
}

impl Message for Frame {
    fn descriptor(&self) -> &'static MessageDescriptor {
        // Reflection is for generated messages; raft-engine does not use it.
        unreachable!("a frame has no descriptor")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, from: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        let len = from.read_raw_little_endian32()?;
        self.content = Content::Read(from.read_raw_bytes(len)?.into());
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, out: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        out.write_raw_little_endian32(self.compute_size() - 4)?;
        let (entry, membership) = match &self.content {
            Content::Empty => return Ok(()),
            Content::Read(bytes) => return out.write_raw_bytes(bytes),
            Content::Write { entry, membership } => (entry, membership),
        };
        out.write_raw_byte(kind(&entry.payload))?;
        out.write_raw_little_endian64(entry.log_id.leader_id.term)?;
        out.write_raw_little_endian64(entry.log_id.leader_id.node_id)?;
        out.write_raw_little_endian64(entry.log_id.index)?;
        out.write_raw_bytes(membership)?;
        if let Payload::Normal(group) = &entry.payload {
            for command in group.commands() {
                out.write_raw_little_endian32(command.len() as u32)?;
                out.write_raw_bytes(command)?;
            }
        }
        Ok(())
    }

    fn compute_size(&self) -> u32 {
        4 + self.body_bytes() as u32
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static EMPTY: OnceLock<Frame> = OnceLock::new();
        EMPTY.get_or_init(Self::default)
    }
}

impl Clear for Frame {
    fn clear(&mut self) {
        self.content = Content::Empty;
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        Frames::index(self) == Frames::index(other) && self.body_bytes() == other.body_bytes()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry {}, {} bytes", Frames::index(self), self.body_bytes())
    }
}
