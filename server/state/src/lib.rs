//! The state machine: what is true, in LMDB, pure and synchronous.
