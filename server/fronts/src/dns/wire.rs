//! Numbers and sizes of DNS messages (RFC 1035 §4, IANA's registry), and how names are written.

/// Bytes of a message's header.
pub(super) const HEADER: usize = 12;
/// Most bytes of a name on the wire, its root included (RFC 1035 §2.3.4).
pub(super) const MAX_NAME: usize = 255;
/// Most bytes of a label.
pub(super) const MAX_LABEL: usize = 63;
/// What everybody takes over UDP (RFC 1035 §2.3.4).
pub(super) const MIN_UDP: usize = 512;
/// Most bytes of a message over a connection, whose length is 16 bits.
pub(super) const MAX_MESSAGE: usize = 65_535;
/// A pointer to the name of the question, which always stands behind the header.
pub(super) const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// Record types, and those that are only asked for.
pub(super) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const HINFO: u16 = 13;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const TKEY: u16 = 249;
    pub(crate) const TSIG: u16 = 250;
    pub(crate) const IXFR: u16 = 251;
    pub(crate) const AXFR: u16 = 252;
    pub(crate) const MAILB: u16 = 253;
    pub(crate) const MAILA: u16 = 254;
    pub(crate) const ANY: u16 = 255;
}

/// Classes.
pub(super) mod class {
    pub(crate) const IN: u16 = 1;
    pub(crate) const ANY: u16 = 255;
}

/// Response codes; those above 15 need EDNS (RFC 6891 §6.1.3).
pub(super) mod rcode {
    pub(crate) const NO_ERROR: u16 = 0;
    pub(crate) const FORM_ERR: u16 = 1;
    pub(crate) const SERV_FAIL: u16 = 2;
    pub(crate) const NX_DOMAIN: u16 = 3;
    pub(crate) const NOT_IMP: u16 = 4;
    pub(crate) const REFUSED: u16 = 5;
    pub(crate) const NOT_AUTH: u16 = 9;
    pub(crate) const BAD_VERS: u16 = 16;
    pub(crate) const BAD_COOKIE: u16 = 23;
}

/// Bits of the header's second word.
pub(super) mod flag {
    pub(crate) const QR: u16 = 0x8000;
    pub(crate) const AA: u16 = 0x0400;
    pub(crate) const TC: u16 = 0x0200;
    pub(crate) const RD: u16 = 0x0100;
    pub(crate) const RA: u16 = 0x0080;
    pub(crate) const CD: u16 = 0x0010;
    pub(crate) const OPCODE: u16 = 0x7800;
}

/// Options of EDNS.
pub(super) mod option {
    pub(crate) const COOKIE: u16 = 10;
    pub(crate) const KEEPALIVE: u16 = 11;
    pub(crate) const PADDING: u16 = 12;
}

/// Two bytes as a number; what is not there is None.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}

/// Appends a label. The caller has made sure of its length.
pub(super) fn push_label(out: &mut Vec<u8>, label: &[u8]) {
    debug_assert!((1..=MAX_LABEL).contains(&label.len()));
    out.push(label.len() as u8);
    out.extend_from_slice(label);
}

/// A name in presentation form as it is on the wire, in lower case. None: it has an empty or overlong label, is too long, or has an
/// escape, which no name of a host has.
pub(super) fn encode_name(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL || label.contains(['\\', ' ', '\0']) {
            return None;
        }
        push_label(&mut wire, label.to_ascii_lowercase().as_bytes());
    }
    wire.push(0);
    (wire.len() <= MAX_NAME).then_some(wire)
}

/// Whether DNS can have this as one label of a host's name: letters, digits, `-` and `_`.
pub(super) fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
