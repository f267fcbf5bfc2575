//! Names a set of keys: a prefix or a range. One type for listings, deletes and watches.

use konsul_proto::v1::{
    KeyRange, delete_range_operation, delete_range_request, list_operation, list_request, watch_target,
};

/// A set of keys, compared byte by byte. A plain string is a prefix, and the empty prefix means all keys of the
/// namespace.
///
/// ```
/// use konsul_client::Keys;
///
/// assert_eq!(Keys::from("app/"), Keys::prefix("app/"));
/// let a_to_c = Keys::range("a", "d");
/// # let _ = a_to_c;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// The keys that start with this.
    Prefix(String),
    /// The keys from `start` on and before `end`.
    Range {
        /// First key, inclusive. Empty: from the first key of the namespace.
        start: String,
        /// End, exclusive. Empty: to the last key of the namespace.
        end: String,
    },
}

impl Keys {
    /// The keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::Prefix(prefix.into())
    }

    /// The keys from `start` on and before `end`; an empty `end` means to the last key.
    pub fn range(start: impl Into<String>, end: impl Into<String>) -> Self {
        Self::Range { start: start.into(), end: end.into() }
    }

    /// All keys of the namespace.
    pub fn all() -> Self {
        Self::Prefix(String::new())
    }
}

impl From<&str> for Keys {
    fn from(prefix: &str) -> Self {
        Self::prefix(prefix)
    }
}

impl From<&String> for Keys {
    fn from(prefix: &String) -> Self {
        Self::prefix(prefix)
    }
}

impl From<String> for Keys {
    fn from(prefix: String) -> Self {
        Self::Prefix(prefix)
    }
}

/// The proto has one `oneof` of the same two kinds in each message that names keys.
macro_rules! into_selector {
    ($($selector:ty),*) => {$(
        impl From<Keys> for $selector {
            fn from(keys: Keys) -> Self {
                match keys {
                    Keys::Prefix(prefix) => Self::Prefix(prefix),
                    Keys::Range { start, end } => Self::Range(KeyRange { start, end }),
                }
            }
        }
    )*};
}

into_selector!(
    list_request::Selector,
    list_operation::Selector,
    delete_range_request::Selector,
    delete_range_operation::Selector,
    watch_target::Selector
);
