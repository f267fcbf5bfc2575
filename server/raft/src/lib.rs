//! How it is agreed: openraft, its log, group commit, snapshots. The only crate that names openraft.
//!
//! # What is durable
//! The log and the snapshots. A write is acknowledged when its log entry is synced and applied. The state is
//! their materialisation and is, by default, not synced on each commit; when it can't be trusted after a
//! start it is made again from the newest snapshot and the log behind it.
//!
//! # The way of a write
//! caller → `proposer` (a group of Commands becomes one entry) → openraft → `log` (one write and one sync for all
//! that waits) → openraft: committed → `machine` → `apply` (one transaction a run, then the Batches are
//! published, then the callers are answered through `answers`).
//!
//! # Layout
//! - [`Node`] (`node`): one member; opening, serving, stopping. `settings`, `error`, `stats` are its edges.
//! - `data_dir`: the directory, its lock and version. `recovery`: opening and checking what is in it.
//! - `proposer`: group commit. `reads`: read-index rounds. `answers`: answers to callers on other runtimes.
//!   `runtimes`: what each runtime has of its own. `hashes`: what the state's hash was lately.
//! - `log`: the log. [`disk`]: the disk underneath it.
//! - `machine`: openraft's view of the state. `apply`: the thread that writes the state.
//! - `snapshots`: snapshots on disk. `copy`: writing one without disturbing. `keeper`: when they are made, and the log purged.
//!   `shrink`: the state's file written anew without its holes.
//! - `space`: what may be written when space is short. `health`: whether this member may serve.
//! - `peer`: how members speak to each other. [`net`]: the network underneath it. `leadership`: who leads. `forward`: the way to the leader.
//!   `asks`: what the leader knows that no log has.
//! - `cluster`: making a cluster and changing it. `identity`: who this member is.
//! - `types`: openraft's types, and their bytes.
//!
//! # Threads
//! One writes the log, one applies, one prepares log files, and two for each snapshot that is being made (`threads`).
//! Everything else is tasks on the runtime that opened the node.

mod answers;
mod apply;
mod asks;
mod cluster;
mod copy;
mod data_dir;
mod error;
mod forward;
mod hashes;
mod health;
mod identity;
mod keeper;
mod leadership;
mod log;
mod machine;
mod node;
mod peer;
mod proposer;
mod reads;
mod recovery;
mod runtimes;
mod settings;
mod shrink;
mod snapshots;
mod space;
mod stats;
mod threads;
mod types;
mod verify;

pub mod disk;
pub mod net;

pub use cluster::{Recovery, recover};
pub use error::RaftError;
pub use node::Node;
pub use peer::{PEER_NAME, TlsFiles};
pub use settings::{Limits, PeerSettings, Role, Settings};
pub use stats::{Histogram, Stats};
pub use threads::Threads;
pub use verify::{Verified, verify};
