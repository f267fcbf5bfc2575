//! What a packet asks: the one shape that nearly all have is read here, anything else by hickory.

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};

use super::wire::{HEADER, MAX_NAME, class, flag, option, rcode, rtype, u16_at};

/// Bytes of the longest question: a name, a type and a class.
const MAX_KEY: usize = MAX_NAME + 2;

/// What is to be done with a packet.
pub(super) enum Parsed<'a> {
    /// Nothing: it is no query, or too short to be answered.
    Drop,
    /// It asks something.
    Query(Query<'a>),
    /// It is answered with an error without being looked at any further.
    Refuse(Query<'a>, u16),
}

/// A query with one question, or what could be read of one that is refused.
pub(super) struct Query<'a> {
    pub(super) id: u16,
    /// The header's second word as it came.
    pub(super) flags: u16,
    /// Name, type and class as they came. Empty if they could not be read.
    pub(super) question: &'a [u8],
    /// The name in lower case, followed by the type.
    key: [u8; MAX_KEY],
    name_len: usize,
    pub(super) rtype: u16,
    pub(super) edns: Option<Edns>,
}

/// The OPT record of a query (RFC 6891).
#[derive(Clone, Copy, Default)]
pub(super) struct Edns {
    pub(super) version: u8,
    /// What the client takes over UDP, in bytes.
    pub(super) size: u16,
    pub(super) dnssec_ok: bool,
    pub(super) cookie: Option<Cookie>,
    pub(super) padding: bool,
    pub(super) keepalive: bool,
}

/// The COOKIE option (RFC 7873 §4).
#[derive(Clone, Copy)]
pub(super) struct Cookie {
    pub(super) client: [u8; 8],
    /// The server's part, if it has the length of ours; any other was made by somebody else.
    pub(super) server: Option<[u8; 16]>,
}

/// An option that breaks its own rules: FORMERR.
struct BadOption;

impl Query<'_> {
    /// The name in lower case on the wire.
    pub(super) fn name(&self) -> &[u8] {
        &self.key[..self.name_len]
    }

    /// Name and type: what an answer depends on.
    pub(super) fn key(&self) -> &[u8] {
        &self.key[..self.name_len + 2]
    }

    pub(super) fn wants_recursion(&self) -> bool {
        self.flags & flag::RD != 0
    }
}

/// Reads a packet.
pub(super) fn parse(packet: &[u8]) -> Parsed<'_> {
    let Some(header) = packet.first_chunk::<HEADER>() else { return Parsed::Drop };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let flags = word(2);
    if flags & flag::QR != 0 {
        return Parsed::Drop;
    }
    let mut query =
        Query { id: word(0), flags, question: &[], key: [0; MAX_KEY], name_len: 0, rtype: 0, edns: None };
    // What other operations put where the question is needs no reading to be refused.
    if flags & flag::OPCODE != 0 {
        return Parsed::Refuse(query, rcode::NOT_IMP);
    }
    match word(4) {
        1 => {}
        // RFC 7873 §5.4: a query without a question asks for a cookie.
        0 => return cookie_only(query, packet),
        // RFC 9619.
        _ => return Parsed::Refuse(query, rcode::FORM_ERR),
    }
    let Some(end) = read_question(&mut query, packet) else {
        return Parsed::Refuse(query, rcode::FORM_ERR);
    };
    let rest = &packet[end..];
    let read = match (word(6), word(8), word(10)) {
        (0, 0, 0) => Ok(()),
        (0, 0, 1) if is_opt(rest) => read_opt(&mut query, rest),
        _ => return uncommon(query, packet),
    };
    match read {
        Ok(()) => checked(query),
        Err(BadOption) => Parsed::Refuse(query, rcode::FORM_ERR),
    }
}

/// Copies the question's name in lower case. None: it is no name, or the packet ends within it. A compressed name in a question
/// could only point at the header.
fn read_question<'a>(query: &mut Query<'a>, packet: &'a [u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = *packet.get(at)?;
        let next = at + 1 + usize::from(length);
        if length > 63 || next - HEADER > MAX_NAME {
            return None;
        }
        let label = packet.get(at..next)?;
        // The length is below 64, and so no letter.
        query.key[at - HEADER..next - HEADER].copy_from_slice(label);
        at = next;
        if length == 0 {
            break;
        }
    }
    query.name_len = at - HEADER;
    query.key[..query.name_len].make_ascii_lowercase();
    query.question = packet.get(HEADER..at + 4)?;
    query.rtype = u16_at(packet, at)?;
    query.key[query.name_len..query.name_len + 2].copy_from_slice(&query.rtype.to_be_bytes());
    Some(at + 4)
}

