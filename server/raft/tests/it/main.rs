//! Tests of consensus through its door: a [`konsul_raft::Node`] over a directory.

mod crash;
mod faults;
mod fixture;
mod full;
mod opening;
mod power;
mod serving;
mod snapshots;
