//! How long a certificate is valid.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use rcgen::CertificateParams;

/// A certificate begins this long before it is made, so that members whose clocks are behind take it at once.
const BACKDATED: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    begins: SystemTime,
    ends: SystemTime,
}

impl Term {
    /// From now on for a number of days.
    pub(super) fn of_days(days: u32) -> Self {
        let now = SystemTime::now();
        Self { begins: now - BACKDATED, ends: now + DAY * days }
    }

    /// The same, but no longer than the authority is valid: nobody would accept the certificate after that.
    pub(super) fn within(self, authority_ends: SystemTime) -> Self {
        Self { ends: self.ends.min(authority_ends), ..self }
    }

    /// Writes it into a certificate.
    pub(super) fn apply(&self, params: &mut CertificateParams) {
        params.not_before = self.begins.into();
        params.not_after = self.ends.into();
    }

    /// When it ends, as people and programs read it (RFC 3339, in seconds, UTC).
    pub(super) fn expires(&self) -> String {
        text(self.ends)
    }
}

/// A time as people and programs read it (RFC 3339, in seconds, UTC).
pub(super) fn text(time: SystemTime) -> String {
    Timestamp { nanos: 0, ..time.into() }.to_string()
}
