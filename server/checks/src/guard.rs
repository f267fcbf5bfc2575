//! Which addresses a check may connect to. Whoever registers a service names the target, and the server connects: without a
//! guard it would reach for others what only it can reach (server-side request forgery), as a cloud's metadata.
//!
//! The rule is the longest match, as in routing: of all entries that hold an address, the most specific one decides, and of
//! two that are as long, the one that denies. With an allow list, what no entry of it holds is denied. An address of IPv6 that carries one of
//! IPv4 in it is denied as well when that is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What is denied unless an entry of the allow list is more specific.
const BUILT_IN: [IpNet; 15] = [
    // "This network": Linux takes 0.0.0.0 and :: for the loopback (RFC 1122 §3.2.1.3).
    v4([0, 0, 0, 0], 8),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128),
    // Link-local (RFC 3927, RFC 4291 §2.5.6), where 169.254.169.254 is most clouds' metadata.
    v4([169, 254, 0, 0], 16),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10),
    // Metadata elsewhere: AWS by IPv6, Google Cloud by IPv6, Alibaba Cloud, Oracle Cloud, and Azure's wire server.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128),
    v4([100, 100, 100, 200], 32),
    v4([192, 0, 0, 192], 32),
    v4([168, 63, 129, 16], 32),
    // Multicast (RFC 5771, RFC 4291 §2.7) and broadcast.
    v4([224, 0, 0, 0], 4),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
    v4([255, 255, 255, 255], 32),
    // Deprecated site-local addresses, which some systems still treat as link-local (RFC 3879).
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10),
    // Discard-only (RFC 6666): nothing answers there.
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    // Reserved (RFC 1112 §4).
    v4([240, 0, 0, 0], 4),
];

const fn v4(octets: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6(groups: [u16; 8], length: u8) -> IpNet {
    let [a, b, c, d, e, f, g, h] = groups;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// Judges addresses.
#[derive(Debug)]
pub(crate) struct Guard {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

/// Why an address may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denial {
    /// An entry denies it.
    Denied(IpNet),
    /// There is an allow list, and it is not on it.
    NotAllowed,
}

impl Guard {
    pub(crate) fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        let deny = BUILT_IN.iter().chain(deny).map(IpNet::trunc).collect();
        Self { allow: allow.iter().map(IpNet::trunc).collect(), deny }
    }

    /// Whether an address may be connected to.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn permit(&self, address: IpAddr) -> Result<(), Denial> {
        // A mapped address connects to the one of IPv4.
        let address = address.to_canonical();
        self.not_denied(address)?;
        if let IpAddr::V6(address) = address {
            for carried in carried(address).into_iter().flatten() {
                self.not_denied(carried.into())?;
            }
        }
        let listed = self.allow.is_empty() || longest(&self.allow, address).is_some();
        if listed { Ok(()) } else { Err(Denial::NotAllowed) }
    }

    fn not_denied(&self, address: IpAddr) -> Result<(), Denial> {
        let Some(denies) = longest(&self.deny, address) else { return Ok(()) };
        match longest(&self.allow, address) {
            Some(allows) if allows.prefix_len() > denies.prefix_len() => Ok(()),
            _ => Err(Denial::Denied(denies)),
        }
    }
}

/// The most specific network that holds an address.
fn longest(nets: &[IpNet], address: IpAddr) -> Option<IpNet> {
    nets.iter().filter(|net| net.contains(&address)).max_by_key(|net| net.prefix_len()).copied()
}

