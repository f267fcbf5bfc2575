//! Tests of the `konsul` command: the real binary against a real server, as a user runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod active_checks;
mod backup;
mod bad_input;
mod command_line;
mod coordination;
mod data_dir;
mod disk_full;
mod drain;
mod durability;
mod hung;
mod konsul;
mod kv;
mod members;
mod peers;
mod proxy;
mod resume;
mod server;
mod space;
mod surface;
mod tls;
mod transfer;
mod verify;
mod watch;
