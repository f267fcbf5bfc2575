//! What members ask their leader about checks, and its answers.

use bytes::Bytes;
use prost::Message;

use super::book::{Book, Passed};

/// Passes of checks of one namespace, or a question for loads.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Question {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) passes: Vec<PassAsked>,
    /// Not empty: the loads of these instances of this service are asked for.
    #[prost(string, tag = "3")]
    pub(crate) service: String,
    #[prost(string, repeated, tag = "4")]
    pub(crate) instances: Vec<String>,
}

/// A pass.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PassAsked {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) instance: String,
    /// Empty: all checks with a TTL.
    #[prost(string, tag = "3")]
    pub(crate) check: String,
    #[prost(double, optional, tag = "4")]
    pub(crate) load: Option<f64>,
}

/// The answer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    /// One for each pass.
    #[prost(message, repeated, tag = "1")]
    pub(crate) passes: Vec<PassTold>,
    /// One for each instance; NaN where nothing was reported.
    #[prost(double, repeated, tag = "2")]
    pub(crate) loads: Vec<f64>,
}

/// What became of a pass.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PassTold {
    /// 0: there is no such check.
    #[prost(uint64, tag = "1")]
    pub(crate) ttl_ms: u64,
    /// The checks that do not pass yet: that has to be written.
    #[prost(string, repeated, tag = "2")]
    pub(crate) failing: Vec<String>,
}

impl Question {
    /// The leader's answer; `None` while it does not know the checks yet.
    pub(crate) fn answer(&self, term: u64, book: &Book) -> Option<Bytes> {
        let answer = if self.service.is_empty() {
            let passes = self.passes.iter().map(|pass| Passed {
                service: &pass.service,
                instance: &pass.instance,
                check: &pass.check,
                load: pass.load,
            });
            let told = book.pass(term, &self.namespace, passes)?.into_iter();
            let passes = told.map(|told| PassTold { ttl_ms: told.ttl_ms, failing: told.failing }).collect();
            Answer { passes, loads: Vec::new() }
        } else {
            let instances = self.instances.iter().map(String::as_str);
            let loads = book.loads(term, &self.namespace, &self.service, instances)?;
            let loads = loads.into_iter().map(|load| load.unwrap_or(f64::NAN)).collect();
            Answer { passes: Vec::new(), loads }
        };
        Some(answer.encode_to_vec().into())
    }
}
