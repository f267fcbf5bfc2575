//! How an import went.

use std::time::Duration;

use serde::Serialize;

use super::text::{Text, escape};
use crate::failure::complain;

/// What was written, or would be.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Imported {
    dry_run: bool,
    written: u64,
    skipped: u64,
    /// Only known without writing.
    #[serde(skip_serializing_if = "is_zero")]
    overwritten: u64,
    /// All keys up to this one are done, of a source that is in order.
    last: String,
    seconds: f64,
}

impl Imported {
    pub(crate) fn new(dry_run: bool) -> Self {
        Self { dry_run, ..Self::default() }
    }

    pub(crate) fn count(&mut self, written: u64, skipped: u64, overwritten: u64, last: String) {
        self.written += written;
        self.skipped += skipped;
        self.overwritten += overwritten;
        if !last.is_empty() {
            self.last = last;
        }
    }

    pub(crate) fn took(&mut self, time: Duration) {
        self.seconds = time.as_secs_f64();
    }

    /// Keys that were looked at.
    pub(crate) fn keys(&self) -> u64 {
        self.written + self.skipped + self.overwritten
    }

    /// Says how far it came before it failed.
    pub(crate) fn complain(&self) {
        complain(&format!("{} keys were imported, up to {:?}: go on with --after", self.written, self.last));
    }
}

impl Text for Imported {
    fn text(&self) -> String {
        let Self { dry_run, written, skipped, overwritten, last, seconds } = self;
        let mut text = match dry_run {
            true => format!("would write {} keys", written + overwritten),
            false => format!("wrote {written} keys"),
        };
        if *overwritten > 0 {
            text.push_str(&format!(", {overwritten} of them over others"));
        }
        if *skipped > 0 {
            text.push_str(&format!(", skip{} {skipped}", if *dry_run { "" } else { "ped" }));
        }
        let rate = self.keys() as f64 / seconds.max(0.001);
        text.push_str(&format!(" in {seconds:.1} s, {rate:.0}/s"));
        if !last.is_empty() {
            text.push_str(&format!(", the last one {}", escape(last)));
        }
        text.push('\n');
        text
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
