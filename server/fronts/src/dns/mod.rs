//! DNS: what is in the catalog, as names that anything can look up (docs/dns.md). Answers from a [`Directory`], over UDP, TCP, TLS and HTTPS.
//!
//! # Layout
//! - [`directory`]: what is answered from; somebody else implements it.
//! - [`settings`], `error`: what the front is told, and why it can't start.
//! - [`handler`]: from a packet to its answer, without a socket. In its order: `query` (what is asked), `cookies` and `rate` (of whom), `names`
//!   (what the name stands for), `resolve` and `records` (what is answered), `template` and `order` (encoded, kept, and each time in another order),
//!   `cache`. `shared` is what all handlers have in common.
//! - `udp`, `stream`, `https`: how packets come and go. `recursor`: names that are not ours.
//! - [`server`]: binds, runs and ends all of it.
//! - [`counters`]: what is counted. `wire`: the numbers of the protocol.
//!
//! The receive loop is our own and the answers are encoded by us: a query costs a hash look-up, a check that nothing changed, and copying bytes.
//! hickory reads what is uncommon (queries with odd records, answers of other servers).

pub mod counters;
pub mod directory;
pub mod handler;
pub mod server;
pub mod settings;

mod cache;
mod cookies;
mod error;
mod https;
mod names;
mod order;
mod query;
mod rate;
mod records;
mod recursor;
mod resolve;
mod shared;
mod stream;
mod template;
mod udp;
mod wire;

pub use counters::{Count, Counters};
pub use directory::{Address, Directory, Health, Instance, Node, PtrTarget, Service};
pub use error::DnsError;
pub use handler::{Handler, Outcome, Transport};
pub use server::DnsServer;
pub use settings::Settings;
