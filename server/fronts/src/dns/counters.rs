//! What the front counts, for whoever shows metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::wire::rtype;

/// One count: the family it belongs to, and its label there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// `queries_by_type`, `answers_by_rcode`, `queries_by_transport` or `events`.
    pub family: &'static str,
    /// The type's, code's, transport's or event's name.
    pub label: &'static str,
    /// How many.
    pub value: u64,
}

const TYPES: [&str; 9] = ["A", "AAAA", "SRV", "TXT", "PTR", "NS", "SOA", "ANY", "other"];
const RCODES: [&str; 9] =
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS", "BADCOOKIE", "other"];
const TRANSPORTS: [&str; 4] = ["udp", "tcp", "tls", "https"];
const EVENTS: [&str; 10] = [
    "dropped",
    "truncated",
    "limited_dropped",
    "limited_slipped",
    "cache_hit",
    "cache_miss",
    "recursed",
    "recursion_cache_hit",
    "recursion_failed",
    "cookie_good",
];

/// Things that happen to a packet besides being answered.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    /// It was not answered, because it is no query.
    Dropped,
    /// It was answered with TC.
    Truncated,
    LimitedDropped,
    LimitedSlipped,
    CacheHit,
    CacheMiss,
    Recursed,
    RecursionCacheHit,
    RecursionFailed,
    CookieGood,
}

const ALL: usize = TYPES.len() + RCODES.len() + TRANSPORTS.len() + EVENTS.len();
const RCODES_AT: usize = TYPES.len();
const TRANSPORTS_AT: usize = RCODES_AT + RCODES.len();
const EVENTS_AT: usize = TRANSPORTS_AT + TRANSPORTS.len();

/// All counts, shared by all sockets.
#[derive(Debug)]
pub struct Counters([AtomicU64; ALL]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; ALL])
    }
}

impl Counters {
    /// Every count as it is now.
    pub fn all(&self) -> impl Iterator<Item = Count> + '_ {
        let families = [
            ("queries_by_type", &TYPES[..]),
            ("answers_by_rcode", &RCODES[..]),
            ("queries_by_transport", &TRANSPORTS[..]),
            ("events", &EVENTS[..]),
        ];
        let labels = families
            .into_iter()
            .flat_map(|(family, labels)| labels.iter().map(move |label| (family, *label)));
        labels.zip(&self.0).map(|((family, label), value)| Count {
            family,
            label,
            value: value.load(Ordering::Relaxed),
        })
    }

    /// One count. 0 if there is none of that name.
    #[must_use]
    pub fn get(&self, family: &str, label: &str) -> u64 {
        self.all().find(|count| count.family == family && count.label == label).map_or(0, |count| count.value)
    }

    pub(super) fn event(&self, event: Event) {
        self.0[EVENTS_AT + event as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What one socket counted since it last told the others: a packet costs no atomics.
#[derive(Debug)]
pub(super) struct Tally([u32; ALL]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; ALL])
    }
}

impl Tally {
    pub(super) fn query(&mut self, asked: u16, transport: usize) {
        let place = match asked {
            rtype::A => 0,
            rtype::AAAA => 1,
            rtype::SRV => 2,
            rtype::TXT => 3,
            rtype::PTR => 4,
            rtype::NS => 5,
            rtype::SOA => 6,
            rtype::ANY => 7,
            _ => 8,
        };
        self.0[place] += 1;
        self.0[TRANSPORTS_AT + transport] += 1;
    }

    pub(super) fn answer(&mut self, rcode: u16) {
        let place = match rcode {
            0..=5 => usize::from(rcode),
            16 => 6,
            23 => 7,
            _ => 8,
        };
        self.0[RCODES_AT + place] += 1;
    }

    pub(super) fn event(&mut self, event: Event) {
        self.0[EVENTS_AT + event as usize] += 1;
    }

    /// Adds all to the shared counts and begins anew.
    pub(super) fn flush(&mut self, into: &Counters) {
        for (mine, shared) in self.0.iter_mut().zip(&into.0) {
            if *mine > 0 {
                shared.fetch_add(u64::from(*mine), Ordering::Relaxed);
                *mine = 0;
            }
        }
    }
}
