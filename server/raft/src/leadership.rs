//! Who leads, as this member knows it.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::type_config::alias::WatchReceiverOf;

use crate::proposer::Raft;
use crate::types::{Member, Types};

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leader {
    Me,
    Other(Member),
    Nobody,
}

/// Follows who leads.
#[derive(Clone)]
pub(crate) struct Leadership {
    me: u64,
    metrics: WatchReceiverOf<Types, RaftServerMetrics<Types>>,
}

impl Leadership {
    pub(crate) fn new(me: u64, raft: &Raft) -> Self {
        Self { me, metrics: raft.server_metrics() }
    }

    /// Who leads now. A member that thinks it leads may be wrong: only a quorum knows.
    pub(crate) fn now(&self) -> Leader {
        let metrics = self.metrics.borrow_watched();
        match metrics.current_leader {
            None => Leader::Nobody,
            Some(id) if id == self.me => Leader::Me,
            Some(id) => {
                let member = metrics.membership_config.membership().get_node(&id);
                member.cloned().map_or(Leader::Nobody, Leader::Other)
            }
        }
    }

    /// The term in which this member leads, as far as it knows; `None` if it does not.
    pub(crate) fn term_as_leader(&self) -> Option<u64> {
        let metrics = self.metrics.borrow_watched();
        (metrics.current_leader == Some(self.me)).then(|| metrics.vote.leader_id().term)
    }

    /// Returns when something about it may have changed; never once consensus has stopped.
    pub(crate) async fn changed(&mut self) {
        if self.metrics.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
