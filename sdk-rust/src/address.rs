//! Parses a server's address. Opens no connection.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use crate::error::Error;

/// Port of an address that names none.
const DEFAULT_PORT: u16 = 8500;

/// Where a server listens: `http://host:port`, `host:port` or `host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Error::InvalidAddress { address: text.into(), why: why.into() };
        let authority = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(invalid("https is not supported yet, use http://")),
            Some(_) => return Err(invalid("the scheme must be http")),
        };
        let uri: Uri = format!("http://{authority}")
            .parse()
            .map_err(|_| invalid("it should look like http://host:8500"))?;
        if uri.path() != "/" || uri.query().is_some() || authority.contains('@') {
            return Err(invalid("only a host and a port may follow http://"));
        }
        let host =
            uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("the host is missing"))?;
        let port = match uri.authority().map(|authority| &authority.as_str()[host.len()..]) {
            None | Some("") => DEFAULT_PORT,
            Some(_) => uri.port_u16().ok_or_else(|| invalid("the port must be 1 to 65535"))?,
        };
        Ok(Self { host: host.into(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_people_write() {
        for (text, expected, host) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500", "127.0.0.1"),
            ("127.0.0.1:9000", "http://127.0.0.1:9000", "127.0.0.1"),
            ("konsul", "http://konsul:8500", "konsul"),
            ("http://konsul/", "http://konsul:8500", "konsul"),
            ("[::1]:8501", "http://[::1]:8501", "::1"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.host()), (expected, host), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (text, why) in [
            ("", "look like"),
            ("https://a:1", "https"),
            ("ftp://a", "scheme"),
            ("a:99999", "port"),
            ("a:", "port"),
            ("a/b", "only a host"),
            ("user@a", "only a host"),
            ("http://a b", "look like"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
