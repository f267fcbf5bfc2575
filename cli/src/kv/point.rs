//! A point in the past, as people name it: a revision, or a time.

use std::time::{Duration, SystemTime};

use konsul_client::{Keys, Kv};
use prost_types::Timestamp;

use crate::args::duration;
use crate::failure::Failure;

/// A revision, a time, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Revision(u64),
    Time(SystemTime),
    Ago(Duration),
}

impl Point {
    /// Parses `17`, `2026-11-23T12:00:00Z` or `10m`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => return Err("the store was empty at revision 0".into()),
            Ok(revision) => return Ok(Self::Revision(revision)),
            Err(_) => {}
        }
        if let Ok(ago) = duration(text) {
            return Ok(Self::Ago(ago));
        }
        let time = text.parse::<Timestamp>().ok().and_then(|time| SystemTime::try_from(time).ok());
        time.map(Self::Time).ok_or_else(|| {
            "it should be a revision, a time such as 2026-11-23T12:00:00Z, or how long ago, such as 10m"
                .into()
        })
    }

    /// Its revision.
    pub(super) async fn revision(self, kv: &Kv) -> Result<u64, Failure> {
        let time = match self {
            Self::Revision(revision) => return Ok(revision),
            Self::Time(time) => time,
            Self::Ago(ago) => SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        };
        match kv.revision_at(time).await? {
            0 => Err(Failure::NothingThen),
            revision => Ok(revision),
        }
    }
}

/// The keys that an argument names: one, or those under a prefix that ends with a slash or is said to be one. An empty one has to be
/// said to be one, for a variable that is not set should not mean all there is.
pub(super) fn keys(key: &str, prefix: bool) -> Result<Keys, Failure> {
    match prefix || key.ends_with('/') {
        true => Ok(Keys::prefix(key)),
        false if key.is_empty() => Err(Failure::AllKeys),
        false => Ok(Keys::range(key, format!("{key}\0"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_revisions_times_or_spans() {
        assert_eq!(Point::parse("17"), Ok(Point::Revision(17)));
        assert_eq!(Point::parse("10m"), Ok(Point::Ago(Duration::from_secs(600))));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        assert_eq!(Point::parse("1970-01-01T00:01:00Z"), Ok(Point::Time(time)));
        for text in ["", "0", "yesterday", "-1", "2026-13-01T00:00:00Z"] {
            assert!(Point::parse(text).is_err(), "{text}");
        }
    }
}
