//! What is true: the state machine of Konsul, in LMDB.
//!
//! Pure and synchronous. There is no clock, no randomness, no thread, no environment and no async runtime
//! in here: time and ids arrive inside a [`Command`], and the same log makes the same bytes on every member.
//!
//! # Layout
//! - [`ids`]: the newtypes everything is named by: [`Revision`], [`Namespace`], [`Key`], [`LeaseId`], [`LockId`],
//!   [`LogPosition`].
//! - [`command`]: what the log carries ([`Command`]) and what applying it yields ([`Outcome`]).
//! - [`batch`]: what one revision changed ([`Batch`] of [`Change`]s), as watchers receive it.
//! - [`tables`]: one file a table: its number, key codec, record and invariants; all listed in one place.
//! - `tx`: the only writer. It records a Change for every row it touches.
//! - `apply`: one file a kind of Command.
//! - [`store`]: opening, reading handle ([`State`]) and the single writing handle ([`StateWriter`]).
//! - [`view`]: reads, each in one short transaction.
//! - [`mod@verify`]: checking all of a state against itself.
//! - [`backup`]: what a state holds as bytes for a file, and those bytes taken apart again.
//! - [`snapshot`]: copying the state out and putting one in its place.
//! - `room`: space on the disk, allocated before it is written to.
//! - [`propose`]: where the layers above meet consensus, and [`propose::Solo`], which needs none.

mod apply;
mod hash;
mod marker;
mod room;
mod tx;

pub mod backup;
pub mod batch;
pub mod cluster;
pub mod command;
pub mod error;
pub mod ids;
pub mod propose;
pub mod snapshot;
pub mod store;
pub mod tables;
pub mod verify;
pub mod view;

pub use apply::{FLAP_WINDOW_MS, FLIPS, HOLD_MS, OUTPUT_EVERY_MS};
pub use batch::{Batch, Change};
pub use command::{Command, CommandGroup, Outcome};
pub use error::{ReadError, StateError};
pub use hash::StateHash;
pub use ids::{
    CheckId, CheckOwner, Ident, InstanceId, Key, Label, LeaseId, LockId, LogPosition, Namespace, NodeId,
    Revision, ServiceId,
};
pub use store::{Durability, Entry, Origin, Payload, Persistence, Run, State, StateWriter, StoreOptions};
pub use view::View;
