//! The names that certificates are made for, as they come from the command line. Resolves nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rcgen::SanType;
use rustls_pki_types::DnsName;

/// Longest name: that of a label in DNS (RFC 1035 §2.3.4).
const NAME_MAX_CHARS: usize = 63;

/// The name of a member or a cluster: 1 to 63 of `a` to `z`, `0` to `9` and `-`, from a letter to a letter or digit. That makes it a
/// label of DNS (RFC 1035 §2.3.1), and the name of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed =
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        if allowed && begins && !text.ends_with('-') && text.len() <= NAME_MAX_CHARS {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "a name is 1 to {NAME_MAX_CHARS} of a-z, 0-9 and -, begins with a letter and does not end with -"
        ))
    }
}

/// Parses a host that a certificate is valid for besides the names it always has.
pub(super) fn host(text: &str) -> Result<SanType, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    match DnsName::try_from(text) {
        // The root's dot is no part of a name in a certificate (RFC 5280 §4.2.1.6).
        Ok(_) if !text.ends_with('.') => dns(text).map_err(|error| error.to_string()),
        _ => Err("it should be a DNS name or an IP address, without a port".into()),
    }
}

/// A DNS name as certificates have it.
pub(super) fn dns(name: &str) -> Result<SanType, rcgen::Error> {
    Ok(SanType::DnsName(name.to_ascii_lowercase().try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels_of_dns() {
        for text in ["a", "node-1", "a--b", &"a".repeat(63)] {
            assert_eq!(text.parse::<Name>().map(|name| name.to_string()), Ok(text.into()));
        }
        for text in ["", "A", "1a", "-a", "a-", "a_b", "a.b", "a/b", "ä", "a b", &"a".repeat(64)] {
            assert!(text.parse::<Name>().unwrap_err().contains("1 to 63"), "{text}");
        }
    }

    #[test]
    fn hosts_are_addresses_or_dns_names() {
        let address = |text: &str| SanType::IpAddress(text.parse().unwrap());
        for (text, expected) in [
            ("10.0.0.1", address("10.0.0.1")),
            ("::1", address("::1")),
            ("Konsul-1.Example", dns("konsul-1.example").unwrap()),
        ] {
            assert_eq!(host(text), Ok(expected), "{text}");
        }
        for text in ["", "a:8300", "[::1]", "http://a", "a b", "10.0.0.256", "a.", "*.a", "-a"] {
            assert!(host(text).unwrap_err().contains("DNS name"), "{text}");
        }
    }
}
