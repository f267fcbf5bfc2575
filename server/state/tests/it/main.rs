//! Tests of the state through its public handles: open, apply, view.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod catalog;
mod catalog_model;
mod chains;
mod coordination;
mod fixture;
mod history;
mod idempotency;
mod model;
mod opening;
mod restore;
mod snapshot;
mod txn;
mod verify;
