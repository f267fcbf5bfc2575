//! Tests of consensus through its door: a [`konsul_raft::Node`] over a directory.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod crash;
mod faults;
mod fixture;
mod full;
mod opening;
mod power;
mod serving;
mod snapshots;
mod strangers;
mod trio;
