//! What must hold of what clients, writers and watchers remember. Each check is a function of that alone and returns what is wrong, a
//! line each. Linearizability of single keys is judged by the checker, a program of its own.

mod availability;
mod counting;
mod order;
mod promises;
mod streams;
mod tenancies;
mod writes;

pub(crate) use availability::{longest_silence, writes_go_on};
pub(crate) use counting::{coordination_happened, counting_is_exact};
pub(crate) use order::revisions_follow_time;
pub(crate) use promises::promises_are_kept;
pub(crate) use streams::stream_is_history;
pub(crate) use tenancies::{lateness, leases_live_their_time};
pub(crate) use writes::writes_are_in_history;
