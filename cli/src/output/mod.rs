//! All that is printed on stdout. `text` says it for people, `json` is the API's own JSON; here is only which one, and how
//! it gets out. What no server said has its text where it is made.

mod changes;
mod coordination;
mod discovery;
mod imported;
pub(crate) mod json;
mod text;

use std::io::{self, IsTerminal, Write};

use bytes::Bytes;
use konsul_client::proto::{ListMembersResponse, ListResponse, WatchEvent};
use serde::Serialize;

use crate::args::Format;
use crate::failure::Failure;
pub(crate) use changes::Changes;
pub(crate) use imported::Imported;
pub(crate) use text::Text;

/// Where a command prints.
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn is_text(&self) -> bool {
        self.format == Format::Text
    }

    /// Prints an answer of the API.
    pub(crate) fn message<M: Text + json::Named>(&self, message: &M) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&message.text()),
            Format::Json if io::stdout().is_terminal() => print(&(json::pretty(message)? + "\n")),
            Format::Json => print(&(json::line(message)? + "\n")),
        }
    }

    /// Prints what a command made by itself, without a server.
    pub(crate) fn made<M: Text + Serialize>(&self, made: &M) -> Result<(), Failure> {
        let json = match self.format {
            Format::Text => return print(&made.text()),
            Format::Json if io::stdout().is_terminal() => serde_json::to_string_pretty(made),
            Format::Json => serde_json::to_string(made),
        };
        print(&(json.map_err(io::Error::from)? + "\n"))
    }

    /// Prints one change in one line, at once.
    pub(crate) fn event(&self, event: &WatchEvent) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&event.text()),
            Format::Json => print(&(json::line(event)? + "\n")),
        }
    }

    /// Prints the bytes of a value, exactly; on a terminal the prompt gets a line of its own.
    pub(crate) fn value(&self, value: &Bytes) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(value)?;
        if stdout.is_terminal() && !value.ends_with(b"\n") {
            stdout.write_all(b"\n")?;
        }
        Ok(stdout.flush()?)
    }

    /// Prints a page of a listing as text.
    pub(crate) fn listing(&self, page: &ListResponse, long: bool, descending: bool) -> Result<(), Failure> {
        print(&text::listing(page, long, descending))
    }

    /// Prints how a cluster is doing.
    pub(crate) fn cluster(&self, members: &ListMembersResponse) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&text::cluster(members)),
            Format::Json => self.message(members),
        }
    }

    /// Says that something is done that has no answer to show.
    pub(crate) fn done(&self, what: &str) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&format!("{what}\n")),
            Format::Json => print("{}\n"),
        }
    }

    /// Prints how many keys there are.
    pub(crate) fn count(&self, response: &ListResponse) -> Result<(), Failure> {
        match self.format {
            Format::Text => print(&format!("{}\n", response.count)),
            Format::Json => self.message(response),
        }
    }
}

/// A time that is given in ms since 1970.
pub(crate) fn time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    text::time(Some(&prost_types::Timestamp { seconds, nanos: 0 }))
}

/// Writes to stdout, with colours only where they are seen and wanted (a terminal, and `NO_COLOR` is not set).
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
