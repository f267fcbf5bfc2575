//! Claims that nobody waits for any more, until they are given up: whoever keeps its lease alive would hold up everybody behind it.

use std::collections::VecDeque;
use std::time::Duration;

use konsul_state::command::LockCancel;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a claim may take that was on its way when its caller went away.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// The claims to be given up.
pub(crate) struct Abandoned {
    queue: Mutex<VecDeque<Left>>,
    added: Notify,
    max: usize,
}

/// One of them.
#[derive(Clone)]
pub(crate) struct Left {
    pub(crate) cancel: LockCancel,
    /// Not to be given up before.
    pub(crate) due: Instant,
    /// When it is to be given up once more, because the claim may have been on its way.
    pub(crate) once_more: Option<Instant>,
}

impl Abandoned {
    /// At most so many; those beyond end with their leases.
    pub(crate) fn new(max: usize) -> Self {
        Self { queue: Mutex::default(), added: Notify::new(), max }
    }

    /// Enters a claim.
    pub(crate) fn add(&self, cancel: LockCancel, is_made: bool) {
        let due = Instant::now();
        let once_more = (!is_made).then(|| due + ON_ITS_WAY);
        self.put_back([Left { cancel, due, once_more }]);
        self.added.notify_one();
    }

    /// Returns when a claim is entered, or was since the last time.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// Takes some out that are due. What could not be given up is to be put back.
    pub(crate) fn take(&self, most: usize) -> Vec<Left> {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        let mut due = Vec::new();
        for _ in 0..queue.len() {
            match queue.pop_front() {
                Some(left) if left.due <= now => due.push(left),
                Some(left) => queue.push_back(left),
                None => break,
            }
            if due.len() == most {
                break;
            }
        }
        due
    }

    /// Enters them again, behind the others.
    pub(crate) fn put_back(&self, left: impl IntoIterator<Item = Left>) {
        let mut queue = self.queue.lock();
        for left in left {
            if queue.len() < self.max {
                queue.push_back(left);
            } else {
                tracing::warn!("too many claims are to be given up: some end with their leases only");
            }
        }
    }
}
