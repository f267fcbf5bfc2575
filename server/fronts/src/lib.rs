//! Everything that speaks. A front turns a protocol into calls of the Door and its answers back; it means
//! nothing by itself, reads no state and names no RPC.
//!
//! # Layout
//! - [`listener`]: accepts connections and hands them to the runtimes that serve calls.
//! - `connection`: HTTP/1 and HTTP/2 on one connection, with its bounds and its graceful end.
//! - [`port`]: what is spoken on the one port: gRPC goes to the Door, the rest to the pages.
//! - [`dns`]: the catalog by DNS, on a port of its own.
//! - [`pages`]: `/metrics`, `/health/live`, `/health/ready`.
//! - [`discovery`]: the catalog for Prometheus, `/discovery/prometheus`.

mod connection;

pub mod discovery;
pub mod dns;
pub mod listener;
pub mod pages;
pub mod port;

pub use listener::{Bounds, Listener};
pub use pages::Probe;
pub use port::Port;
