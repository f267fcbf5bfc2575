//! What to watch and from when on. Opens nothing.

use std::time::Duration;

use konsul_proto::v1::watch_target::{Filter, Selector};

use crate::keys::Keys;

/// What a [`Watch`](super::Watch) watches.
///
/// One watch may have several targets; they share a stream and these options, and each event tells its target's
/// number.
///
/// ```
/// use konsul_client::WatchOptions;
///
/// let options = WatchOptions::prefix("app/").and_key("shared/region").initial_state();
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct WatchOptions {
    pub(super) selectors: Vec<Selector>,
    pub(super) start_revision: u64,
    pub(super) initial_state: bool,
    pub(super) reset_when_compacted: bool,
    pub(super) previous: bool,
    pub(super) filter: Filter,
    pub(super) progress_interval: Option<Duration>,
}

impl WatchOptions {
    fn new(selector: Selector) -> Self {
        Self {
            selectors: vec![selector],
            start_revision: 0,
            initial_state: false,
            reset_when_compacted: false,
            previous: false,
            filter: Filter::Unspecified,
            progress_interval: None,
        }
    }

    /// Watches one key.
    pub fn key(key: impl Into<String>) -> Self {
        Self::new(Selector::Key(key.into()))
    }

    /// Watches the keys that start with this; empty means all keys of the namespace.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self::new(Selector::Prefix(prefix.into()))
    }

    /// Watches the keys of a prefix or range.
    pub fn keys(keys: impl Into<Keys>) -> Self {
        Self::new(keys.into().into())
    }

    /// Also watches one key, as the next target.
    pub fn and_key(mut self, key: impl Into<String>) -> Self {
        self.selectors.push(Selector::Key(key.into()));
        self
    }

    /// Also watches a prefix or range, as the next target.
    pub fn and_keys(mut self, keys: impl Into<Keys>) -> Self {
        self.selectors.push(keys.into().into());
        self
    }

    /// Starts with the changes of this revision. Default: with what comes after the watch was opened.
    pub fn from_revision(mut self, revision: u64) -> Self {
        self.start_revision = revision;
        self
    }

    /// Starts with the entries that are there. Not together with [`from_revision`](Self::from_revision).
    pub fn initial_state(mut self) -> Self {
        self.initial_state = true;
        self
    }

    /// With [`initial_state`](Self::initial_state): when the changes to resume with are compacted, start over with a
    /// [`Reset`](super::WatchEvent::Reset) and the entries that are there, rather than end with
    /// [`Error::Compacted`](crate::Error::Compacted). For consumers that want the state and can miss a change on the
    /// way to it.
    pub fn reset_when_compacted(mut self) -> Self {
        self.reset_when_compacted = true;
        self
    }

    /// Sends with each change the entry as it was before.
    pub fn previous(mut self) -> Self {
        self.previous = true;
        self
    }

    /// Only puts.
    pub fn puts_only(mut self) -> Self {
        self.filter = Filter::Puts;
        self
    }

    /// Only deletes.
    pub fn deletes_only(mut self) -> Self {
        self.filter = Filter::Deletes;
        self
    }

    /// Tells how far the watch has come when nothing happened for this long, 100 ms to 1 h. It also keeps the point
    /// to resume at ahead of compaction while the watched keys are quiet.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = Some(interval);
        self
    }
}
