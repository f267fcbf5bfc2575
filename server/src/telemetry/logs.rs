//! Log lines: text on a terminal, one JSON object a line otherwise, always on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{fmt, prelude::*};

use crate::config::{LogFormat, LogSettings};

/// Consensus tells every step at `info`, which is noise to an operator unless asked for. A filter that lets less through
/// than this is left alone.
const QUIET: &str = "openraft=warn,raft_engine=warn";

/// Starts writing logs, for the whole process.
///
/// # Errors
/// When somebody else did before.
pub(crate) fn start_logs(settings: &LogSettings) -> Result<(), TryInitError> {
    let filter = EnvFilter::new(&settings.filter);
    let is_terse = filter.max_level_hint().is_some_and(|level| level <= LevelFilter::WARN);
    let filter = match is_terse || settings.filter.contains("openraft") {
        true => filter,
        false => EnvFilter::new(format!("{QUIET},{}", settings.filter)),
    };
    let terminal = std::io::stderr().is_terminal();
    let text = match settings.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let subscriber = tracing_subscriber::registry().with(filter);
    match text {
        true => subscriber.with(lines.with_ansi(colour)).try_init(),
        false => subscriber.with(lines.json().flatten_event(true)).try_init(),
    }
}