/// The addresses of IPv4 that a gateway on the way may read in one of IPv6.
fn carried(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let octets = address.octets();
    let at = |places: [usize; 4]| Some(Ipv4Addr::from(places.map(|place| octets[place])));
    let last = at([12, 13, 14, 15]);
    match address.segments() {
        // The loopback is no IPv4-compatible address, although it looks like one.
        [0, 0, 0, 0, 0, 0, 0, 1] => [None; 4],
        // IPv4-compatible (RFC 4291 §2.5.5.1), IPv4-translated (RFC 2765 §2.1), NAT64 (RFC 6052 §2.1).
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            [last, None, None, None]
        }
        // NAT64 with a prefix of one's own (RFC 8215), in the four ways that its length allows (RFC 6052 §2.2). Read in a way that
        // is not meant, there are mostly zeros.
        [0x64, 0xff9b, 1, ..] => [at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last]
            .map(|read| read.filter(|address| address.octets()[0] != 0)),
        // 6to4 (RFC 3056 §2).
        [0x2002, ..] => [at([2, 3, 4, 5]), None, None, None],
        // Teredo (RFC 4380 §4): its server, and its client in disguise.
        [0x2001, 0, ..] => {
            [at([4, 5, 6, 7]), last.map(|client| Ipv4Addr::from_bits(!client.to_bits())), None, None]
        }
        // ISATAP (RFC 5214 §6.1).
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => [last, None, None, None],
        _ => [None; 4],
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(net) => write!(f, "denied by checks.deny ({net})"),
            Self::NotAllowed => f.write_str("not allowed by checks.allow"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allow: &[&str], deny: &[&str]) -> Guard {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        Guard::new(&nets(allow), &nets(deny))
    }

    fn permits(guard: &Guard, address: &str) -> bool {
        guard.permit(address.parse().unwrap()).is_ok()
    }

    #[test]
    fn nothing_that_is_built_in_is_reached_in_any_form() {
        let guard = guard(&[], &[]);
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "169.254.0.1",
            "169.254.169.254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "100::1",
            // The same metadata in IPv6's clothes.
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:aaa9:fe:a9fe::",
            "64:ff9b:1:aaaa:a9:fea9:fe00:0",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:c000:20a::5601:5601",
            "2001:db8::5efe:169.254.169.254",
            "2001:db8::200:5efe:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
            "64:ff9b::0.0.0.0",
            "2002:e000:1::",
        ] {
            assert!(!permits(&guard, address), "{address}");
        }
    }

    #[test]
    fn all_that_is_not_denied_is_reached_without_an_allow_list() {
        let guard = guard(&[], &[]);
        for address in [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "192.0.2.10",
            "192.168.1.1",
            "169.253.255.255",
            "169.255.0.1",
            "1.0.0.1",
            "223.255.255.255",
            "2001:db8::1",
            "fd00::1",
            "fd00:ec2::253",
            "64:ff9b::192.0.2.10",
            "64:ff9b:1::192.0.2.10",
            "2002:c000:20a::1",
            "::ffff:192.0.2.10",
            "fe7f::1",
            "2001:0:c000:20a::3fff:fdf5",
        ] {
            assert!(permits(&guard, address), "{address}");
        }
    }

    #[test]
    fn the_longest_match_decides_and_denying_wins_a_tie() {
        for (allow, deny, address, permitted) in [
            (&["10.0.0.0/8"][..], &[][..], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true),
            // Whoever allows IPv4 has not allowed what carries it.
            (&["10.0.0.0/8"], &[], "64:ff9b::10.1.2.3", false),
            (&["10.0.0.0/8", "64:ff9b::/96"], &[], "64:ff9b::10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "2001:db8::1", false),
            (&[], &["10.0.0.0/8"], "10.1.2.3", false),
            (&[], &["10.0.0.0/8"], "64:ff9b::10.1.2.3", false),
            (&[], &["127.0.0.0/8", "::1/128"], "::1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3", true),
            (&["10.0.0.0/8", "10.1.2.0/24"], &["10.1.0.0/16"], "10.1.2.3", true),
            (&["10.1.0.0/16"], &["10.1.0.0/16"], "10.1.2.3", false),
            // To allow all is no way around what is built in; to name it is.
            (&["0.0.0.0/0", "::/0"], &[], "169.254.169.254", false),
            (&["0.0.0.0/0", "::/0"], &[], "64:ff9b::169.254.169.254", false),
            (&["169.254.0.0/16"], &[], "169.254.10.1", false),
            (&["169.254.10.0/24"], &[], "169.254.10.1", true),
            (&["169.254.10.0/24"], &[], "169.254.11.1", false),
            // Bits of the host in an entry change nothing.
            (&["10.9.9.9/8"], &["10.1.9.9/16"], "10.2.0.1", true),
            (&["10.9.9.9/8"], &["10.1.9.9/16"], "10.1.0.1", false),
        ] {
            assert_eq!(permits(&guard(allow, deny), address), permitted, "{allow:?} {deny:?} {address}");
        }
    }

    #[test]
    fn a_denial_names_the_entry() {
        let guard = guard(&["10.0.0.0/8"], &["10.1.0.0/16"]);
        for (address, text) in [
            ("169.254.169.254", "denied by checks.deny (169.254.0.0/16)"),
            ("::ffff:169.254.169.254", "denied by checks.deny (169.254.0.0/16)"),
            ("10.1.1.1", "denied by checks.deny (10.1.0.0/16)"),
            ("192.0.2.1", "not allowed by checks.allow"),
        ] {
            assert_eq!(guard.permit(address.parse().unwrap()).unwrap_err().to_string(), text, "{address}");
        }
    }
}
