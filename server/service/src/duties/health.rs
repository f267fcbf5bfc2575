//! Checks that nobody passed in time, instances that were critical for too long, and checks that have flapped for long enough.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use konsul_state::command::{
    self, Health, catalog_reap::Overdue, check_report::Report, check_settle::Held, command::Op, outcome,
};
use konsul_state::propose::Propose;
use konsul_state::view::{Paging, RowCursor};
use konsul_state::{ReadError, State};

use super::leading::{Leading, Term};
use super::{DutyError, carry_out};
use crate::health::{Book, Due};

/// Checks read together, while nothing is published.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 1 << 20;
/// Most checks of one Command, so that the writes of others come between; and such Commands that are under way together.
const TOGETHER: usize = 200;
const IN_FLIGHT: usize = 2;

/// Looks after checks that have deadlines.
pub(super) struct Checks {
    pub(super) state: State,
    pub(super) propose: Arc<dyn Propose>,
    pub(super) book: Arc<Book>,
}

impl Leading for Checks {
    const WHAT: &'static str = "checks";

    fn stood_still(&self, by: Duration) {
        self.book.stood_still(by);
    }

    fn rest(&self) {
        self.book.rest();
    }

    fn leads(&self, term: u64) -> bool {
        self.book.leads(term)
    }

    /// Begins all checks' time anew, once everything is applied that was committed under earlier leaders.
    async fn load(&self, term: u64) -> Result<(), DutyError> {
        self.propose.read_barrier().await?;
        self.book.begin();
        let mut after: Option<RowCursor> = None;
        loop {
            let mut next = None;
            self.book.load(|| {
                let (max_bytes, max_rows) = (PAGE_BYTES, PAGE);
                let paging = Paging { at: None, after: after.as_ref(), limit: PAGE, max_bytes, max_rows };
                let page = self.state.view()?.checks(None, &paging).map_err(|error| match error {
                    ReadError::State(error) => DutyError::State(error),
                    // The present can be read always.
                    ReadError::Compacted { .. } | ReadError::Future { .. } => DutyError::Unreadable,
                })?;
                next = page.next;
                Ok::<_, DutyError>(page.rows)
            })?;
            match next {
                None => break,
                next => after = next,
            }
            tokio::task::yield_now().await;
        }
        self.book.lead(term);
        Ok(())
    }

    async fn look(&self, term: Term) -> Result<(), DutyError> {
        loop {
            let due = self.book.due(TOGETHER * IN_FLIGHT);
            if due.is_empty() {
                return Ok(());
            }
            let expired = due.expired.chunks(TOGETHER).map(|due| self.end(due.to_vec(), expire(term, due)));
            let overdue = due.overdue.chunks(TOGETHER).map(|due| self.end(due.to_vec(), reap(term, due)));
            let settled = due.settled.chunks(TOGETHER).map(|due| self.end(due.to_vec(), settle(term, due)));
            let done = tokio::join!(join_all(expired), join_all(overdue), join_all(settled));
            let done = done.0.into_iter().chain(done.1).chain(done.2);
            done.collect::<Result<(), DutyError>>()?;
        }
    }
}

impl Checks {
    async fn end(&self, due: Due, op: Op) -> Result<(), DutyError> {
        let done = carry_out(&*self.propose, op).await;
        // What was changed is known by now, and what is still as it was is due again.
        self.book.again(&due);
        match done? {
            Some(outcome::Result::Catalog(_)) => Ok(()),
            // Refused: mostly because it was of another term, and then all is loaded anew.
            _ => Ok(()),
        }
    }
}

fn expire(term: Term, due: &[(konsul_state::CheckId, crate::health::Known)]) -> Op {
    let report = |(id, known): &(konsul_state::CheckId, crate::health::Known)| {
        let ttl = Duration::from_millis(known.ttl_ms);
        Report {
            check: Some(id.to_name()),
            status: Health::Critical.into(),
            output: format!("nobody passed it within its time to live, {ttl:?}"),
            create_revision: known.create_revision,
        }
    };
    let reports = due.iter().map(report).collect();
    Op::CheckReport(command::CheckReport { reports, term: term.term, leader: term.leader, by_hand: false })
}

fn reap(term: Term, due: &[(konsul_state::CheckId, crate::health::Known)]) -> Op {
    let overdue = |(id, known): &(konsul_state::CheckId, crate::health::Known)| Overdue {
        check: Some(id.to_name()),
        since_ms: known.since_ms,
        create_revision: known.create_revision,
    };
    let instances = due.iter().map(overdue).collect();
    Op::CatalogReap(command::CatalogReap { instances, term: term.term, leader: term.leader })
}

fn settle(term: Term, due: &[(konsul_state::CheckId, crate::health::Known)]) -> Op {
    let held = |(id, known): &(konsul_state::CheckId, crate::health::Known)| Held {
        check: Some(id.to_name()),
        held_until_steady_ms: known.held_until_steady_ms,
    };
    let checks = due.iter().map(held).collect();
    Op::CheckSettle(command::CheckSettle { checks, term: term.term, leader: term.leader })
}
