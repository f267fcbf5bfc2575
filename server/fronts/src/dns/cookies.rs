//! Server cookies (RFC 7873, in the form of RFC 9018): a client that shows one has the address it says it has.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::query::Cookie;

/// Bytes of a server cookie.
pub(super) const SERVER_COOKIE: usize = 16;
/// A cookie is good for so long, and so far ahead of our clock (RFC 9018 §4.3), in seconds.
const MAX_AGE: u32 = 3_600;
const MAX_AHEAD: u32 = 300;
/// Version 1, and three reserved bytes.
const PREFIX: [u8; 4] = [1, 0, 0, 0];

/// Makes and knows server cookies.
pub(super) struct Cookies {
    key: [u8; 16],
}

impl Cookies {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The server's part for a client, at a time in Unix seconds.
    pub(super) fn make(&self, client: [u8; 8], source: IpAddr, now: u32) -> [u8; SERVER_COOKIE] {
        let time = now.to_be_bytes();
        let hash = self.hash(client, time, source);
        let mut cookie = [0; SERVER_COOKIE];
        cookie[..4].copy_from_slice(&PREFIX);
        cookie[4..8].copy_from_slice(&time);
        cookie[8..].copy_from_slice(&hash);
        cookie
    }

    /// Whether a client showed a cookie of ours that is still good.
    pub(super) fn is_good(&self, cookie: &Cookie, source: IpAddr, now: u32) -> bool {
        let Some(server) = cookie.server else { return false };
        let [v, r, s, t, a, b, c, d, hash @ ..] = server;
        let time = [a, b, c, d];
        // Serial arithmetic (RFC 1982), as RFC 9018 asks, so that 2106 is no special year.
        let age = now.wrapping_sub(u32::from_be_bytes(time)) as i32;
        [v, r, s, t] == PREFIX
            && (-(MAX_AHEAD as i32)..=MAX_AGE as i32).contains(&age)
            && same(hash, self.hash(cookie.client, time, source))
    }

    /// SipHash-2-4 of client cookie, version, reserved, time and address (RFC 9018 §4.4).
    fn hash(&self, client: [u8; 8], time: [u8; 4], source: IpAddr) -> [u8; 8] {
        let mut input = [0; 32];
        input[..8].copy_from_slice(&client);
        input[8..12].copy_from_slice(&PREFIX);
        input[12..16].copy_from_slice(&time);
        let length = match source {
            IpAddr::V4(address) => {
                input[16..20].copy_from_slice(&address.octets());
                20
            }
            IpAddr::V6(address) => {
                input[16..].copy_from_slice(&address.octets());
                32
            }
        };
        SipHasher24::new_with_key(&self.key).hash(&input[..length]).to_le_bytes()
    }
}

/// Compares without telling by the time it takes where the difference is.
fn same(a: [u8; 8], b: [u8; 8]) -> bool {
    u64::from_ne_bytes(a) ^ u64::from_ne_bytes(b) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9018 Appendix A.1 and A.2: a new cookie, and an old one that is still good.
    #[test]
    fn the_test_vectors_of_the_rfc() {
        let key =
            [0xe5, 0xe9, 0x73, 0xe5, 0xa6, 0xb2, 0xa4, 0x3f, 0x48, 0xe7, 0xdc, 0x84, 0x9e, 0x37, 0xbf, 0xcf];
        let cookies = Cookies::new(key);
        let source: IpAddr = "198.51.100.100".parse().unwrap();
        let client = [0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57];
        let server =
            [0x01, 0x00, 0x00, 0x00, 0x5c, 0xf7, 0x9f, 0x11, 0x1f, 0x81, 0x30, 0xc3, 0xee, 0xe2, 0x94, 0x80];
        assert_eq!(cookies.make(client, source, 1_559_731_985), server);
        let shown = Cookie { client, server: Some(server) };
        assert!(cookies.is_good(&shown, source, 1_559_731_985));
        assert!(cookies.is_good(&shown, source, 1_559_731_985 + MAX_AGE));
        assert!(!cookies.is_good(&shown, source, 1_559_731_985 + MAX_AGE + 1), "too old");
        assert!(!cookies.is_good(&shown, source, 1_559_731_985 - MAX_AHEAD - 1), "of the future");
        assert!(!cookies.is_good(&shown, "198.51.100.101".parse().unwrap(), 1_559_731_985), "of another");
        assert!(!Cookies::new([0; 16]).is_good(&shown, source, 1_559_731_985), "under another key");
    }

    /// RFC 9018 Appendix A.4: an IPv6 client.
    #[test]
    fn the_test_vector_for_ipv6() {
        let key =
            [0x44, 0x55, 0x36, 0xbc, 0xd2, 0x51, 0x32, 0x98, 0x07, 0x5a, 0x5d, 0x37, 0x96, 0x63, 0xc9, 0x62];
        let source: IpAddr = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let client = [0x22, 0x68, 0x1a, 0xb9, 0x7d, 0x52, 0xc2, 0x98];
        let server =
            [0x01, 0x00, 0x00, 0x00, 0x5c, 0xf7, 0xc6, 0x09, 0xa6, 0xbb, 0x79, 0xd1, 0x66, 0x25, 0x50, 0x7a];
        assert_eq!(Cookies::new(key).make(client, source, 1_559_741_961), server);
    }
}
