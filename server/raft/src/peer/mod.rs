//! How members speak to each other: gRPC on a port of its own, over mutually authenticated TLS.
//!
//! # Layout
//! - `proto/peer.proto`: the messages. `convert`: openraft's messages as these, and back.
//! - `links`: connections to other members. `tls`: what proves who is at the other end.
//! - `network`: what openraft sends. `snapshot`: snapshots, in pieces that can be resumed.
//! - `service`: what is answered. `port`: where.

mod convert;
#[cfg(test)]
mod fuzz;
mod links;
mod network;
mod port;
mod service;
mod snapshot;
mod tls;

pub(crate) use links::{Lane, Links};
pub(crate) use network::Network;
pub(crate) use port::{PeerPort, ServedPort};
pub(crate) use service::{PeerService, Serving};
pub(crate) use snapshot::fetch as fetch_snapshot;
pub(crate) use tls::Tls;
pub use tls::{PEER_NAME, TlsFiles};

/// The messages and stubs of `peer.proto`.
#[allow(missing_docs, clippy::all)]
pub(crate) mod pb {
    include!(concat!(env!("OUT_DIR"), "/konsul.peer.rs"));
}
