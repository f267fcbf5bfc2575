//! Answering callers that may live on other runtimes. A wake-up across threads for each answer costs as much
//! as the call itself, so all answers for one runtime go over in one message, and a task there hands them
//! out.

use std::future::Future;
use std::sync::Arc;

use konsul_state::Outcome;
use konsul_state::propose::ProposeError;
use parking_lot::RwLock;
use tokio::runtime::{Handle, Id};
use tokio::sync::{mpsc, oneshot};

/// What a caller is told.
pub(crate) type Answer<T> = Result<T, ProposeError>;

/// The desks of all runtimes that call.
#[derive(Default)]
pub(crate) struct Desks {
    open: RwLock<Vec<Desk>>,
}

/// Where one runtime's answers are handed out. What waits here is bounded by the callers that may wait.
#[derive(Clone)]
pub(crate) struct Desk {
    runtime: Id,
    inbox: mpsc::UnboundedSender<Vec<Delivery>>,
}

/// A caller that waits.
pub(crate) struct Waiter<T> {
    to: oneshot::Sender<Answer<T>>,
    desk: Desk,
}

/// An answer on its way.
pub(crate) enum Delivery {
    Outcome(oneshot::Sender<Answer<Outcome>>, Answer<Outcome>),
    Barrier(oneshot::Sender<Answer<()>>, Answer<()>),
}

/// What can be delivered.
pub(crate) trait Deliver: Sized {
    fn delivery(to: oneshot::Sender<Answer<Self>>, answer: Answer<Self>) -> Delivery;
}

impl Deliver for Outcome {
    fn delivery(to: oneshot::Sender<Answer<Self>>, answer: Answer<Self>) -> Delivery {
        Delivery::Outcome(to, answer)
    }
}

impl Deliver for () {
    fn delivery(to: oneshot::Sender<Answer<Self>>, answer: Answer<Self>) -> Delivery {
        Delivery::Barrier(to, answer)
    }
}

impl Delivery {
    /// Hands the answer over. A caller that went away needs none.
    fn hand_over(self) {
        match self {
            Self::Outcome(to, answer) => drop(to.send(answer)),
            Self::Barrier(to, answer) => drop(to.send(answer)),
        }
    }
}

impl Desks {
    /// A waiter on the calling runtime, and what it waits for.
    pub(crate) fn wait<T>(&self) -> (Waiter<T>, impl Future<Output = Option<Answer<T>>> + use<T>) {
        let (to, answer) = oneshot::channel();
        (Waiter { to, desk: self.here() }, async { answer.await.ok() })
    }

    /// The desk of the calling runtime.
    fn here(&self) -> Desk {
        let runtime = Handle::current();
        let id = runtime.id();
        let find = |desks: &[Desk]| desks.iter().find(|d| d.runtime == id && !d.inbox.is_closed()).cloned();
        if let Some(desk) = find(&self.open.read()) {
            return desk;
        }
        let mut open = self.open.write();
        if let Some(desk) = find(&open) {
            return desk;
        }
        // Desks of runtimes that have ended are closed.
        open.retain(|desk| !desk.inbox.is_closed());
        let (inbox, mut arriving) = mpsc::unbounded_channel::<Vec<Delivery>>();
        // It ends with its desk: when the node closes them, or with the runtime.
        runtime.spawn(async move {
            while let Some(deliveries) = arriving.recv().await {
                deliveries.into_iter().for_each(Delivery::hand_over);
            }
        });
        let desk = Desk { runtime: id, inbox };
        open.push(desk.clone());
        desk
    }

    /// Ends the tasks, once what was handed in is handed out.
    pub(crate) fn close(&self) {
        self.open.write().clear();
    }
}

/// Answers waiters: at once on their own runtime, otherwise with one message a runtime.
pub(crate) fn answer<T: Deliver>(answers: impl IntoIterator<Item = (Waiter<T>, Answer<T>)>) {
    let here = Handle::try_current().ok().map(|runtime| runtime.id());
    let mut elsewhere: Vec<(Desk, Vec<Delivery>)> = Vec::new();
    for (Waiter { to, desk }, answer) in answers {
        let delivery = T::delivery(to, answer);
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

/// Waiters of one round, who are told the reason if the round ends without an answer.
pub(crate) struct Round<T: Deliver> {
    waiters: Vec<Waiter<T>>,
    health: Arc<crate::health::Health>,
}

impl<T: Deliver> Round<T> {
    pub(crate) fn new(waiters: Vec<Waiter<T>>, health: Arc<crate::health::Health>) -> Self {
        Self { waiters, health }
    }

    /// Answers each waiter with its own.
    pub(crate) fn answer_each(mut self, answers: impl IntoIterator<Item = T>) {
        let waiters = std::mem::take(&mut self.waiters);
        answer(waiters.into_iter().zip(answers.into_iter().map(Ok)));
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

impl<T: Deliver> Drop for Round<T> {
    fn drop(&mut self) {
        if !self.waiters.is_empty() {
            let error = self.health.why_unanswered();
            self.fail_remaining(&error);
        }
    }
}
