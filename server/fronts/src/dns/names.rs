//! The names that there are: what a name below one of our domains, or in a reverse tree, stands for. Nothing is looked up here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::error::DnsError;
use super::settings;
use super::wire::{MAX_NAME, encode_name, is_label};

/// What can't be the name of a data center, because it says what kind of name one is.
const KINDS: [&str; 5] = ["service", "node", "addr", "ns", NAME_SERVER];
/// The label of the name server in each domain.
pub(super) const NAME_SERVER: &str = "ns1";
/// Who is written to, as a label below the domain.
pub(super) const HOSTMASTER: &str = "hostmaster";
/// Most bytes of a domain on the wire, which leaves room for what is below it.
const MAX_DOMAIN: usize = 128;
const DEFAULT_NAMESPACE: &str = "default";

/// The domains we answer for.
pub(super) struct Names {
    /// On the wire, in lower case. The first is the one that PTR records name.
    domains: Vec<Vec<u8>>,
    datacenter: String,
    /// Addresses of the name server.
    pub(super) name_servers: Vec<IpAddr>,
}

/// What a name stands for, if there is such a thing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// None of ours.
    Foreign,
    /// No such name, whatever the catalog holds.
    Absent,
    /// A name that is only there because others end with it.
    Empty,
    /// The same, below a namespace that may be there or not.
    Namespace(String),
    Apex,
    NameServer,
    Service {
        owner: Owner,
        select: Select,
    },
    Node(Owner),
    /// What `….addr.konsul.` names.
    Address(IpAddr),
    Reverse(IpAddr),
}

/// A service's or a node's full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Which instances of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Select {
    All,
    /// With this tag.
    Tag(String),
    /// With a port of this name, which is then their port.
    Port(String),
    /// The one with this id.
    Instance(String),
}

/// What a name stands for, and where its parts are, as offsets into it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) subject: Subject,
    /// Where the domain begins, or for a reverse name the name.
    pub(super) domain_at: usize,
    /// Where the data center begins, if there is one, otherwise the domain.
    pub(super) base_at: usize,
    /// Where `service` or `node` begins.
    pub(super) kind_at: usize,
}

impl Names {
    /// Checks the settings.
    pub(super) fn new(zone: &settings::Zone, listen: &[SocketAddr]) -> Result<Self, DnsError> {
        let mut domains = Vec::new();
        for domain in std::iter::once(&zone.domain).chain(&zone.alternatives) {
            let wire = encode_name(domain).filter(|wire| wire.len() <= MAX_DOMAIN);
            domains.push(wire.ok_or_else(|| DnsError::Setting {
                setting: "domain",
                value: domain.clone(),
                rule: "must be a DNS name of up to 126 bytes",
            })?);
        }
        let datacenter = zone.datacenter.to_ascii_lowercase();
        if !is_label(&datacenter) || KINDS.contains(&datacenter.as_str()) {
            return Err(DnsError::Setting {
                setting: "datacenter",
                value: datacenter,
                rule: "must be a DNS label, and none of service, node, addr, ns, ns1",
            });
        }
        let mut name_servers = zone.name_servers.clone();
        if name_servers.is_empty() {
            name_servers = listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
        }
        name_servers.sort_unstable();
        name_servers.dedup();
        Ok(Self { domains, datacenter, name_servers })
    }

    /// The domain that PTR records name, on the wire.
    pub(super) fn domain(&self) -> &[u8] {
        &self.domains[0]
    }

    /// What a name on the wire, in lower case, stands for.
    pub(super) fn find(&self, name: &[u8]) -> Found {
        let (labels, ends) = split(name);
        let foreign = Found { subject: Subject::Foreign, domain_at: 0, base_at: 0, kind_at: 0 };
        let Some(above) = (0..labels.len()).find(|&i| self.is_domain(&name[ends[i]..])) else {
            return Found { subject: reverse(&labels), ..foreign };
        };
        let domain_at = ends[above];
        // Every name of ours is ASCII; what is none stands for nothing.
        let own: Option<Vec<&str>> =
            labels[..above].iter().map(|label| std::str::from_utf8(label).ok()).collect();
        let Some(own) = own else {
            return Found { subject: Subject::Absent, domain_at, base_at: domain_at, kind_at: domain_at };
        };
        let (own, in_datacenter) = match own.as_slice() {
            [rest @ .., last] if *last == self.datacenter => (rest, true),
            all => (all, false),
        };
        let subject = subject(own, in_datacenter);
        let tail = match own {
            [.., _, "ns"] => 2,
            _ => 0,
        };
        let kind_at = own.len().checked_sub(tail + 1).map_or(domain_at, |i| ends[i]);
        Found { subject, domain_at, base_at: ends[own.len()], kind_at }
    }

