//! From a packet to its answer: no socket, no task, no wait. What can't be answered from here is said to be for another server.

use std::net::IpAddr;
use std::sync::Arc;

use super::cache::Cache;
use super::counters::{Counters, Event, Tally};
use super::directory::Directory;
use super::error::DnsError;
use super::names::Subject;
use super::order::{Dice, draw};
use super::query::{self, Parsed, Query};
use super::rate::Admission;
use super::resolve::{Kept, Verdict, ZoneAt};
use super::settings::Settings;
use super::shared::{Now, Shared, opt_length};
use super::template::{Template, pointer, write_record};
use super::wire::{HEADER, TO_QUESTION, flag, rcode, rtype};

/// Shortest record there is, for what an answer has room for at most: owner, type, class, TTL, length and an address.
const SHORTEST_RECORD: usize = 16;

/// How a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram, whose source may be forged.
    Udp,
    /// Over a connection.
    Tcp,
    /// Over TLS (RFC 7858).
    Tls,
    /// In an HTTPS request (RFC 8484).
    Https,
}

impl Transport {
    pub(super) fn is_encrypted(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is to be sent.
    Silent,
    /// The answer is in the buffer.
    Answered,
    /// The name is none of ours, and whoever asks may have another server asked. The buffer is empty.
    Forward,
}

/// Answers packets, one after the other. Each socket has one of its own.
pub struct Handler {
    shared: Arc<Shared>,
    cache: Cache<Box<[u8]>, Arc<Kept>>,
    dice: Dice,
    order: Vec<u32>,
    tally: Tally,
    now: Now,
}

/// An answer before it is written.
struct Reply<'r> {
    rcode: u16,
    authoritative: bool,
    truncated: bool,
    template: Option<&'r Template>,
    /// Where the zone begins whose SOA goes with an answer that has no records.
    zone: Option<ZoneAt>,
}

impl Reply<'_> {
    fn error(rcode: u16) -> Self {
        Self { rcode, authoritative: false, truncated: false, template: None, zone: None }
    }
}

impl Handler {
    /// A handler on its own, without sockets. Names that are not ours come back as [`Outcome::Forward`] if `settings` name other servers.
    ///
    /// # Errors
    /// [`DnsError::Setting`] for settings that can't be kept.
    pub fn new(settings: Settings, directory: Arc<dyn Directory>) -> Result<Self, DnsError> {
        Ok(Self::with(Arc::new(Shared::new(settings, directory)?)))
    }

    pub(super) fn with(shared: Arc<Shared>) -> Self {
        Self {
            cache: Cache::new(shared.resolver.settings.bounds.cache_bytes),
            dice: Dice::new(rand::random()),
            order: Vec::new(),
            tally: Tally::default(),
            now: shared.now(),
            shared,
        }
    }

    /// What was counted, this handler's last batch not yet included.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Looks at the clock, and adds what was counted to the shared counts. To be called once for each batch of packets.
    pub fn tick(&mut self) {
        self.now = self.shared.now();
        self.tally.flush(&self.shared.counters);
    }

    /// Answers a packet into `out`, which is emptied first. Never longer than what the transport takes: 65,535 bytes, over UDP what the
    /// settings and the client allow.
    pub fn handle(
        &mut self,
        packet: &[u8],
        source: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        out.clear();
        let source = source.to_canonical();
        let (query, refusal) = match query::parse(packet) {
            Parsed::Drop => {
                self.tally.event(Event::Dropped);
                return Outcome::Silent;
            }
            Parsed::Refuse(query, rcode) => (query, Some(rcode)),
            Parsed::Query(query) => (query, None),
        };
        self.tally.query(query.rtype, transport as usize);
        match self.admit(&query, source, transport) {
            Admission::Answer => {}
            Admission::Slip => {
                self.tally.event(Event::LimitedSlipped);
                let has_cookie = query.edns.is_some_and(|edns| edns.cookie.is_some());
                let reply = match has_cookie {
                    // RFC 7873 §5.2.3: with the cookie that comes along he is somebody.
                    true => Reply::error(rcode::BAD_COOKIE),
                    false => Reply { truncated: true, ..Reply::error(rcode::NO_ERROR) },
                };
                self.write(&query, source, transport, &reply, out);
                return Outcome::Answered;
            }
            Admission::Drop => {
                self.tally.event(Event::LimitedDropped);
                return Outcome::Silent;
            }
        }
        match refusal {
            Some(rcode) => self.write(&query, source, transport, &Reply::error(rcode), out),
            None => return self.answer(&query, source, transport, out),
        }
        Outcome::Answered
    }

    /// Answers a packet that can't be answered any better with SERVFAIL.
    pub(super) fn fail(&mut self, packet: &[u8], source: IpAddr, transport: Transport, out: &mut Vec<u8>) {
        out.clear();
        if let Parsed::Query(query) = query::parse(packet) {
            self.write(&query, source, transport, &Reply::error(rcode::SERV_FAIL), out);
        }
    }

    /// Connections and good cookies prove an address; anybody else's answers are counted.
    fn admit(&mut self, query: &Query<'_>, source: IpAddr, transport: Transport) -> Admission {
        if transport != Transport::Udp {
            return Admission::Answer;
        }
        if let Some(cookie) = query.edns.as_ref().and_then(|edns| edns.cookie.as_ref())
            && self.shared.cookies.is_good(cookie, source, self.now.unix_s)
        {
            self.tally.event(Event::CookieGood);
            return Admission::Answer;
        }
        let limiter = self.shared.limiter.as_ref();
        limiter.map_or(Admission::Answer, |limiter| limiter.admit(source, self.now.since_start_us))
    }

