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
    /// Keys that were left out, because they are bound to a lease.
    #[serde(skip_serializing_if = "is_zero")]
    leased: u64,
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

    pub(crate) fn left_out(&mut self, leased: u64) {
        self.leased = leased;
    }

    pub(crate) fn took(&mut self, time: Duration) {
        self.seconds = time.as_secs_f64();
    }

    /// Keys that were looked at.
    pub(crate) fn keys(&self) -> u64 {
        self.written + self.skipped + self.overwritten
    }

    /// Says how far it came before it failed, and how to go on; what is there already need not be skipped if it is overwritten.
    pub(crate) fn complain(&self, skips: bool) {
        let Self { written, last, .. } = self;
        let mut told = format!("{written} keys were imported");
        let mut options = String::new();
        if !last.is_empty() {
            told.push_str(&format!(", all up to {last:?}"));
            options.push_str(&format!(" --after {last:?}"));
        }
        if skips {
            options.push_str(" --on-conflict skip");
        }
        let how = if options.is_empty() { "begin again" } else { "go on with" };
        complain(&format!("{told}; some later keys may be there: {how}{options}"));
    }
}

impl Text for Imported {
    fn text(&self) -> String {
        let Self { dry_run, written, skipped, overwritten, last, leased, seconds } = self;
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
        if *leased > 0 {
            text.push_str(&format!(", left out {leased} that are bound to a lease"));
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
