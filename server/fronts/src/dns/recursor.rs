//! Questions about names that are not ours, asked of other servers: the first that answers, and what it said is kept as long as it says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::cache::Cache;
use super::counters::Event;
use super::error::DnsError;
use super::handler::Transport;
use super::query::{self, Parsed, Query};
use super::settings::Recursion;
use super::shared::{Shared, opt_length};
use super::wire::MAX_MESSAGE;

/// What we take of others over UDP.
const UDP_BYTES: u16 = 1_232;

/// Asks other servers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Recursor {
    shared: Arc<Shared>,
    settings: Arc<Recursion>,
    places: Arc<Semaphore>,
    kept: Arc<Mutex<Cache<Box<[u8]>, Kept>>>,
}

/// An answer, and when it came.
struct Kept {
    message: Message,
    since: Instant,
    ttl: Duration,
}

impl Recursor {
    /// A recursor, if the settings name servers. `own` are our addresses, none of which may be asked.
    pub(super) fn new(shared: &Arc<Shared>, own: &[SocketAddr]) -> Result<Option<Self>, DnsError> {
        let Some(settings) = shared.resolver.settings.recursion.clone() else { return Ok(None) };
        let wrong = |setting, value: String, rule| DnsError::Setting { setting, value, rule };
        if settings.servers.is_empty() {
            return Err(wrong("recursors", String::new(), "must name at least one server"));
        }
        if let Some(server) = settings.servers.iter().find(|server| own.contains(server)) {
            return Err(wrong(
                "recursors",
                server.to_string(),
                "is our own address, which would ask itself for ever",
            ));
        }
        if settings.max_in_flight > Semaphore::MAX_PERMITS {
            let value = settings.max_in_flight.to_string();
            return Err(wrong("recursion.max_in_flight", value, "is more than there can be"));
        }
        Ok(Some(Self {
            places: Arc::new(Semaphore::new(settings.max_in_flight)),
            kept: Arc::new(Mutex::new(Cache::new(settings.cache_bytes))),
            shared: shared.clone(),
            settings: Arc::new(settings),
        }))
    }

    /// A place for one more question. None: there are too many.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// Answers a packet that the handler said is for another server. None: it is no query after all.
    pub(super) async fn answer(
        &self,
        packet: &[u8],
        source: IpAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let Parsed::Query(query) = query::parse(packet) else { return None };
        let asked = Message::from_vec(packet).ok()?;
        let key = key(&query, &asked);
        let message = match self.remembered(&key) {
            Some(message) => {
                self.shared.counters.event(Event::RecursionCacheHit);
                message
            }
            None => {
                self.shared.counters.event(Event::Recursed);
                let answered = self.ask_in_turn(&asked, query.edns.is_some_and(|edns| edns.dnssec_ok)).await;
                if answered.is_none() {
                    self.shared.counters.event(Event::RecursionFailed);
                }
                let message = answered.unwrap_or_else(|| failed(&asked));
                self.remember(key, &message);
                message
            }
        };
        self.encode(message, &asked, &query, source.to_canonical(), transport)
    }

    fn remembered(&self, key: &[u8]) -> Option<Message> {
        let mut kept = self.kept.lock();
        let found = kept.get(key)?;
        let age = found.since.elapsed();
        if age >= found.ttl {
            kept.remove(key);
            return None;
        }
        let mut message = found.message.clone();
        let older = age.as_secs() as u32;
        let Message { answers, authorities, additionals, .. } = &mut message;
        for record in answers.iter_mut().chain(authorities).chain(additionals) {
            record.decrement_ttl(older);
        }
        Some(message)
    }

    fn remember(&self, key: Box<[u8]>, message: &Message) {
        let Some(ttl) = lifetime(message) else { return };
        let ttl = ttl.min(self.settings.max_ttl);
        if ttl.is_zero() {
            return;
        }
        // A record in memory is some times as large as on the wire.
        let records = message.answers.len() + message.authorities.len() + message.additionals.len();
        let bytes =
            key.len() + records * size_of::<Record>() * 2 + message.to_vec().map_or(0, |wire| wire.len());
        let kept = Kept { message: message.clone(), since: Instant::now(), ttl };
        self.kept.lock().insert(key, kept, bytes);
    }

    /// The first answer that is one. A server that fails or refuses has the next one asked; if none does better its word is passed on.
    async fn ask_in_turn(&self, asked: &Message, dnssec_ok: bool) -> Option<Message> {
        let mut poor = None;
        for server in &self.settings.servers {
            match tokio::time::timeout(self.settings.timeout, ask(*server, asked, dnssec_ok)).await {
                Ok(Ok(message)) => match message.metadata.response_code {
                    ResponseCode::NoError | ResponseCode::NXDomain => return Some(message),
                    _ => poor = Some(message),
                },
                Ok(Err(error)) => tracing::debug!(%server, %error, "a recursor could not be asked"),
                Err(_) => tracing::debug!(%server, "a recursor did not answer in time"),
            }
        }
        poor
    }

