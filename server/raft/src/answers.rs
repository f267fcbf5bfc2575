//! Answering callers that may live on other runtimes. A wake-up across threads for each answer costs as much
//! as the call itself, so all answers for one runtime go over in one message, and a task there hands them
//! out.

use std::future::Future;
use std::sync::Arc;

use konsul_state::Outcome;
use konsul_state::propose::ProposeError;
use tokio::runtime::{Handle, Id};
use tokio::sync::{mpsc, oneshot};

use crate::health::Health;
use crate::runtimes::PerRuntime;

/// What a caller is told.
pub(crate) type Answer<T> = Result<T, ProposeError>;

/// The desks of all runtimes that call.
#[derive(Default)]
pub(crate) struct Desks {
    open: PerRuntime<Desk>,
}

/// Where one runtime's answers are handed out. What waits here is bounded by the callers that may wait.
struct Desk {
    runtime: Id,
    inbox: mpsc::UnboundedSender<Vec<Delivery>>,
}

/// A caller that waits.
pub(crate) struct Waiter {
    to: oneshot::Sender<Answer<Outcome>>,
    desk: Arc<Desk>,
}

impl Waiter {
    /// Whether the caller went away.
    pub(crate) fn is_gone(&self) -> bool {
        self.to.is_closed()
    }

    /// Answers this one.
    pub(crate) fn tell(self, told: Answer<Outcome>) {
        answer([(self, told)]);
    }
}

/// An answer on its way.
struct Delivery {
    to: oneshot::Sender<Answer<Outcome>>,
    answer: Answer<Outcome>,
}

impl Delivery {
    /// Hands the answer over. A caller that went away needs none.
    fn hand_over(self) {
        drop(self.to.send(self.answer));
    }
}

impl Desks {
    /// A waiter on the calling runtime, and what it waits for.
    pub(crate) fn wait(&self) -> (Waiter, impl Future<Output = Option<Answer<Outcome>>> + use<>) {
        let (to, answer) = oneshot::channel();
        (Waiter { to, desk: self.open.here(Desk::open) }, async { answer.await.ok() })
    }

    /// Ends the tasks, once what was handed in is handed out.
    pub(crate) fn close(&self) {
        drop(self.open.take());
    }
}

impl Desk {
    fn open(runtime: &Handle) -> Arc<Self> {
        let (inbox, mut arriving) = mpsc::unbounded_channel::<Vec<Delivery>>();
        // It ends with its desk: when the node closes them, or with the runtime.
        runtime.spawn(async move {
            while let Some(deliveries) = arriving.recv().await {
                deliveries.into_iter().for_each(Delivery::hand_over);
            }
        });
        Arc::new(Self { runtime: runtime.id(), inbox })
    }
}

/// Answers waiters: at once on their own runtime, otherwise with one message a runtime.
fn answer(answers: impl IntoIterator<Item = (Waiter, Answer<Outcome>)>) {
    let here = Handle::try_current().ok().map(|runtime| runtime.id());
    let mut elsewhere: Vec<(Arc<Desk>, Vec<Delivery>)> = Vec::new();
    for (Waiter { to, desk }, answer) in answers {
        let delivery = Delivery { to, answer };
        if here == Some(desk.runtime) {
            delivery.hand_over();
            continue;
        }
        match elsewhere.iter_mut().find(|(other, _)| other.runtime == desk.runtime) {
            Some((_, deliveries)) => deliveries.push(delivery),
            None => elsewhere.push((desk, vec![delivery])),
        }
    }
    for (desk, deliveries) in elsewhere {
        // A runtime that has ended has no callers left.
        drop(desk.inbox.send(deliveries));
    }
}

/// The callers of one log entry, who are told the reason if it ends without an answer.
pub(crate) struct Round {
    waiters: Vec<Waiter>,
    health: Arc<Health>,
}

impl Round {
    pub(crate) fn new(waiters: Vec<Waiter>, health: Arc<Health>) -> Self {
        Self { waiters, health }
    }

    /// Answers each waiter with its own.
    pub(crate) fn answer_each(mut self, answers: impl IntoIterator<Item = Answer<Outcome>>) {
        let waiters = std::mem::take(&mut self.waiters);
        answer(waiters.into_iter().zip(answers));
    }

    /// Those who go on waiting.
    pub(crate) fn into_waiters(mut self) -> Vec<Waiter> {
        std::mem::take(&mut self.waiters)
    }

    /// Answers all with the same error.
    pub(crate) fn fail(mut self, error: &ProposeError) {
        self.fail_remaining(error);
    }

    fn fail_remaining(&mut self, error: &ProposeError) {
        let waiters = std::mem::take(&mut self.waiters);
        answer(waiters.into_iter().map(|waiter| (waiter, Err(error.clone()))));
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        if !self.waiters.is_empty() {
            let error = self.health.why_unanswered();
            self.fail_remaining(&error);
        }
    }
}
