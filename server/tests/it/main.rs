//! Tests of a server's settings through their public door. The running server is tested where its binary is, in
//! `cli/tests`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod config;
