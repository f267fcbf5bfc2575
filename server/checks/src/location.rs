//! Where an HTTP check goes: a URL, in the parts that a request needs, and the URLs that its answers redirect to.

use std::fmt;

use http::HeaderValue;
use http::uri::PathAndQuery;
use url::{Position, Url};

use crate::limits::URL_BYTES;
use crate::target::{Host, Target};

const SHAPE: &str = "must be a URL, as http://192.0.2.10:8080/health";

/// A URL that can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    url: Url,
    pub(crate) target: Target,
    /// What stands in the request's first line.
    pub(crate) path: PathAndQuery,
    /// What stands in its `Host`.
    pub(crate) authority: HeaderValue,
}

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > URL_BYTES {
            return Err("must not be longer than 2,048 bytes");
        }
        // The parser would drop tabs and line ends, as browsers do, and read a backslash as a slash.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err("must have no spaces, backslashes or control characters");
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).ok_or(SHAPE)?;
        if scheme != "http" && scheme != "https" {
            return Err("must begin with http:// or https://");
        }
        Self::of(Url::parse(text).map_err(|_| SHAPE)?)
    }

    /// Where an answer's `Location` leads to (RFC 9110 §10.2.2), which may be relative.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn redirect(&self, location: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(location).map_err(|_| "which is no URL")?;
        if text.len() > URL_BYTES {
            return Err("which is longer than 2,048 bytes");
        }
        let mut url = self.url.join(text).map_err(|_| "which is no URL")?;
        url.set_fragment(None);
        if url.scheme() != self.url.scheme() {
            return Err("which is of another scheme");
        }
        if url.host_str() != self.url.host_str() {
            return Err("which is another host");
        }
        Self::of(url).map_err(|_| "which is no URL to follow")
    }

    /// Whether TLS is spoken.
    pub(crate) fn is_secure(&self) -> bool {
        self.url.scheme() == "https"
    }

    fn of(url: Url) -> Result<Self, &'static str> {
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must have no user name or password: set an authorization header");
        }
        if url.fragment().is_some() {
            return Err("must have no fragment (#…): it is never sent");
        }
        let host = match url.host() {
            Some(url::Host::Ipv4(address)) => Host::Address(address.into()),
            Some(url::Host::Ipv6(address)) => Host::Address(address.into()),
            Some(url::Host::Domain(name)) => Host::parse(name)?,
            None => return Err(SHAPE),
        };
        let port =
            url.port_or_known_default().filter(|port| *port > 0).ok_or("the port must be 1 to 65535")?;
        let unfit = |_| "must have no characters that HTTP can't send: encode them with %";
        let path = PathAndQuery::try_from(&url[Position::BeforePath..Position::AfterQuery]).map_err(unfit)?;
        let authority = HeaderValue::try_from(&url[Position::BeforeHost..Position::AfterPort]);
        let authority = authority.map_err(|_| SHAPE)?;
        Ok(Self { target: Target { host, port }, path, authority, url })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}
