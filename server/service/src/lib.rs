//! What the API means: each method validates, reads the state or proposes a Command, and converts the outcome.
//!
//! Nothing here listens, knows HTTP beyond what gRPC is made of, or knows how consensus works.
//!
//! # Layout
//! - [`door`]: all services behind the common layers; every front's calls come in there.
//! - [`error`]: why calls are refused, and the one map from that to statuses.
//! - [`limits`]: every bound by name.
//! - `kv`, `lease`, `lock`, `catalog`, `health`, `admin` (with `backup`): the services. `core` has what they share, `caller` who calls, `deadline` for how long.
//! - `parse`, `convert`, `page_token`: from the API's messages to the state's types and back.
//! - [`watch`]: the hub, and streams of changes.
//! - `asked`: what members ask their leader; `streams`: requests that are answered in order; `timers`: deadlines in memory.
//! - `readers`: all that follows the stream of committed changes.
//! - [`duties`]: what the leader does unasked: keeping history within its bounds, ending leases.
//! - [`observe`]: what can be seen of calls from outside.

mod admin;
mod asked;
mod backup;
mod caller;
mod catalog;
mod convert;
mod core;
mod deadline;
mod health;
mod kv;
mod lease;
mod lock;
mod page_token;
mod parse;
mod readers;
mod streams;
mod timers;

pub mod door;
pub mod duties;
pub mod error;
pub mod limits;
pub mod observe;
pub mod watch;

pub use admin::About;
pub use caller::Caller;
pub use catalog::{AtAddress, Directory, Listed, ListedInstance};
pub use door::{Deadline, Door, Parts};
pub use error::ServiceError;
pub use limits::Limits;
pub use readers::Readers;
pub use watch::{Hub, WatchStats};
