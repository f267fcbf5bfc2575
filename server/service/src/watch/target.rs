//! What a target of a watch stream is, and whether a change concerns it.

use konsul_proto::v1::{WatchTarget, watch_target};
use konsul_state::batch::KvChange;
use konsul_state::command::KeySpan;
use konsul_state::{Key, Namespace, Revision};

use crate::error::ServiceError;
use crate::parse;

/// What a target watches and how it is told. Watchers with equal ones share their encoded messages.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TargetSpec {
    pub(super) namespace: Namespace,
    pub(super) keys: Watched,
    pub(super) filter: Filter,
    /// Send with each event the entry before it.
    pub(super) previous: bool,
}

/// Which keys a target watches.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Watched {
    Key(Key),
    Span(KeySpan),
}

/// Which events a target is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    All,
    Puts,
    Deletes,
}

/// Where a target begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With what comes after the opening.
    Now,
    /// With this revision.
    At(Revision),
    /// With the entries that are there.
    State,
}

impl Filter {
    /// Whether a change of this kind is sent.
    pub(super) fn admits(self, is_delete: bool) -> bool {
        match self {
            Self::All => true,
            Self::Puts => !is_delete,
            Self::Deletes => is_delete,
        }
    }
}

impl TargetSpec {
    /// Parses a target; `path` is what comes before its fields' names.
    pub(super) fn parse(
        path: &str,
        namespace: &Namespace,
        target: &WatchTarget,
    ) -> Result<(Self, Start), ServiceError> {
        use watch_target::Selector;
        let keys = match &target.selector {
            None => {
                return Err(ServiceError::field(
                    format!("{path}selector"),
                    "must be a key, a prefix or a range",
                ));
            }
            Some(Selector::Key(key)) => Watched::Key(parse::key(&format!("{path}key"), key)?),
            Some(Selector::Prefix(prefix)) => Watched::Span(parse::prefix(&format!("{path}prefix"), prefix)?),
            Some(Selector::Range(range)) => Watched::Span(parse::range(&format!("{path}range"), range)?),
        };
        let filter = match watch_target::Filter::try_from(target.filter) {
            Ok(watch_target::Filter::Unspecified) => Filter::All,
            Ok(watch_target::Filter::Puts) => Filter::Puts,
            Ok(watch_target::Filter::Deletes) => Filter::Deletes,
            Err(_) => return Err(ServiceError::field(format!("{path}filter"), "must be a value of Filter")),
        };
        let start = match (target.start_revision, target.initial_state) {
            (0, false) => Start::Now,
            (0, true) => Start::State,
            (revision, false) => Start::At(Revision(revision)),
            (_, true) => {
                let problem = "must be 0 with initial_state, which begins with the present";
                return Err(ServiceError::field(format!("{path}start_revision"), problem));
            }
        };
        Ok((Self { namespace: namespace.clone(), keys, filter, previous: target.previous }, start))
    }

    /// Whether the target is sent this change.
    pub(super) fn admits(&self, change: &KvChange) -> bool {
        let watches = match &self.keys {
            Watched::Key(key) => *key == change.key,
            Watched::Span(span) => span.contains(change.key.as_str()),
        };
        watches && self.filter.admits(change.after.is_none()) && self.namespace == change.namespace
    }
}