    fn answer(
        &mut self,
        query: &Query<'_>,
        source: IpAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let verdict = self.look_up(query, source);
        let negative = |rcode, zone| Reply {
            rcode,
            authoritative: true,
            truncated: false,
            template: None,
            zone: Some(zone),
        };
        let found =
            |template| Reply { template: Some(template), ..negative(rcode::NO_ERROR, ZoneAt::Reverse) };
        let reply = match &verdict {
            None => Reply::error(rcode::SERV_FAIL),
            Some(Verdict::Foreign) if query.wants_recursion() && self.shared.may_recurse(source) => {
                return Outcome::Forward;
            }
            Some(Verdict::Foreign | Verdict::Denied) => Reply::error(rcode::REFUSED),
            Some(Verdict::Absent(zone)) => negative(rcode::NX_DOMAIN, *zone),
            Some(Verdict::Found(template, zone)) => Reply { zone: Some(*zone), ..found(template) },
            Some(Verdict::Kept(kept)) => Reply { zone: Some(kept.zone), ..found(&kept.template) },
        };
        self.write(query, source, transport, &reply, out);
        Outcome::Answered
    }

    /// None: the catalog is too old to answer from.
    fn look_up(&mut self, query: &Query<'_>, source: IpAddr) -> Option<Verdict> {
        let resolver = &self.shared.resolver;
        if self.now.is_stale {
            let foreign = resolver.names.find(query.name()).subject == Subject::Foreign;
            return foreign.then_some(Verdict::Foreign);
        }
        if let Some(kept) = self.cache.get(query.key()) {
            if !resolver.may_see(source, &kept.owner) {
                return Some(Verdict::Denied);
            }
            if resolver.is_current(kept) {
                self.tally.event(Event::CacheHit);
                return Some(Verdict::Kept(kept.clone()));
            }
        }
        let verdict = resolver.resolve(query.name(), query.rtype, source);
        if let Verdict::Kept(kept) = &verdict {
            self.tally.event(Event::CacheMiss);
            let bytes = kept.template.size() + query.key().len() + size_of::<Kept>();
            self.cache.insert(query.key().into(), kept.clone(), bytes);
        }
        Some(verdict)
    }

    fn write(
        &mut self,
        query: &Query<'_>,
        source: IpAddr,
        transport: Transport,
        reply: &Reply<'_>,
        out: &mut Vec<u8>,
    ) {
        let room = self.shared.limit(query, transport) - opt_length(query, transport);
        out.extend_from_slice(&[0; HEADER]);
        out.extend_from_slice(query.question);
        let mut counts = [u16::from(!query.question.is_empty()), 0, 0, 0];
        let mut truncated = reply.truncated;
        match reply.template {
            Some(template) if !template.items.is_empty() => {
                truncated |= self.write_items(template, transport, room, &mut counts, out);
            }
            _ => {
                if let Some(zone) = reply.zone {
                    self.write_soa(zone, out);
                    counts[2] += 1;
                }
            }
        }
        if query.edns.is_some() {
            self.shared.write_opt(query, source, transport, reply.rcode, out);
            counts[3] += 1;
        }
        let mut flags = flag::QR | query.flags & (flag::OPCODE | flag::RD | flag::CD) | reply.rcode & 0xf;
        if reply.authoritative {
            flags |= flag::AA;
        }
        if truncated {
            flags |= flag::TC;
            self.tally.event(Event::Truncated);
        }
        if self.shared.may_recurse(source) {
            flags |= flag::RA;
        }
        let words = [query.id, flags, counts[0], counts[1], counts[2], counts[3]];
        for (place, word) in out.chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        self.tally.answer(reply.rcode);
    }

    /// Writes as many records as fit, in a new order, then as much of what belongs to them as fits. True: records of the answer were left
    /// out; that others were is not told (RFC 2181 §9).
    fn write_items(
        &mut self,
        template: &Template,
        transport: Transport,
        room: usize,
        counts: &mut [u16; 4],
        out: &mut Vec<u8>,
    ) -> bool {
        let most = match (transport, self.shared.resolver.settings.max_udp_answers) {
            _ if template.single => 1,
            (Transport::Udp, most) if most > 0 => most,
            _ => usize::MAX,
        };
        draw(template, most.min(room / SHORTEST_RECORD), &mut self.dice, &mut self.order);
        let mut taken = 0;
        for &place in self.order.iter().take(most) {
            let record = template.answer(&template.items[place as usize]);
            if out.len() + record.len() > room {
                break;
            }
            out.extend_from_slice(record);
            taken += 1;
        }
        counts[1] += taken as u16;
        for &place in &self.order[..taken] {
            let (glue, records) = template.glue(&template.items[place as usize]);
            if out.len() + glue.len() <= room {
                out.extend_from_slice(glue);
                counts[3] += records;
            }
        }
        taken < template.items.len() && !template.single
    }

    fn write_soa(&self, zone: ZoneAt, out: &mut Vec<u8>) {
        let owner = match zone {
            ZoneAt::Domain(at) => pointer(at),
            ZoneAt::Reverse => TO_QUESTION,
        };
        let resolver = &self.shared.resolver;
        // RFC 2308 §3: the record's TTL is that of the negative answer.
        write_record(
            out,
            |out| out.extend_from_slice(&owner),
            rtype::SOA,
            resolver.negative_ttl(),
            |out| resolver.soa(out, zone),
        );
    }
}
