//! A whole cluster in one thread: members of konsul-raft with their clients on a simulated network, under faults, and checks of
//! what must hold all the same. A seed decides everything, so that a failure can be looked at again. Not part of a server.
//!
//! # Layout
//! - [`run`] (`cluster`): one simulation from its seed to its verdict.
//! - `plan`: what a seed decides before it begins. `faults`: what goes wrong, and when.
//! - `member`: a host: a member, its clients (`client`), its sink. `net`, `disk`: what it stands on.
//! - `kernel`: random bytes and the time, from the seed.
//! - `record`: everything that happened. `complaints`: what members said against themselves.
//! - `invariants`: one file each.

mod client;
mod cluster;
mod complaints;
mod disk;
mod faults;
mod invariants;
mod kernel;
mod member;
mod net;
mod plan;
mod record;

pub use cluster::{Run, run};
pub use invariants::Violation;
