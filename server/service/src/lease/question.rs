//! What members ask their leader about leases, and its answers.

use bytes::Bytes;
use konsul_state::{LeaseId, Namespace};
use prost::Message;

use super::Deadlines;

/// A question: the leases of one namespace, and whether to refresh them.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Question {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) ids: Vec<u64>,
    /// Begin their time anew.
    #[prost(bool, tag = "3")]
    pub(crate) refresh: bool,
}

/// The answer: of each lease, in the order asked, what it has left in ms; 0 for one that is not there.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Left {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) ms: Vec<u64>,
}

impl Question {
    /// The leader's answer; `None` while it does not know the leases yet.
    pub(crate) fn answer(self, term: u64, deadlines: &Deadlines) -> Option<Bytes> {
        let namespace = Namespace::parse(&self.namespace).ok()?;
        let ids = self.ids.into_iter().map(LeaseId);
        let ms = match self.refresh {
            true => deadlines.refresh(term, &namespace, ids)?,
            false => deadlines.left(term, &namespace, ids)?,
        };
        Some(Left { ms }.encode_to_vec().into())
    }
}
