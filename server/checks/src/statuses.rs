//! Which statuses of an HTTP answer pass.

use std::fmt;
use std::ops::RangeInclusive;

/// What a status may be (RFC 9110 §15), and what may be expected.
const VALID: RangeInclusive<u16> = 100..=599;

/// Ranges of statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether a status is one of them.
    pub(crate) fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }

    /// Reads ranges, each a number or `from-to`.
    ///
    /// # Errors
    /// The index of the first that is none, and what is wrong with it.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, (usize, &'static str)> {
        let ranges = texts
            .iter()
            .enumerate()
            .map(|(index, text)| range(text).map_err(|problem| (index, problem)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(if ranges.is_empty() { Self::default() } else { Self(ranges) })
    }
}

impl Default for Statuses {
    /// Success (RFC 9110 §15.3).
    fn default() -> Self {
        Self(vec![200..=299])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match (range.start(), range.end()) {
                (from, to) if from == to => write!(f, "{comma}{from}")?,
                (from, to) => write!(f, "{comma}{from}-{to}")?,
            }
        }
        Ok(())
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (Some(from), Some(to)) = (status(from), status(to)) else {
        return Err("must be a status (100 to 599) or a range of statuses, as 200-299");
    };
    if from > to { Err("must begin with the smaller status, as 200-299") } else { Ok(from..=to) }
}

/// Three digits: `parse` alone would take a sign too.
fn status(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| digits && VALID.contains(status))
}
