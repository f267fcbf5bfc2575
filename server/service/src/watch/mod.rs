//! Watching: streams of changes that cost a cursor each.
//!
//! - [`hub`]: one ring of recent Batches; what is published goes in here and wakes the shards.
//! - `ring`: the ring, within its bounds.
//! - `waiters`: reads that wait for a revision.
//! - `shard`: the watchers of one runtime. A publish wakes each shard once; it finds out who is concerned and
//!   wakes those, all on its own runtime.
//! - `index`, `spans`: who watches which key, prefix or range.
//! - `target`: what a target is, and whether a change concerns it.
//! - `messages`: the stream's messages, encoded once for all watchers of the same target.
//! - `open`: the request parsed and its targets entered.
//! - `state_page`: the entries a target begins with.
//! - `stream`: one stream: its targets, their cursors, and what each is sent next.

mod hub;
mod index;
mod messages;
mod open;
mod ring;
mod shard;
mod spans;
mod state_page;
mod stream;
mod target;
mod waiters;

pub use hub::{Hub, WatchStats};
pub(crate) use messages::{DecodedStream, EncodedMessage, WatchCodec};
pub(crate) use open::open;
pub(crate) use stream::EncodedStream;
