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
    /// The leader's answer; `None` while it does not know the leases yet, or to what is no question.
    pub(crate) fn answer(question: Bytes, term: u64, deadlines: &Deadlines) -> Option<Bytes> {
        let question = Self::decode(question).ok()?;
        let namespace = Namespace::parse(&question.namespace).ok()?;
        let ids = question.ids.into_iter().map(LeaseId);
        let ms = match question.refresh {
            true => deadlines.refresh(term, &namespace, ids)?,
            false => deadlines.left(term, &namespace, ids)?,
        };
        Some(Left { ms }.encode_to_vec().into())
    }
}
