//! Why the DNS front can't be started. What goes wrong with a packet is an answer, not an error.

use std::io;
use std::net::SocketAddr;

/// Why the DNS front can't be started.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A setting can't be kept.
    #[error("dns.{setting} = {value:?}: {rule}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What was set.
        value: String,
        /// What it should be.
        rule: &'static str,
    },
    /// There is an address for TLS or HTTPS, and no certificate.
    #[error(
        "dns.{setting} is set, and there is no certificate to serve it with: set one, or leave the address away"
    )]
    NoCertificate {
        /// The setting with the address.
        setting: &'static str,
    },
    /// A socket can't be bound.
    #[error("cannot listen for DNS on {address} ({protocol}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// UDP, TCP, TLS or HTTPS.
        protocol: &'static str,
        /// Why.
        source: io::Error,
    },
}
