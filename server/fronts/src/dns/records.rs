//! Records of each kind, made of instances, nodes and addresses.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use super::directory::{Address, Instance, PtrTarget};
use super::names::{Found, Owner, Select, address_label};
use super::resolve::Question;
use super::template::{Template, pointer};
use super::wire::{MAX_NAME, encode_name, is_label, push_label, rtype};

/// Of each SRV record: none is to be tried before another, that is what weights are for.
const PRIORITY: u16 = 1;

/// RFC 8482 §4.2: who asks for everything is told that he should not.
pub(super) fn minimal_any(template: &mut Template, ttl: u32) {
    template.push(rtype::HINFO, ttl, 1, |out| out.extend_from_slice(b"\x07RFC8482\0"));
}

/// A or AAAA records, each address once (RFC 2181 §5). Where there is nothing but names, the answer is an alias of one of them,
/// whatever was asked (RFC 1034 §3.6.2).
pub(super) fn addresses<'a>(
    template: &mut Template,
    rtype: u16,
    at: impl Iterator<Item = (&'a Address, u32)>,
    ttl: u32,
) {
    let (mut known, mut aliases) = (Vec::new(), Vec::new());
    for (address, weight) in at {
        match address {
            Address::Ip(address) => known.push((*address, weight)),
            Address::Name(name) => aliases.extend(encode_name(name).map(|wire| (wire, weight))),
        }
    }
    if known.is_empty() {
        template.single = true;
        for (name, weight) in aliases {
            template.push(rtype::CNAME, ttl, weight, |out| out.extend_from_slice(&name));
        }
        return;
    }
    known.retain(|(address, _)| type_of(*address) == rtype);
    known.sort_unstable();
    // Two instances at one address are one record with the share of both.
    known.dedup_by(|(address, weight), (earlier, sum)| {
        let same = address == earlier;
        if same {
            *sum = sum.saturating_add(*weight);
        }
        same
    });
    for (address, weight) in known {
        template.push(rtype, ttl, weight, |out| push_address(out, address));
    }
}

/// SRV records with the addresses of their targets (RFC 2782).
pub(super) fn srv(
    template: &mut Template,
    question: &Question<'_>,
    owner: &Owner,
    select: &Select,
    instances: &[&Instance],
    ttl: u32,
) {
    let mut seen = HashSet::new();
    for instance in instances {
        let port = match select {
            Select::Port(name) => {
                let named = instance.ports.iter().find(|(port, _)| port.eq_ignore_ascii_case(name));
                named.map_or(instance.port, |(_, port)| *port)
            }
            _ => instance.port,
        };
        let Some(target) = Target::of(question, owner, instance) else { continue };
        if !seen.insert((target.name.clone(), port)) {
            continue;
        }
        template.push(rtype::SRV, ttl, u32::from(instance.weight), |out| {
            for number in [PRIORITY, instance.weight, port] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            // RFC 2782: the target is not compressed.
            out.extend_from_slice(&target.name);
        });
        if let Address::Ip(address) = instance.address {
            template.push_glue(
                |out| out.extend_from_slice(&target.short),
                type_of(address),
                ttl,
                |out| push_address(out, address),
            );
        }
    }
}

/// What an SRV record names.
struct Target {
    name: Vec<u8>,
    /// The same with its end left to a pointer.
    short: Vec<u8>,
}

