//! Tests of konsul-checks: real sockets on the loopback, targets that behave and targets that don't.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod definitions;
mod fixture;
mod grpc;
mod guard;
mod hostile;
mod http;
mod limits;
mod script;
mod tcp_udp;
mod tls;
