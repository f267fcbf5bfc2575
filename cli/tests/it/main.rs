//! Tests of the `konsul` command: the real binary against a real server, as a user runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod command_line;
mod konsul;
mod kv;
mod watch;