impl Target {
    /// The name it is at, if its address is one; otherwise its own name, in the domain that was asked for; otherwise, or if that would
    /// be too long, that of its address. None: it has no name at all.
    fn of(question: &Question<'_>, owner: &Owner, instance: &Instance) -> Option<Self> {
        let address = match &instance.address {
            Address::Name(name) => {
                return encode_name(name).map(|name| Self { name, short: Vec::new() });
            }
            Address::Ip(address) => *address,
        };
        let Found { kind_at, base_at, .. } = *question.found;
        let own = is_label(&instance.id).then(|| {
            let id = instance.id.to_ascii_lowercase();
            let mut labels = Vec::new();
            for label in [id.as_str(), "instance"] {
                push_label(&mut labels, label.as_bytes());
            }
            // In a plain question the service stands before its kind; in one after RFC 2782 it has another form.
            let name_at = kind_at.checked_sub(owner.name.len() + 1).filter(|&at| {
                usize::from(question.name[at]) == owner.name.len()
                    && &question.name[at + 1..kind_at] == owner.name.as_bytes()
            });
            if name_at.is_none() {
                push_label(&mut labels, owner.name.as_bytes());
            }
            Self::ending_at(labels, question.name, name_at.unwrap_or(kind_at))
        });
        own.flatten().or_else(|| {
            let mut labels = Vec::new();
            for label in [address_label(address).as_str(), "addr"] {
                push_label(&mut labels, label.as_bytes());
            }
            Self::ending_at(labels, question.name, base_at)
        })
    }

    /// Labels followed by the end of the question's name.
    fn ending_at(labels: Vec<u8>, question: &[u8], at: usize) -> Option<Self> {
        let name = [&labels, &question[at..]].concat();
        let mut short = labels;
        short.extend_from_slice(&pointer(at));
        (name.len() <= MAX_NAME).then_some(Self { name, short })
    }
}

/// Metadata, an item a record, each once (RFC 1464). What is longer than a string goes on in the next one of its record.
pub(super) fn txt<'a>(
    template: &mut Template,
    items: impl Iterator<Item = &'a (Box<str>, Box<str>)>,
    ttl: u32,
) {
    let mut seen = HashSet::new();
    for (name, value) in items {
        if seen.insert((name, value)) {
            let text = attribute(name, value);
            template.push(rtype::TXT, ttl, 1, |out| {
                for string in text.chunks(255) {
                    out.push(string.len() as u8);
                    out.extend_from_slice(string);
                }
            });
        }
    }
}

/// `name=value`, with `=`, a grave accent, and spaces around the name quoted by a grave accent (RFC 1464 §2).
fn attribute(name: &str, value: &str) -> Vec<u8> {
    let inner = name.trim_matches([' ', '\t']);
    let (before, after) = match name.find(inner) {
        Some(at) if !inner.is_empty() => (at, at + inner.len()),
        _ => (name.len(), name.len()),
    };
    let mut text = Vec::with_capacity(name.len() + value.len() + 2);
    for (at, byte) in name.bytes().enumerate() {
        let outer = at < before || at >= after;
        if matches!(byte, b'=' | b'`') || outer {
            text.push(b'`');
        }
        text.push(byte);
    }
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text
}

/// The name of something in a domain, on the wire. None: it would be too long.
pub(super) fn target_name(target: &PtrTarget, domain: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    let (namespace, labels): (_, Vec<&str>) = match target {
        PtrTarget::Node { namespace, name } => (namespace, vec![name, "node"]),
        PtrTarget::Instance { namespace, service, id } if is_label(id) => {
            (namespace, vec![id, "instance", service, "service"])
        }
        PtrTarget::Instance { namespace, service, .. } => (namespace, vec![service, "service"]),
    };
    let space: &[&str] = if &**namespace == "default" { &[] } else { &[namespace, "ns"] };
    for label in labels.iter().chain(space) {
        if !is_label(label) {
            return None;
        }
        push_label(&mut name, label.to_ascii_lowercase().as_bytes());
    }
    name.extend_from_slice(domain);
    (name.len() <= MAX_NAME).then_some(name)
}

pub(super) fn type_of(address: IpAddr) -> u16 {
    if address.is_ipv4() { rtype::A } else { rtype::AAAA }
}

pub(super) fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
}

/// A TTL (RFC 2181 §8: 31 bits).
pub(super) fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).map_or(i32::MAX as u32, |seconds| seconds.min(i32::MAX as u32))
}
