//! Random packets, and queries that were damaged on their way: the handler never panics and never answers more than it may.
//!
//! `KONSUL_DNS_FUZZ_PACKETS` says how many (default 100,000), `KONSUL_DNS_FUZZ_SEED` begins where another run failed.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::Message;
use konsul_fronts::dns::settings::Recursion;
use konsul_fronts::dns::{Handler, Outcome, Settings, Transport};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::fixture::{catalog, question, settings};

const TRANSPORTS: [Transport; 4] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Https];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Queries to begin with.
fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "web.service.konsul. A",
        "v1.web.service.konsul. SRV edns=1232",
        "_web._tcp.service.konsul. SRV do edns=4096",
        "metrics.port.web.service.dc1.konsul. SRV rd",
        "web-1.instance.web.service.konsul. TXT edns=512",
        "big.service.konsul. SRV edns=65535",
        "api.service.team.ns.konsul. ANY",
        "n1.node.konsul. AAAA",
        "10.2.0.192.in-addr.arpa. PTR",
        "c0000214.addr.konsul. A",
        "konsul. SOA ch",
        "www.example.com. A rd edns1",
    ];
    let mut seeds: Vec<Vec<u8>> = texts.iter().map(|text| question(text).to_vec().unwrap()).collect();
    // With a cookie, padding and keepalive.
    let mut options = question("web.service.konsul. A edns=1232").to_vec().unwrap();
    let tail = options.len() - 2;
    options.truncate(tail);
    options.extend(b"\0\x24\0\x0a\0\x18abcdefgh\x01\0\0\0ttttHHHHHHHH\0\x0c\0\0\0\x0b\0\0");
    seeds.push(options);
    seeds
}

fn damage(packet: &mut Vec<u8>, dice: &mut StdRng) {
    for _ in 0..dice.random_range(0..6) {
        if packet.is_empty() {
            return;
        }
        let at = dice.random_range(0..packet.len());
        match dice.random_range(0..7) {
            0 => packet[at] = dice.random(),
            1 => packet[at] ^= 1 << dice.random_range(0..8),
            2 => packet.truncate(at),
            3 => packet.insert(at, dice.random()),
            4 => _ = packet.remove(at),
            5 => packet[at] = [0, 1, 0x3f, 0x40, 0xc0, 0xff][dice.random_range(0..6)],
            _ => {
                let end = dice.random_range(at..packet.len());
                let again = packet[at..end].to_vec();
                packet.extend(again);
            }
        }
    }
}

fn next_packet(seeds: &[Vec<u8>], dice: &mut StdRng) -> Vec<u8> {
    if dice.random_ratio(1, 8) {
        let longest = if dice.random_ratio(1, 100) { 65_535 } else { 600 };
        let mut packet = vec![0; dice.random_range(0..=longest)];
        dice.fill(&mut packet[..]);
        return packet;
    }
    let mut packet = seeds[dice.random_range(0..seeds.len())].clone();
    damage(&mut packet, dice);
    packet
}

#[test]
fn no_packet_does_harm() {
    let count = from_environment("KONSUL_DNS_FUZZ_PACKETS", 100_000);
    let seed = from_environment("KONSUL_DNS_FUZZ_SEED", rand::random());
    println!("seed {seed}, {count} packets");
    let mut dice = StdRng::seed_from_u64(seed);
    let settings =
        Settings { recursion: Some(Recursion::to(vec![([192, 0, 2, 53], 53).into()])), ..settings() };
    let mut handler = Handler::new(settings, Arc::new(catalog())).unwrap();
    let source: IpAddr = "127.0.0.1".parse().unwrap();
    let (seeds, mut out) = (seeds(), Vec::new());
    let mut outcomes = [0_u64; 3];
    for number in 0..count {
        let packet = next_packet(&seeds, &mut dice);
        let transport = TRANSPORTS[dice.random_range(0..4)];
        let outcome = handler.handle(&packet, source, transport, &mut out);
        outcomes[outcome as usize] += 1;
        if outcome != Outcome::Answered {
            assert!(out.is_empty(), "seed {seed}, packet {number}");
            continue;
        }
        let most = if transport == Transport::Udp { 1_232 } else { 65_535 };
        let about = || format!("seed {seed}, packet {number}: {packet:02x?} -> {out:02x?}");
        assert!(out.len() <= most, "{}", about());
        assert_eq!(out[..2], packet[..2], "{}", about());
        assert!(out[2] & 0x80 != 0, "{}", about());
        if number % 16 == 0 && out[2] & 0x78 == 0 && out[11] <= 1 {
            assert!(Message::from_vec(&out).is_ok(), "{}", about());
        }
        if number % 1_024 == 0 {
            handler.tick();
        }
    }
    println!("silent, answered, forwarded: {outcomes:?}");
    // Each of the three is met, or the packets say nothing.
    assert!(count < 10_000 || outcomes.iter().all(|&times| times > count / 1_000), "{outcomes:?}");
}

/// RFC 1035 §2.3.4 and §4.1.4: names of 65,535 bytes, and chains of pointers, are refused as fast as any other.
#[test]
fn no_name_is_followed_for_ever() {
    let mut handler = Handler::new(settings(), Arc::new(catalog())).unwrap();
    let source: IpAddr = "127.0.0.1".parse().unwrap();
    let header = b"\xab\xcd\0\0\0\x01\xff\xff\0\0\0\0";
    let long: Vec<u8> = header
        .iter()
        .copied()
        .chain(b"\x3f".iter().chain(&[b'a'; 63]).copied().cycle())
        .take(65_535)
        .collect();
    let pointers: Vec<u8> = header
        .iter()
        .copied()
        .chain(*b"\x06konsul\0\0\x01\0\x01")
        .chain((12..32_000_u16).flat_map(|at| (0xc000 | at).to_be_bytes()))
        .take(65_535)
        .collect();
    for packet in [long, pointers] {
        let mut out = Vec::new();
        assert_eq!(handler.handle(&packet, source, Transport::Tcp, &mut out), Outcome::Answered);
        assert_eq!(out[3] & 0xf, 1, "FORMERR");
        assert!(out.len() < 300);
    }
}
