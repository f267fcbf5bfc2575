//! Where a check goes: a host, by address or by name, and a port. Nothing is looked up here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use rustls_pki_types::ServerName;

use crate::limits::{LABEL_BYTES, NAME_BYTES};

const SHAPE: &str = "must be host:port, as 192.0.2.10:80, db.example:5432 or [2001:db8::1]:80";
const NAME: &str = "the host must be an IP address or a DNS name: labels of 1 to 63 letters, digits, `-` and `_`, 253 bytes in all";

/// A host and a port of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    /// 1 to 65535.
    pub(crate) port: u16,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// By address.
    Address(IpAddr),
    /// By name, which is a DNS name.
    Name(String),
}

impl Target {
    /// Reads `host:port`, with an IPv6 address in brackets.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, port) = text.rsplit_once(':').ok_or(SHAPE)?;
        let host = match host.strip_prefix('[').map(|host| host.strip_suffix(']')) {
            Some(Some(inner)) => Host::Address(IpAddr::V6(inner.parse::<Ipv6Addr>().map_err(|_| SHAPE)?)),
            Some(None) => return Err(SHAPE),
            None if host.contains(':') => {
                return Err("an IPv6 address must be in brackets, as [2001:db8::1]:80");
            }
            None => Host::parse(host)?,
        };
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port =
            port.parse().ok().filter(|port| digits && *port > 0).ok_or("the port must be 1 to 65535")?;
        Ok(Self { host, port })
    }
}

impl Host {
    /// Reads an IPv4 address or a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        if is_name(text) { Ok(Self::Name(text.to_ascii_lowercase())) } else { Err(NAME) }
    }

    /// The name that a certificate is checked against.
    ///
    /// # Errors
    /// When no certificate can be for it.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, &'static str> {
        match self {
            Self::Address(address) => Ok(ServerName::IpAddress((*address).into())),
            Self::Name(name) => ServerName::try_from(name.trim_end_matches('.').to_owned())
                .map_err(|_| "no certificate can be for this host: set a server_name"),
        }
    }
}

/// Whether it is a DNS name, maybe with a dot at its end. Resolvers read `127.1` or `0x7f.1` as addresses: whoever means one may
/// write it as one.
fn is_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.len() <= NAME_BYTES && name.split('.').all(label) && !number
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
