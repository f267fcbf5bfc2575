//! The deadline of a call, as gRPC sends it: how long the caller waits for the answer.

use std::time::Duration;

use http::{Extensions, HeaderMap};
use tokio::time::Instant;

use crate::error::ServiceError;

/// The header that carries it.
const HEADER: &str = "grpc-timeout";

/// When a call has to be over. An extension of its request.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of a request with these headers; `None` if it has none.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED when there is no time at all, INVALID_ARGUMENT for a malformed header.
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Option<Self>, ServiceError> {
        let Some(value) = headers.get(HEADER) else { return Ok(None) };
        let timeout = value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
            ServiceError::field(
                HEADER,
                "must be at most 8 digits and a unit of H M S m u n (gRPC over HTTP/2)",
            )
        })?;
        if timeout.is_zero() {
            return Err(ServiceError::DeadlineExceeded);
        }
        // One beyond what the clock can tell is none.
        Ok(Instant::now().checked_add(timeout).map(Self))
    }

    /// The deadline of a request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// The instant it is.
    pub(crate) fn instant(self) -> Instant {
        self.0
    }
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol: 1 to 8 digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_the_protocol_allows_and_nothing_else() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("0n", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("5", None),
            ("+5S", None),
            ("123456789S", None),
            ("1s", None),
            ("1é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }
}