    /// The answer as it goes to who asked: his id, his spelling of the name, and as many whole records as fit.
    fn encode(
        &self,
        mut message: Message,
        asked: &Message,
        query: &Query<'_>,
        source: IpAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        message.metadata.id = asked.metadata.id;
        message.metadata.authoritative = false;
        message.metadata.authentic_data = false;
        message.metadata.truncation = false;
        message.metadata.recursion_desired = asked.metadata.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = asked.metadata.checking_disabled;
        message.queries.clone_from(&asked.queries);
        message.edns = None;
        if let Some(question) = asked.queries.first() {
            let same = message.answers.iter_mut().filter(|record| record.name == question.name);
            same.for_each(|record| record.name.clone_from(&question.name));
        }
        let room = self.shared.limit(query, transport) - opt_length(query, transport);
        let mut wire = message.to_vec().ok()?;
        while wire.len() > room {
            // Half at a time: an answer of 64 KiB is cut in a dozen steps.
            if !halve(&mut message.additionals) && !halve(&mut message.authorities) {
                message.metadata.truncation = true;
                if !halve(&mut message.answers) {
                    return None;
                }
            }
            wire = message.to_vec().ok()?;
        }
        if query.edns.is_some() {
            let records = u16::try_from(message.additionals.len() + 1).ok()?;
            wire.get_mut(10..12)?.copy_from_slice(&records.to_be_bytes());
            self.shared.write_opt(query, source, transport, 0, &mut wire);
        }
        Some(wire)
    }
}

/// Drops half of the records, at least one. False: there were none.
fn halve(records: &mut Vec<Record>) -> bool {
    let had = !records.is_empty();
    records.truncate(records.len() / 2);
    had
}

/// What an answer depends on: the question, and whether signatures and unchecked answers are wanted.
fn key(query: &Query<'_>, asked: &Message) -> Box<[u8]> {
    let wants =
        [u8::from(query.edns.is_some_and(|edns| edns.dnssec_ok)), u8::from(asked.metadata.checking_disabled)];
    [query.key(), &wants].concat().into()
}

fn failed(asked: &Message) -> Message {
    Message::error_msg(asked.metadata.id, OpCode::Query, ResponseCode::ServFail)
}

/// How long an answer may be kept: as its shortest record, a negative one as its SOA says (RFC 2308 §5). None: it may not.
fn lifetime(message: &Message) -> Option<Duration> {
    let ttl = match message.metadata.response_code {
        ResponseCode::NoError if !message.answers.is_empty() => {
            message.answers.iter().map(|record| record.ttl).min()
        }
        ResponseCode::NoError | ResponseCode::NXDomain => {
            message.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            })
        }
        _ => None,
    };
    ttl.map(|seconds| Duration::from_secs(seconds.into()))
}

/// Asks one server: by UDP from a port of its own, and again by TCP if the answer was too long.
async fn ask(server: SocketAddr, asked: &Message, dnssec_ok: bool) -> std::io::Result<Message> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = asked.metadata.checking_disabled;
    message.queries.clone_from(&asked.queries);
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES).set_dnssec_ok(dnssec_ok);
    message.set_edns(edns);
    let wire = message.to_vec().map_err(std::io::Error::other)?;
    let answer = by_udp(server, &message, &wire).await?;
    if answer.metadata.truncation { by_tcp(server, &message, &wire).await } else { Ok(answer) }
}

async fn by_udp(server: SocketAddr, asked: &Message, wire: &[u8]) -> std::io::Result<Message> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // From here on the kernel takes packets of that server only.
    socket.connect(server).await?;
    socket.send(wire).await?;
    let mut buffer = vec![0; usize::from(UDP_BYTES)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not belong to the question was sent by somebody else, who must not keep us from the answer.
        if let Some(answer) = matching(&buffer[..length], asked) {
            return Ok(answer);
        }
    }
}

async fn by_tcp(server: SocketAddr, asked: &Message, wire: &[u8]) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(wire.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), wire].concat()).await?;
    let length = stream.read_u16().await?;
    debug_assert!(usize::from(length) <= MAX_MESSAGE);
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    matching(&buffer, asked).ok_or_else(|| std::io::Error::other("what was answered is not what was asked"))
}

/// The answer to a question, if it is one (RFC 5452 §9.1).
fn matching(wire: &[u8], asked: &Message) -> Option<Message> {
    let answer = Message::from_vec(wire).ok()?;
    let same = answer.metadata.id == asked.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == asked.queries;
    same.then_some(answer)
}