    fn is_domain(&self, name: &[u8]) -> bool {
        self.domains.iter().any(|domain| domain == name)
    }
}

/// The labels of a name, and where each begins; the last is where the root is.
fn split(name: &[u8]) -> (Vec<&[u8]>, Vec<usize>) {
    let (mut labels, mut starts, mut at) = (Vec::with_capacity(8), Vec::with_capacity(8), 0);
    debug_assert!(name.len() <= MAX_NAME);
    while let Some(&length) = name.get(at) {
        starts.push(at);
        let next = at + 1 + usize::from(length);
        match name.get(at + 1..next) {
            Some(label) if !label.is_empty() => labels.push(label),
            _ => break,
        }
        at = next;
    }
    (labels, starts)
}

fn subject(labels: &[&str], in_datacenter: bool) -> Subject {
    match labels {
        [] if in_datacenter => return Subject::Empty,
        [] => return Subject::Apex,
        [NAME_SERVER] if !in_datacenter => return Subject::NameServer,
        ["ns"] => return Subject::Empty,
        _ => {}
    }
    let (labels, namespace) = match labels {
        [rest @ .., namespace, "ns"] => (rest, Some(*namespace)),
        all => (all, None),
    };
    let owner = |name: &str| Owner {
        namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        name: name.to_owned(),
    };
    let empty = || namespace.map_or(Subject::Empty, |name| Subject::Namespace(name.to_owned()));
    match labels {
        [] | ["service" | "node"] => empty(),
        ["addr"] if namespace.is_none() => Subject::Empty,
        [address, "addr"] if namespace.is_none() => {
            hex_address(address).map_or(Subject::Absent, Subject::Address)
        }
        [name, "node"] => Subject::Node(owner(name)),
        // RFC 2782's names end with any protocol, so there is no protocol of which there is none (RFC 8020).
        [protocol, "service"] if protocol.starts_with('_') => empty(),
        [name, protocol, "service"] if name.starts_with('_') && protocol.starts_with('_') => {
            let select = match &protocol[1..] {
                "tcp" | "udp" => Select::All,
                tag => Select::Tag(tag.to_owned()),
            };
            Subject::Service { owner: owner(&name[1..]), select }
        }
        [name, "service"] => Subject::Service { owner: owner(name), select: Select::All },
        [id, "instance", name, "service"] => {
            Subject::Service { owner: owner(name), select: Select::Instance((*id).to_owned()) }
        }
        [port, "port", name, "service"] => {
            Subject::Service { owner: owner(name), select: Select::Port((*port).to_owned()) }
        }
        [tag @ .., name, "service"] => {
            Subject::Service { owner: owner(name), select: Select::Tag(tag.join(".")) }
        }
        _ => Subject::Absent,
    }
}

/// `0a000001` or 32 hexadecimal digits.
fn hex_address(label: &str) -> Option<IpAddr> {
    if !label.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match label.len() {
        8 => u32::from_str_radix(label, 16).ok().map(|bits| Ipv4Addr::from(bits).into()),
        32 => u128::from_str_radix(label, 16).ok().map(|bits| Ipv6Addr::from(bits).into()),
        _ => None,
    }
}

/// The label that [`hex_address`] reads.
pub(super) fn address_label(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:08x}", u32::from(address)),
        IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
    }
}

/// `1.2.0.192.in-addr.arpa` (RFC 1035 §3.5) or 32 nibbles and `ip6.arpa` (RFC 3596 §2.5); parts of an address are foreign.
fn reverse(labels: &[&[u8]]) -> Subject {
    let address = match labels {
        [rest @ .., b"in-addr", b"arpa"] => reverse_v4(rest),
        [rest @ .., b"ip6", b"arpa"] => reverse_v6(rest),
        _ => None,
    };
    address.map_or(Subject::Foreign, Subject::Reverse)
}

fn reverse_v4(labels: &[&[u8]]) -> Option<IpAddr> {
    let labels: &[&[u8]; 4] = labels.try_into().ok()?;
    let mut octets = [0; 4];
    for (octet, label) in octets.iter_mut().rev().zip(labels) {
        let text = std::str::from_utf8(label).ok()?;
        let canonical = text == "0" || !text.starts_with(['0', '+']);
        *octet = text.parse().ok().filter(|_| canonical)?;
    }
    Some(Ipv4Addr::from(octets).into())
}

fn reverse_v6(labels: &[&[u8]]) -> Option<IpAddr> {
    let labels: &[&[u8]; 32] = labels.try_into().ok()?;
    let mut bits = 0_u128;
    for label in labels.iter().rev() {
        let &[digit] = *label else { return None };
        bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
    }
    Some(Ipv6Addr::from(bits).into())
}
