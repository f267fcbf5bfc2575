//! What members ask their leader, which has it in memory alone. Each question is its own room's; here is what they have in common.

use bytes::Bytes;
use prost::Message;

use crate::readers::Readers;
use crate::{health, lease};

/// One question.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Asked {
    #[prost(message, optional, tag = "1")]
    pub(crate) leases: Option<lease::Question>,
    #[prost(message, optional, tag = "2")]
    pub(crate) checks: Option<health::Question>,
    #[prost(message, optional, tag = "3")]
    pub(crate) roll: Option<health::RollCall>,
}

impl Asked {
    /// The answer of the leader of this term; `None` while it can't tell yet, or to what is no question.
    pub(crate) fn answer(question: Bytes, term: u64, readers: &Readers) -> Option<Bytes> {
        let Self { leases, checks, roll } = Self::decode(question).ok()?;
        match (leases, checks, roll) {
            (Some(question), None, None) => question.answer(term, &readers.deadlines),
            (None, Some(question), None) => question.answer(term, &readers.checks),
            (None, None, Some(call)) => call.answer(term, &readers.roll),
            _ => None,
        }
    }
}
