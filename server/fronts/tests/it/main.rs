//! Tests of the fronts over sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dns;
