//! Carries out one active health check against a target and tells the verdict. What is checked and when, what follows from a
//! verdict, and where definitions come from are not known here: no state, no schedule, no other crate of Konsul.
//!
//! A target is named by whoever registers a service, so that this crate connects wherever a stranger says: each address is
//! judged by the operator's guard right before it is connected to, and whatever a target sends is bounded, in bytes and in time.
//!
//! # Layout
//! - [`prober`]: [`Prober`], which carries out probes: how many at a time, and for how long.
//! - [`settings`]: what an operator decides.
//! - [`probe`]: [`Probe`], a definition that was found to be sound.
//! - [`limits`]: every bound by name.
//! - [`verdict`]: [`Verdict`], and how the words of a target are made harmless.
//! - `target`, `location`, `statuses`: the parts of a definition.
//! - `guard`: which addresses may be connected to.
//! - `dial`: from a name to a connection: lookup, guard, connect, TLS.
//! - `tls`: how a target's certificate is checked.
//! - `failure`: why a check could not be carried out to its end, in words.
//! - `http`, `tcp`, `udp`, `grpc`, `script`: one file a kind.

mod dial;
mod failure;
mod grpc;
mod guard;
mod http;
mod location;
mod script;
mod statuses;
mod target;
mod tcp;
mod tls;
mod udp;

pub mod limits;
pub mod probe;
pub mod prober;
pub mod settings;
pub mod verdict;

pub use probe::{HttpDefinition, Invalid, Probe, TlsDefinition};
pub use prober::Prober;
pub use settings::{Settings, SettingsError};
pub use verdict::{Status, Verdict};
