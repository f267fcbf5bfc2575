//! What the server tells about itself: logs, and metrics in Prometheus' text format. Hot paths count in atomics
//! wherever they are; here they are only read.

mod histograms;
mod instruments;
mod logs;
mod process;

pub use instruments::Metrics;
pub use logs::start_logs;
