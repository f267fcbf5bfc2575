//! Watching: streams of changes that cost a cursor each.
//!
//! - [`hub`]: one ring of recent Batches; what is published goes in here and wakes the shards.
//! - `ring`: the ring, within its bounds.
//! - `waiters`: reads that wait for a revision.
//! - `shard`: the watchers of one runtime. A publish wakes each shard once; it finds out who is concerned and
//!   wakes those, all on its own runtime.
//! - `index`, `spans`: who watches what.
//! - `target`: what a target is, and whether a change concerns it; `query`: how the requests of each service name theirs.
//! - `messages`: the stream's messages, encoded once for all watchers of the same target.
//! - `open`: the targets entered.
//! - `state_page`: what a target begins with.
//! - `service`: the calls of all services that open streams.
//! - `stream`: one stream: its targets, their cursors, and what each is sent next.

mod hub;
mod index;
mod messages;
mod open;
mod query;
mod ring;
mod service;
mod shard;
mod spans;
mod state_page;
mod stream;
mod target;
mod waiters;

pub use hub::{Hub, WatchStats};
pub(crate) use messages::{DecodedStream, EncodedMessage, WatchCodec};
pub(crate) use query::WatchQuery;
pub(crate) use service::Watches;
pub(crate) use stream::EncodedStream;
