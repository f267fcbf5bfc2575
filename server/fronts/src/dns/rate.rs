//! How many answers go to a network over UDP, so that packets with a forged source can't have us flood somebody.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use super::error::DnsError;
use super::settings::RateLimit;

/// Bits of a slot that tell whose it is; the others are a time in ticks.
const TAG_BITS: u32 = 20;
const TIME_MASK: u64 = u64::MAX >> TAG_BITS;
/// A tick is 10 µs, so that 44 bits of them are five years.
const TICKS_PER_SECOND: u64 = 100_000;

/// A table of networks, each with the time until which its answers are spoken for (the generic cell rate algorithm). Networks that
/// share a slot push each other out, which can only make us answer too many; the key of the hash is random, so nobody can choose whom
/// he pushes out.
pub(super) struct Limiter {
    slots: Box<[AtomicU64]>,
    key: [u8; 16],
    /// Ticks that an answer takes, and that a network may be ahead.
    ticks_per_answer: u64,
    ticks_of_burst: u64,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    slip: u32,
    exempt: Box<[IpNet]>,
    refused: AtomicU32,
}

/// What is to be done with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Send it.
    Answer,
    /// Send one without records that says to come again.
    Slip,
    /// Send nothing.
    Drop,
}

impl Limiter {
    /// Checks the settings. `key` is random.
    pub(super) fn new(limit: &RateLimit, key: [u8; 16]) -> Result<Self, DnsError> {
        let wrong = |setting, value: u64, rule| DnsError::Setting { setting, value: value.to_string(), rule };
        let rate = u64::from(limit.answers_per_second);
        if !(1..=TICKS_PER_SECOND).contains(&rate) {
            return Err(wrong("rate_limit.answers_per_second", rate, "must be 1 to 100000"));
        }
        let burst = u64::from(limit.burst);
        if burst == 0 || burst > rate * 60 {
            return Err(wrong(
                "rate_limit.burst",
                burst,
                "must be 1 or more, and no more than 60 s of answers",
            ));
        }
        if limit.ipv4_prefix > 32 || limit.ipv6_prefix > 128 {
            let longest = limit.ipv4_prefix.max(limit.ipv6_prefix);
            return Err(wrong(
                "rate_limit.prefix",
                longest.into(),
                "must be 0 to 32 for IPv4, 0 to 128 for IPv6",
            ));
        }
        if !(1..=1 << 24).contains(&limit.networks) {
            return Err(wrong("rate_limit.networks", limit.networks as u64, "must be 1 to 16777216"));
        }
        Ok(Self {
            slots: (0..limit.networks).map(|_| AtomicU64::new(0)).collect(),
            key,
            ticks_per_answer: TICKS_PER_SECOND / rate,
            ticks_of_burst: TICKS_PER_SECOND * burst / rate,
            ipv4_prefix: limit.ipv4_prefix,
            ipv6_prefix: limit.ipv6_prefix,
            slip: limit.slip,
            exempt: limit.exempt.clone().into(),
            refused: AtomicU32::new(0),
        })
    }

    /// Counts an answer to an address, `now_us` microseconds after the start.
    pub(super) fn admit(&self, source: IpAddr, now_us: u64) -> Admission {
        if self.exempt.iter().any(|network| network.contains(&source)) {
            return Admission::Answer;
        }
        let hash = self.hash(source);
        let tag = hash >> (64 - TAG_BITS) << (64 - TAG_BITS);
        let slot = &self.slots[(hash as usize) % self.slots.len()];
        // Later than 0, so that an empty slot is one of the past.
        let now = (now_us / 10 + 1) & TIME_MASK;
        let answered = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |found| {
            let until = if found & !TIME_MASK == tag { (found & TIME_MASK).max(now) } else { now };
            let next = until + self.ticks_per_answer;
            (next - now <= self.ticks_of_burst).then_some(tag | (next & TIME_MASK))
        });
        match answered {
            Ok(_) => Admission::Answer,
            Err(_) if self.slip == 0 => Admission::Drop,
            Err(_) => match self.refused.fetch_add(1, Ordering::Relaxed) % self.slip {
                0 => Admission::Slip,
                _ => Admission::Drop,
            },
        }
    }

    fn hash(&self, source: IpAddr) -> u64 {
        let hasher = SipHasher13::new_with_key(&self.key);
        match source {
            IpAddr::V4(address) => {
                let drop = 32 - u32::from(self.ipv4_prefix);
                hasher.hash(&u64::from(u32::from(address)).wrapping_shr(drop).to_ne_bytes())
            }
            IpAddr::V6(address) => {
                let drop = 128 - u32::from(self.ipv6_prefix);
                hasher.hash(&u128::from(address).checked_shr(drop).unwrap_or(0).to_ne_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(limit: RateLimit) -> Limiter {
        Limiter::new(&limit, [7; 16]).unwrap()
    }

    fn answers(limiter: &Limiter, source: &str, now_us: u64) -> usize {
        let source = source.parse().unwrap();
        (0..10_000).filter(|_| limiter.admit(source, now_us) == Admission::Answer).count()
    }

    #[test]
    fn a_network_gets_its_burst_and_then_its_rate() {
        let limiter = limiter(RateLimit { answers_per_second: 100, burst: 50, ..RateLimit::default() });
        assert_eq!(answers(&limiter, "192.0.2.1", 0), 50);
        assert_eq!(answers(&limiter, "192.0.2.255", 0), 0, "of the same /24");
        assert_eq!(answers(&limiter, "192.0.3.1", 0), 50, "of another");
        assert_eq!(answers(&limiter, "192.0.2.1", 100_000), 10, "a tenth of a second later");
        assert_eq!(
            answers(&limiter, "192.0.2.1", 60_000_000),
            50,
            "no more than a burst, however long it is silent"
        );
        assert_eq!(answers(&limiter, "2001:db8:0:100::1", 0), 50);
        assert_eq!(answers(&limiter, "2001:db8:0:1ff::1", 0), 0, "of the same /56");
        assert_eq!(answers(&limiter, "2001:db8:0:200::1", 0), 50, "of another");
        assert_eq!(answers(&limiter, "127.0.0.1", 0), 10_000, "exempt");
    }

    #[test]
    fn every_second_of_the_others_is_told_to_come_again() {
        let limiter = limiter(RateLimit { answers_per_second: 1, burst: 1, ..RateLimit::default() });
        let source = "192.0.2.1".parse().unwrap();
        let all: Vec<_> = (0..5).map(|_| limiter.admit(source, 0)).collect();
        use Admission::{Answer, Drop, Slip};
        assert_eq!(all, [Answer, Slip, Drop, Slip, Drop]);
    }

    #[test]
    fn as_many_networks_as_there_are_take_no_more_room() {
        let limiter = limiter(RateLimit { networks: 16, ..RateLimit::default() });
        for address in 0..100_000_u32 {
            let source = std::net::Ipv4Addr::from(0xc000_0000 + (address << 8)).into();
            assert_eq!(limiter.admit(source, 0), Admission::Answer);
        }
        assert_eq!(limiter.slots.len(), 16);
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        let default = RateLimit::default;
        for limit in [
            RateLimit { answers_per_second: 0, ..default() },
            RateLimit { answers_per_second: 100_001, ..default() },
            RateLimit { burst: 0, ..default() },
            RateLimit { answers_per_second: 1, burst: 61, ..default() },
            RateLimit { ipv4_prefix: 33, ..default() },
            RateLimit { networks: 0, ..default() },
        ] {
            assert!(Limiter::new(&limit, [0; 16]).is_err(), "{limit:?}");
        }
    }
}
