//! Why a check could not be carried out to its end, in words for whoever registered it.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;

use crate::guard::Denial;
use crate::limits::{ANSWER_HEAD_BYTES, PRINTED_BYTES, RECEIVED_BYTES, REDIRECTS};

/// Why a check could not be carried out to its end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The operator does not want it connected to.
    Denied(IpAddr, Denial),
    /// Its name can't be looked up.
    Lookup(String, io::Error),
    /// Its name has no address.
    NoAddress(String),
    /// No connection can be made.
    Connect(IpAddr, io::Error),
    /// It did not take part in a TLS handshake, or not as it should.
    Tls(io::Error),
    /// The connection broke.
    Broken(io::Error),
    /// The connection is closed before there is an answer.
    Closed,
    /// What it says is no HTTP.
    NotHttp(hyper::Error),
    /// What it says is no HTTP/2.
    NotHttp2(h2::Error),
    /// It says so much that it is not listened to any longer.
    TooMuch,
    /// The head of its answer is too large.
    HeadTooLarge,
    /// It redirects to what is not followed.
    Redirect {
        /// Where to, in its own words.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// It redirects to where it was asked already.
    Circle(String),
    /// It redirects again and again.
    TooManyRedirects,
    /// Scripts are switched off.
    ScriptsDisabled,
    /// There is no such script.
    UnknownScript,
    /// The script prints without end.
    PrintsTooMuch,
    /// The script can't be run.
    Spawn(io::Error),
    /// A request can't be made of the definition.
    Unfit,
}

/// What a connection says when its target has sent too much: a kind that no socket knows, because HTTP/2 keeps nothing else of an error.
pub(crate) const TOO_MUCH: io::ErrorKind = io::ErrorKind::QuotaExceeded;

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let broken = causes(&error).find_map(|cause| cause.downcast_ref::<io::Error>());
        match broken {
            Some(broken) if broken.kind() != io::ErrorKind::InvalidData => Self::from_io(broken),
            Some(_) => Self::NotHttp(error),
            None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => Self::Closed,
            None if error.is_parse_too_large() => Self::HeadTooLarge,
            None => Self::NotHttp(error),
        }
    }
}

impl From<h2::Error> for Failure {
    fn from(error: h2::Error) -> Self {
        match error.get_io() {
            Some(broken) => Self::from_io(broken),
            None => Self::NotHttp2(error),
        }
    }
}

impl Failure {
    /// The connection broke, or was broken.
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.kind() {
            TOO_MUCH => Self::TooMuch,
            io::ErrorKind::UnexpectedEof => Self::Closed,
            kind => Self::Broken(io::Error::new(kind, reason(error))),
        }
    }
}

/// An error and its causes, down to the first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// An error of the system in the words that people know, without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset => "connection reset by the target".into(),
        io::ErrorKind::ConnectionAborted => "connection aborted".into(),
        io::ErrorKind::BrokenPipe => "connection closed by the target".into(),
        io::ErrorKind::HostUnreachable => "no route to the host".into(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".into(),
        io::ErrorKind::TimedOut => "the network timed out".into(),
        _ => {
            let text = error.to_string();
            text.split_once(" (os error").map_or(text.as_str(), |(text, _)| text).to_lowercase()
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(address, denial) => write!(f, "target {address} is {denial}"),
            Self::Lookup(name, error) => write!(f, "{name} can't be looked up: {}", reason(error)),
            Self::NoAddress(name) => write!(f, "{name} has no address"),
            Self::Connect(address, error) => write!(f, "{} ({address})", reason(error)),
            Self::Tls(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof => f.write_str("TLS handshake: connection closed by the target"),
                _ => write!(f, "TLS handshake: {}", reason(error)),
            },
            Self::Broken(error) => f.write_str(&reason(error)),
            Self::Closed => f.write_str("connection closed before there was an answer"),
            Self::NotHttp(error) => write!(f, "the answer is no HTTP: {}", innermost(error)),
            Self::NotHttp2(error) => write!(f, "the answer is no gRPC: {}", innermost(error)),
            Self::TooMuch => write!(f, "the target sent more than {} KiB", RECEIVED_BYTES >> 10),
            Self::HeadTooLarge => {
                write!(f, "the head of the answer is larger than {} KiB", ANSWER_HEAD_BYTES >> 10)
            }
            Self::Redirect { to, why } => write!(f, "redirected to {to}, {why}: not followed"),
            Self::Circle(to) => write!(f, "redirected in a circle, to {to} again"),
            Self::TooManyRedirects => write!(f, "redirected more than {REDIRECTS} times"),
            Self::ScriptsDisabled => f.write_str("scripts are switched off (checks.scripts_enabled)"),
            Self::UnknownScript => f.write_str("there is no such script in checks.scripts of this server"),
            Self::PrintsTooMuch => write!(f, "killed after printing more than {} MiB", PRINTED_BYTES >> 20),
            Self::Spawn(error) => write!(f, "can't be run: {}", reason(error)),
            Self::Unfit => f.write_str("no request can be made of it"),
        }
    }
}

/// What lies behind an error.
fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}
