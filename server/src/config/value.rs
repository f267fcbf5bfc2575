//! How a setting's value is written: every kind has one text form, the same in the file, the environment and
//! the documentation.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use konsul_state::{Durability, Persistence};

use super::{LogFormat, MemberKind, Names, Networks, Sockets};

/// A kind of value.
pub(super) trait Value: Sized {
    /// Reads the text form; the error says what it should be.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes the text form.
    fn show(&self) -> String;
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Value for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("a whole number from 0 to {}", Self::MAX))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
number!(u32, usize);

/// Names of an enum's variants.
macro_rules! names {
    ($kind:ty, $should:literal, $($name:literal => $variant:path),*) => {
        impl Value for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok($variant),)*
                    _ => Err($should.to_owned()),
                }
            }
            fn show(&self) -> String {
                match self {
                    $($variant => $name,)*
                }
                .to_owned()
            }
        }
    };
}
names!(Persistence, "lmdb or memory", "lmdb" => Persistence::Lmdb, "memory" => Persistence::Memory);
names!(Durability, "log or synced", "log" => Durability::Log, "synced" => Durability::Synced);
names!(LogFormat, "auto, text or json", "auto" => LogFormat::Auto, "text" => LogFormat::Text, "json" => LogFormat::Json);

names!(MemberKind, "voter, standby or replica", "voter" => MemberKind::Voter, "standby" => MemberKind::Standby, "replica" => MemberKind::Replica);

/// A name: of a member or a cluster, as in DNS (RFC 1123, section 2.1). Empty: none.
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let is_name = text.len() <= 63
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_name { Ok(text.to_owned()) } else { Err("a name of at most 63 of a-z, 0-9 and -".to_owned()) }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

/// Addresses with ports, separated by commas.
impl Value for Vec<String> {
    fn parse(text: &str) -> Result<Self, String> {
        let items: Vec<String> = items(text).map(str::to_owned).collect();
        let is_address = |item: &String| {
            item.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        match items.iter().all(is_address) {
            true => Ok(items),
            false => Err("addresses with ports, such as 10.0.0.1:8300 or konsul-1.example:8300".to_owned()),
        }
    }
    fn show(&self) -> String {
        self.join(",")
    }
}

/// Items separated by commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

impl Value for Names {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(items(text).map(str::to_owned).collect()))
    }
    fn show(&self) -> String {
        self.0.join(",")
    }
}

impl Value for Sockets {
    fn parse(text: &str) -> Result<Self, String> {
        items(text).map(SocketAddr::parse).collect::<Result<_, _>>().map(Self)
    }
    fn show(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Value for Networks {
    fn parse(text: &str) -> Result<Self, String> {
        let network = |item: &str| {
            item.parse().map_err(|_| "networks separated by commas, as 10.0.0.0/8,2001:db8::/32".to_owned())
        };
        items(text).map(network).collect::<Result<_, _>>().map(Self)
    }
    fn show(&self) -> String {
        self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "true or false".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for Option<SocketAddr> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { SocketAddr::parse(text).map(Some) }
    }
    fn show(&self) -> String {
        self.map_or_else(String::new, |address| address.to_string())
    }
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "an address with a port, such as 127.0.0.1:8500 or [::1]:8500".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path".to_owned()) } else { Ok(text.into()) }
    }
    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for Option<PathBuf> {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from))
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, |path| path.display().to_string())
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map_err(|_| "a duration with its unit, such as 500ms, 10s or 1h".to_owned())
    }
    fn show(&self) -> String {
        humantime::format_duration(*self).to_string().replace(' ', "")
    }
}

/// A number of bytes, whatever integer it is kept in.
pub(super) fn parse_bytes<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let bytes = ByteSize::from_str(text).ok().and_then(|size| N::try_from(size.as_u64()).ok());
    bytes.ok_or_else(|| "a number of bytes, such as 65536, 64KiB or 1GiB".to_owned())
}

/// The text form of a number of bytes.
pub(super) fn show_bytes<N: TryInto<u64>>(bytes: N) -> String {
    let bytes = bytes.try_into().unwrap_or(u64::MAX);
    for (unit, name) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes % unit == 0 {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// A filter of `tracing`; checked here so that a wrong one is found where it was set.
pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|_| {
        "a level (error, warn, info, debug, trace) or a filter such as info,openraft=debug".to_owned()
    })
}
