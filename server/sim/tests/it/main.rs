//! The simulation itself: a seed is the same each time, and different seeds are not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod replay;
