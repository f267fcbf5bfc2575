//! How far a long command has come, on a terminal; nothing anywhere else.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the line is written anew.
const EVERY: Duration = Duration::from_millis(100);
const MIB: f64 = 1024.0 * 1024.0;

/// A line on stderr that says what is being done, and how much of it is.
pub(crate) struct Progress {
    what: &'static str,
    is_shown: bool,
    began: Instant,
    written: Option<Instant>,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        let is_shown = std::io::stderr().is_terminal();
        Self { what, is_shown, began: Instant::now(), written: None }
    }

    /// Shows how many bytes are done, of how many if that is known.
    pub(crate) fn show(&mut self, done: u64, of: Option<u64>) {
        if !self.is_shown || self.written.is_some_and(|written| written.elapsed() < EVERY) {
            return;
        }
        let (mib, seconds) = (done as f64 / MIB, self.began.elapsed().as_secs_f64());
        let share = of.filter(|of| *of > 0).map(|of| (100 * done / of).min(100));
        let share = share.map_or(String::new(), |percent| format!(" {percent:3}%"));
        let rate = mib / seconds.max(0.001);
        self.write(&format!("{share}  {mib:.1} MiB  {rate:.1} MiB/s"));
    }

    /// Shows which part is being done.
    pub(crate) fn part(&mut self, part: &str) {
        if self.is_shown {
            self.write(&format!(" {part}"));
        }
    }

    fn write(&mut self, how_far: &str) {
        self.written = Some(Instant::now());
        // A terminal that can't be written to is no reason to stop.
        let _ = write!(std::io::stderr(), "\r{}{how_far}\x1b[K", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.written.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
