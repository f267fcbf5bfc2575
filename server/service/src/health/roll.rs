//! Which members are there, as the leader knows by their asking it: who did so within the last [`GONE`] is. Members share the active checks by it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;

/// A member that has not asked for so long is not there.
const GONE: Duration = Duration::from_secs(2);

/// A member asks who is there, and thereby says that it is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RollCall {
    #[prost(uint64, tag = "1")]
    pub(crate) member: u64,
}

/// The answer: the ids of those that are there, in order.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Present {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) members: Vec<u64>,
}

/// What the leader has in memory of who asked when.
#[derive(Default)]
pub(crate) struct Roll(Mutex<Asked>);

struct Asked {
    term: u64,
    since: Instant,
    members: HashMap<u64, Instant>,
}

impl Default for Asked {
    fn default() -> Self {
        Self { term: 0, since: Instant::now(), members: HashMap::new() }
    }
}

impl RollCall {
    /// The leader's answer; `None` until all that are there had the time to ask in its term.
    pub(crate) fn answer(&self, term: u64, roll: &Roll) -> Option<Bytes> {
        let mut asked = roll.0.lock();
        let now = Instant::now();
        if asked.term != term {
            *asked = Asked { term, since: now, members: HashMap::new() };
        }
        asked.members.insert(self.member, now);
        asked.members.retain(|_, last| now.duration_since(*last) < GONE);
        if now.duration_since(asked.since) < GONE {
            return None;
        }
        let mut members: Vec<u64> = asked.members.keys().copied().collect();
        members.sort_unstable();
        Some(Present { members }.encode_to_vec().into())
    }
}