/// What is refused whatever the name is.
fn checked(query: Query<'_>) -> Parsed<'_> {
    let asked_class = u16_at(query.question, query.name_len + 2).unwrap_or_default();
    if query.edns.is_some_and(|edns| edns.version > 0) {
        return Parsed::Refuse(query, rcode::BAD_VERS);
    }
    if !matches!(asked_class, class::IN | class::ANY) {
        return Parsed::Refuse(query, rcode::REFUSED);
    }
    match query.rtype {
        rtype::AXFR | rtype::IXFR => Parsed::Refuse(query, rcode::REFUSED),
        rtype::MAILA | rtype::MAILB | rtype::TKEY => Parsed::Refuse(query, rcode::NOT_IMP),
        rtype::OPT | rtype::TSIG | 0 => Parsed::Refuse(query, rcode::FORM_ERR),
        _ => Parsed::Query(query),
    }
}

fn is_opt(record: &[u8]) -> bool {
    record.first() == Some(&0) && u16_at(record, 1) == Some(rtype::OPT)
}

/// Reads an OPT record that is alone in its section: root, type, size, version and flags, options.
fn read_opt(query: &mut Query<'_>, record: &[u8]) -> Result<(), BadOption> {
    let size = u16_at(record, 3).ok_or(BadOption)?;
    let version = *record.get(6).ok_or(BadOption)?;
    let flags = u16_at(record, 7).ok_or(BadOption)?;
    let length = u16_at(record, 9).ok_or(BadOption)?;
    let mut options = record.get(11..11 + usize::from(length)).ok_or(BadOption)?;
    let edns = query.edns.insert(Edns { version, size, dnssec_ok: flags & 0x8000 != 0, ..Edns::default() });
    while !options.is_empty() {
        let code = u16_at(options, 0).ok_or(BadOption)?;
        let end = 4 + usize::from(u16_at(options, 2).ok_or(BadOption)?);
        let value = options.get(4..end).ok_or(BadOption)?;
        edns.take(code, value)?;
        options = &options[end..];
    }
    Ok(())
}

impl Edns {
    /// Takes an option; those we don't know are ignored (RFC 6891 §6.1.2), and so is a second of one that we do.
    fn take(&mut self, code: u16, value: &[u8]) -> Result<(), BadOption> {
        match code {
            option::COOKIE if self.cookie.is_none() => {
                // RFC 7873 §5.2.2: 8 bytes, or 16 to 40.
                let (client, server) = value.split_first_chunk::<8>().ok_or(BadOption)?;
                if !matches!(server.len(), 0 | 8..=32) {
                    return Err(BadOption);
                }
                self.cookie = Some(Cookie { client: *client, server: server.try_into().ok() });
            }
            option::PADDING => self.padding = true,
            option::KEEPALIVE => self.keepalive = true,
            _ => {}
        }
        Ok(())
    }
}

fn cookie_only<'a>(mut query: Query<'a>, packet: &'a [u8]) -> Parsed<'a> {
    let rest = &packet[HEADER..];
    let alone = packet[6..HEADER] == [0, 0, 0, 0, 0, 1] && is_opt(rest);
    if !alone || read_opt(&mut query, rest).is_err() {
        return Parsed::Refuse(query, rcode::FORM_ERR);
    }
    match query.edns {
        Some(Edns { version: 0, cookie: Some(_), .. }) => Parsed::Refuse(query, rcode::NO_ERROR),
        _ => Parsed::Refuse(query, rcode::FORM_ERR),
    }
}

/// A query with records nobody needs to ask, or an OPT among others.
fn uncommon<'a>(mut query: Query<'a>, packet: &'a [u8]) -> Parsed<'a> {
    // Two OPT records are an error to hickory too (RFC 6891 §6.1.1).
    let Ok(message) = Message::from_vec(packet) else {
        return Parsed::Refuse(query, rcode::FORM_ERR);
    };
    if let Some(opt) = &message.edns {
        let mut edns = Edns {
            version: opt.version(),
            size: opt.max_payload(),
            dnssec_ok: opt.flags().dnssec_ok,
            ..Edns::default()
        };
        for (code, value) in opt.options().as_ref() {
            let bytes = if let EdnsOption::Unknown(_, bytes) = value { bytes.as_slice() } else { &[] };
            let code = match code {
                EdnsCode::Cookie => option::COOKIE,
                EdnsCode::Keepalive => option::KEEPALIVE,
                EdnsCode::Padding => option::PADDING,
                _ => continue,
            };
            if edns.take(code, bytes).is_err() {
                return Parsed::Refuse(query, rcode::FORM_ERR);
            }
        }
        query.edns = Some(edns);
    }
    if message.additionals.iter().any(|record| record.record_type() == RecordType::TSIG) {
        // RFC 8945 §5.2: we share no key with anybody.
        return Parsed::Refuse(query, rcode::NOT_AUTH);
    }
    checked(query)
}
