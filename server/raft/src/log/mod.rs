//! The log: raft-engine underneath, one thread that writes it, and openraft's view of it.
//!
//! # Layout
//! - `store`: opening the log; what openraft reads from it and asks of it.
//! - `writer`: the thread that writes: what waits goes out in one write and one sync.
//! - `recent`: what of the log is held in memory.
//! - `frame`: an entry's bytes.
//! - `marks`: what is kept beside the entries: vote, purged, committed, end.
//! - `files`, `spare`: the files, and where new ones come from.
//! - `damage`: telling a torn tail, which a crash explains, from damage, which it does not.

mod damage;
mod files;
pub(crate) mod frame;
mod marks;
mod recent;
mod spare;
mod store;
mod writer;

pub(crate) use store::{Log, LogOptions, LogReader};

/// The log as raft-engine keeps it.
type Engine = raft_engine::Engine<files::LogFiles>;

/// raft-engine keeps many logs in one; ours is this.
const REGION: u64 = 1;
