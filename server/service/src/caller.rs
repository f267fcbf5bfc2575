//! Who is calling. The one place that answers it: identity is not part of a call yet, so everybody is
//! anonymous.

use http::Extensions;

/// Who is calling, as it scopes idempotency keys and, later, permissions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller(String);

impl Caller {
    /// The caller of a request with these extensions.
    #[must_use]
    pub fn of(_extensions: &Extensions) -> Self {
        Self(String::new())
    }

    /// The server itself.
    #[must_use]
    pub(crate) fn nobody() -> Self {
        Self(String::new())
    }

    /// The caller's name; empty for an anonymous one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The same, for whoever keeps it.
    #[must_use]
    pub fn into_name(self) -> String {
        self.0
    }
}
