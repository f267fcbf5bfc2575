//! Where one target of a watch stands: turns the messages of a stream into events, and tells where the next stream
//! resumes. Pure: opens nothing and waits for nothing.
//!
//! A revision may come in several fragments, and the connection may break between two of them. The events of a
//! fragment are handed out at once, and only their number is kept; the next stream starts at that revision again and
//! that many of its events are dropped. So the memory is one message, however large a revision is. It rests on the
//! server sending a revision's changes in the same order each time, which it does because it sends them as they are in
//! its history.

use konsul_proto::v1::watch_event::Type;
use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{self, WatchResponse};

use super::event::WatchEvent;

/// The events of one revision that were handed out before it was complete.
#[derive(Debug, Clone, Copy)]
struct Partial {
    revision: u64,
    events: usize,
}

/// Where one target stands.
#[derive(Debug)]
pub(super) struct Cursor {
    target: usize,
    initial_state: bool,
    /// Everything up to here was handed out. `None` until the target is open, or its initial state complete.
    complete: Option<u64>,
    partial: Option<Partial>,
    /// How many events of the partial revision this stream has yet to repeat.
    skip: usize,
    announced: bool,
    /// Whether the server began to send the state anew that was not asked for.
    resyncs: bool,
    pub(super) ended: bool,
}

impl Cursor {
    /// A target that starts with `start_revision` (0: now) or with its initial state.
    pub(super) fn new(target: usize, start_revision: u64, initial_state: bool) -> Self {
        Self {
            target,
            initial_state,
            complete: start_revision.checked_sub(1),
            partial: None,
            skip: 0,
            announced: false,
            resyncs: false,
            ended: false,
        }
    }

    /// Where a new stream starts: `start_revision` and `initial_state` of its request.
    pub(super) fn reopen(&mut self) -> (u64, bool) {
        self.skip = self.partial.map_or(0, |partial| partial.events);
        match (self.partial, self.complete) {
            (Some(partial), _) => (partial.revision, false),
            (None, Some(complete)) => (complete + 1, false),
            (None, None) => (0, self.initial_state || self.resyncs),
        }
    }

    /// Forgets the position, so that the next stream starts with the initial state.
    pub(super) fn start_over(&mut self) {
        self.complete = None;
        self.partial = None;
    }

    /// Whether the initial state is still to come or incomplete.
    pub(super) fn in_initial_state(&self) -> bool {
        (self.initial_state || self.resyncs) && self.complete.is_none() && !self.ended
    }

    /// The last revision of which everything was handed out; 0 if there is none.
    pub(super) fn complete_revision(&self) -> u64 {
        self.complete.unwrap_or(0)
    }

    /// Whether the target is open to its consumer.
    pub(super) fn is_open(&self) -> bool {
        self.announced
    }

    /// Takes a message of the stream and passes its events on.
    pub(super) fn accept(&mut self, message: WatchResponse, events: &mut impl Extend<WatchEvent>) {
        let (target, revision) = (self.target, message.revision);
        match message.kind() {
            Kind::Opened => self.opened(revision, events),
            Kind::State => {
                events.extend(message.entries.into_iter().map(|entry| WatchEvent::State {
                    target,
                    revision,
                    entry,
                }));
            }
            Kind::Resync => {
                self.start_over();
                self.resyncs = true;
                events.extend([WatchEvent::Reset { target, revision }]);
            }
            Kind::Synced => {
                self.complete = Some(revision);
                self.resyncs = false;
                events.extend([WatchEvent::Synced { target, revision }]);
            }
            Kind::Events => self.changes(message, events),
            Kind::Progress if self.complete.is_some() => {
                self.complete = self.complete.max(Some(revision));
                self.partial = self.partial.filter(|partial| partial.revision > revision);
                events.extend([WatchEvent::Progress { target, revision }]);
            }
            Kind::Progress | Kind::Ended | Kind::Unspecified => {}
        }
    }

    fn opened(&mut self, revision: u64, events: &mut impl Extend<WatchEvent>) {
        let target = self.target;
        let first = !std::mem::replace(&mut self.announced, true);
        events.extend(first.then_some(WatchEvent::Opened { target, revision }));
        if self.complete.is_none() && self.partial.is_none() {
            if self.initial_state || self.resyncs {
                events.extend([WatchEvent::Reset { target, revision }]);
            } else {
                self.complete = Some(revision);
            }
        }
    }

    fn changes(&mut self, message: WatchResponse, events: &mut impl Extend<WatchEvent>) {
        let revisions: Vec<u64> = message.events.iter().map(revision_of).collect();
        let last = revisions.last().copied();
        for (index, event) in message.events.into_iter().enumerate() {
            let revision = revisions[index];
            if self.skip > 0 && self.partial.is_some_and(|partial| partial.revision == revision) {
                self.skip -= 1;
                continue;
            }
            self.skip = 0;
            let last_of_revision = match revisions.get(index + 1) {
                Some(next) => *next != revision,
                None => !message.fragment,
            };
            self.count(revision);
            events.extend(self.change(event, revision, last_of_revision));
        }
        if !message.fragment {
            self.complete = self.complete.max(Some(message.revision)).max(last);
            self.partial = None;
        }
    }

    /// Remembers that one more event of this revision was handed out.
    fn count(&mut self, revision: u64) {
        let events = match self.partial {
            Some(partial) if partial.revision == revision => partial.events + 1,
            _ => 1,
        };
        self.partial = Some(Partial { revision, events });
    }

    fn change(&self, event: v1::WatchEvent, revision: u64, last_of_revision: bool) -> Option<WatchEvent> {
        let target = self.target;
        let kind = event.r#type();
        let (entry, previous) = (event.entry?, event.previous);
        match kind {
            Type::Put => Some(WatchEvent::Put { target, revision, entry, previous, last_of_revision }),
            Type::Delete => Some(WatchEvent::Delete { target, revision, entry, previous, last_of_revision }),
            Type::Unspecified => None,
        }
    }
}

/// The revision of a change, which its entry carries.
fn revision_of(event: &v1::WatchEvent) -> u64 {
    event.entry.as_ref().map_or(0, |entry| entry.mod_revision)
}
