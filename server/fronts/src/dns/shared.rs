//! What all handlers of a front have in common: settings, keys, limits and counts, and the OPT record of their answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::cookies::{Cookies, SERVER_COOKIE};
use super::counters::Counters;
use super::directory::Directory;
use super::error::DnsError;
use super::handler::Transport;
use super::names::Names;
use super::query::Query;
use super::rate::Limiter;
use super::resolve::Resolver;
use super::settings::Settings;
use super::wire::{MAX_MESSAGE, MIN_UDP, option, rtype};

/// Encrypted answers are as long as a multiple of this, to whoever asks for padding (RFC 8467 §4.1).
const PADDING_BLOCK: usize = 468;
/// What all handlers of a front share.
pub(super) struct Shared {
    pub(super) resolver: Resolver,
    pub(super) counters: Arc<Counters>,
    pub(super) cookies: Cookies,
    pub(super) limiter: Option<Limiter>,
    started: Instant,
}

/// What is the same for a batch of packets.
#[derive(Clone, Copy)]
pub(super) struct Now {
    pub(super) since_start_us: u64,
    pub(super) unix_s: u32,
    /// What the directory has is older than the settings allow.
    pub(super) is_stale: bool,
}

impl Shared {
    /// Checks the settings.
    pub(super) fn new(settings: Settings, directory: Arc<dyn Directory>) -> Result<Self, DnsError> {
        if !(MIN_UDP as u16..=4_096).contains(&settings.max_udp_bytes) {
            return Err(DnsError::Setting {
                setting: "max_udp_bytes",
                value: settings.max_udp_bytes.to_string(),
                rule: "must be 512 to 4096",
            });
        }
        let names = Names::new(&settings.zone, &settings.listen)?;
        let limiter =
            settings.rate_limit.as_ref().map(|limit| Limiter::new(limit, rand::random())).transpose()?;
        let cookies = Cookies::new(settings.cookie_secret.unwrap_or_else(rand::random));
        let counters = Arc::default();
        let resolver = Resolver { directory, names, settings };
        Ok(Self { resolver, counters, cookies, limiter, started: Instant::now() })
    }

    pub(super) fn now(&self) -> Now {
        let stale = self
            .resolver
            .settings
            .max_stale
            .is_some_and(|limit| self.resolver.directory.age().is_some_and(|age| age > limit));
        Now {
            since_start_us: self.started.elapsed().as_micros() as u64,
            unix_s: unix_seconds(),
            is_stale: stale,
        }
    }

    /// The OPT record (RFC 6891 §6.1.2), for which room was left, and the padding that fills it up.
    pub(super) fn write_opt(
        &self,
        query: &Query<'_>,
        source: IpAddr,
        transport: Transport,
        rcode: u16,
        out: &mut Vec<u8>,
    ) {
        let Some(edns) = &query.edns else { return };
        out.push(0);
        out.extend_from_slice(&rtype::OPT.to_be_bytes());
        out.extend_from_slice(&self.resolver.settings.max_udp_bytes.to_be_bytes());
        let dnssec_ok = if edns.dnssec_ok { 0x8000_u16 } else { 0 };
        out.extend_from_slice(&[(rcode >> 4) as u8, 0]);
        out.extend_from_slice(&dnssec_ok.to_be_bytes());
        let length_at = out.len();
        out.extend_from_slice(&[0, 0]);
        let mut put = |code: u16, value: &[&[u8]]| {
            let length = value.iter().map(|part| part.len()).sum::<usize>() as u16;
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(&length.to_be_bytes());
            value.iter().for_each(|part| out.extend_from_slice(part));
        };
        if let Some(cookie) = &edns.cookie {
            let server = self.cookies.make(cookie.client, source, unix_seconds());
            put(option::COOKIE, &[&cookie.client, &server]);
        }
        if keeps_alive(query, transport) {
            // RFC 7828 §3.1: in units of 100 ms.
            let timeout = self.resolver.settings.bounds.idle_timeout.as_millis() / 100;
            put(option::KEEPALIVE, &[&u16::try_from(timeout).unwrap_or(u16::MAX).to_be_bytes()]);
        }
        if edns.padding && transport.is_encrypted() {
            let wanted = (out.len() + 4).next_multiple_of(PADDING_BLOCK).min(MAX_MESSAGE);
            let padding = wanted.saturating_sub(out.len() + 4);
            out.extend_from_slice(&option::PADDING.to_be_bytes());
            out.extend_from_slice(&(padding as u16).to_be_bytes());
            out.resize(out.len() + padding, 0);
        }
        let length = (out.len() - length_at - 2) as u16;
        out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    /// Most bytes of an answer, its OPT record included.
    pub(super) fn limit(&self, query: &Query<'_>, transport: Transport) -> usize {
        let most = self.resolver.settings.max_udp_bytes;
        match (transport, &query.edns) {
            (Transport::Udp, Some(edns)) => usize::from(edns.size.min(most)).max(MIN_UDP),
            (Transport::Udp, None) => MIN_UDP,
            _ => MAX_MESSAGE,
        }
    }

    /// Whether somebody may have other servers asked.
    pub(super) fn may_recurse(&self, source: IpAddr) -> bool {
        let recursion = self.resolver.settings.recursion.as_ref();
        recursion.is_some_and(|recursion| recursion.networks.iter().any(|network| network.contains(&source)))
    }
}

fn unix_seconds() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() as u32
}

/// Bytes of the OPT record, without the padding but with its header.
pub(super) fn opt_length(query: &Query<'_>, transport: Transport) -> usize {
    let Some(edns) = &query.edns else { return 0 };
    let cookie = if edns.cookie.is_some() { 4 + 8 + SERVER_COOKIE } else { 0 };
    let keepalive = if keeps_alive(query, transport) { 6 } else { 0 };
    let padding = if edns.padding && transport.is_encrypted() { 4 } else { 0 };
    11 + cookie + keepalive + padding
}

/// RFC 7828 §3.2.1: not over UDP; RFC 8484 leaves it to HTTP.
fn keeps_alive(query: &Query<'_>, transport: Transport) -> bool {
    matches!(transport, Transport::Tcp | Transport::Tls) && query.edns.is_some_and(|edns| edns.keepalive)
}
