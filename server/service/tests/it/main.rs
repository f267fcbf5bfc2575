//! Tests of the services through the Door, over gRPC on loopback. Consensus is `Solo`, the store a throwaway one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod admin;
mod backup;
mod catalog;
mod coordination;
mod door;
mod harness;
mod health;
mod history_bounds;
mod limits;
mod reads;
mod txn;
mod watch;
mod watch_crowd;
mod watch_model;
mod writes;
