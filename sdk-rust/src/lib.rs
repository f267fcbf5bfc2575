//! Konsul's client for Rust: KV, retries with idempotency keys, a watch that resumes by itself, and leases, locks and elections
//! that are kept up and tell when they are lost.
//!
//! ```no_run
//! use konsul_client::{Client, WatchEvent, WatchOptions};
//!
//! # async fn example() -> Result<(), konsul_client::Error> {
//! let client = Client::connect("http://127.0.0.1:8500").await?;
//! let kv = client.kv();
//!
//! kv.put("app/port", "8080").await?;
//! if let Some(entry) = kv.get("app/port").await? {
//!     println!("{} at revision {}", String::from_utf8_lossy(&entry.value), entry.mod_revision);
//! }
//!
//! let mut watch = kv.watch(WatchOptions::prefix("app/").initial_state());
//! while let Some(event) = watch.next().await {
//!     if let WatchEvent::Put { entry, .. } = event? {
//!         println!("{} changed", entry.key);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What a call promises
//! - **Deadline.** A call ends within the client's timeout (10 s unless the [builder](Client::builder) or
//!   [`Kv::timeout`] says otherwise), all attempts included, and the server is told so that it stops working too.
//! - **Retries.** A call is made again after UNAVAILABLE and ABORTED, and after RESOURCE_EXHAUSTED if the server asks
//!   for a pause of a second at most, with exponential backoff and full jitter. A connection that breaks is UNAVAILABLE.
//! - **Exactly once.** Each write carries an idempotency key, the same on all its attempts, by which the server knows a
//!   write that it has done already. To carry a retry over a restart of the program, choose the key:
//!   [`Put::idempotency_key`](kv::Put::idempotency_key).
//! - **Several servers.** With several addresses, the next one is tried when one cannot be connected to, answers that it
//!   cannot serve now (UNAVAILABLE: it has no leader, lags too far behind, or stops), breaks the connection, or keeps
//!   silent: for [3 s](ClientBuilder::attempt_timeout) on a call (less if the call's deadline is near), for [5 s and
//!   3 s more](ClientBuilder::keep_alive_interval) on a watch. With a single address no call is cut short.
//!
//! Messages are those of the API itself ([`proto`]); what is of this crate is how calls are made. A client works within a
//! tokio runtime, of either flavour.
//!
//! # Layout
//! - [`Client`], [`ClientBuilder`]: the way in
//! - [`kv`]: reads and writes, one builder a call
//! - [`watch`]: changes as they happen
//! - [`lease`], [`lock`], [`election`]: what is held as long as a guard lives, and tells when it is lost
//! - [`catalog`], [`health`]: services, where their instances run, and how these are
//! - [`Admin`]: status and compaction
//! - [`Error`]: what went wrong

mod address;
mod admin;
mod call;
pub mod catalog;
mod client;
pub mod election;
mod error;
pub mod health;
mod keys;
pub mod kv;
pub mod lease;
pub mod lock;
mod retry;
mod scope;
mod transport;
pub mod watch;

pub use admin::Admin;
pub use catalog::{Catalog, Registered};
pub use client::{Client, ClientBuilder};
pub use election::{Elections, Leadership};
pub use error::{Answer, CompactedError, Error, Unreachable};
pub use health::Health;
pub use keys::Keys;
pub use konsul_proto::DESCRIPTOR_SET;
pub use konsul_proto::v1 as proto;
pub use konsul_proto::v1::Entry;
pub use konsul_proto::v1::compare::Operator;
pub use kv::{Compare, DeleteOperation, Kv, Operation, PutOperation};
pub use lease::{HeldLease, Leases};
pub use lock::{LockGuard, Locks};
pub use tonic::Code;
pub use watch::{Watch, WatchEvent, WatchOptions};
