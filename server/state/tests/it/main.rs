//! Tests of the state through its public handles: open, apply, view.

mod fixture;
mod history;
mod idempotency;
mod model;
mod opening;
mod snapshot;
mod txn;
