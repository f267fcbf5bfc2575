//! What a run did and found, in the order it is told: faults as they happen, then counts, then what is wrong.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

/// What is shown of many findings of one kind; all of them are in the file.
const SHOWN: usize = 20;

/// Prints what happens and collects what is wrong. Clones share what they collect.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    began: Instant,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug)]
struct Inside {
    file: File,
    findings: Vec<String>,
    faults: Vec<Period>,
}

/// When there was a fault, counted from the report's beginning.
#[derive(Debug, Clone)]
pub(crate) struct Period {
    pub(crate) name: &'static str,
    /// Whether writes may stop because of it.
    pub(crate) stops_writes: bool,
    pub(crate) begin: Duration,
    /// `None`: it was never ended.
    pub(crate) end: Option<Duration>,
}

impl Period {
    /// How much of the time from `begin` to `end` there was this fault.
    pub(crate) fn overlap(&self, begin: Duration, end: Duration) -> Duration {
        let end = self.end.map_or(end, |over| over.min(end));
        end.saturating_sub(self.begin.max(begin))
    }
}

impl Report {
    /// A report that is also written into `report.txt` of the folder.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let file = File::create(folder.join("report.txt"))?;
        let inside = Inside { file, findings: Vec::new(), faults: Vec::new() };
        Ok(Self { began: Instant::now(), inside: Arc::new(Mutex::new(inside)) })
    }

    /// When it began, from which all its times are counted.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// Prints a line.
    pub(crate) fn say(&self, text: impl fmt::Display) {
        self.with(|inside| inside.say(&text));
    }

    /// Prints what happens, and when.
    pub(crate) fn tell(&self, text: impl fmt::Display) {
        let at_s = self.began.elapsed().as_secs_f64();
        self.say(format_args!("{at_s:7.1} s  {text}"));
    }

    /// Notes that there is a fault from `begin` on; what is returned notes its end.
    pub(crate) fn fault(&self, name: &'static str, stops_writes: bool, begin: Instant) -> impl FnOnce() {
        let begin = begin.duration_since(self.began);
        let number = self.with(|inside| {
            inside.faults.push(Period { name, stops_writes, begin, end: None });
            inside.faults.len() - 1
        });
        move || {
            let end = self.began.elapsed();
            self.with(|inside| inside.faults[number].end = Some(end));
        }
    }

    /// All faults there were.
    pub(crate) fn faults(&self) -> Vec<Period> {
        self.with(|inside| inside.faults.clone())
    }

    /// Something is wrong with the cluster.
    pub(crate) fn found(&self, finding: impl fmt::Display) {
        let finding = finding.to_string();
        self.tell(format_args!("WRONG: {finding}"));
        self.with(|inside| inside.findings.push(finding));
    }

    /// Several things are wrong; prints the first ones.
    pub(crate) fn found_all(&self, findings: Vec<String>) {
        let more = findings.len().saturating_sub(SHOWN);
        findings.iter().take(SHOWN).for_each(|finding| self.found(finding));
        if more > 0 {
            self.found(format_args!("… and {more} more of these"));
        }
    }

    /// Something that should have come about did not, if this is an error.
    pub(crate) fn found_if<T>(&self, came_about: Result<T>) -> Option<T> {
        came_about.map_err(|error| self.found(format_args!("{error:#}"))).ok()
    }

    /// How many things are wrong.
    pub(crate) fn findings(&self) -> usize {
        self.with(|inside| inside.findings.len())
    }

    fn with<T>(&self, what: impl FnOnce(&mut Inside) -> T) -> T {
        what(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inside {
    fn say(&mut self, text: &dyn fmt::Display) {
        println!("{text}");
        // What can't be written was printed.
        let _ = writeln!(self.file, "{text}");
    }
}
