//! Tests of the client against a server that fails on purpose, which a real one cannot be made to do at will. What the
//! client does with a real server is tested in `cli` and `examples`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod calls;
mod coordination;
mod fake;
mod resume;
