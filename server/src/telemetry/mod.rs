//! What the server tells about itself: logs, and metrics in Prometheus' text format. Hot paths count in atomics
//! wherever they are; here they are only read.

mod calls;
mod histograms;
mod instruments;
mod logs;
mod process;

pub(crate) use instruments::{Metrics, Sources};
pub(crate) use logs::start_logs;
