//! One watch stream: its targets, how far each has come, and what is sent next. It holds cursors and no changes:
//! what a reader does not take is neither fetched nor encoded.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use konsul_proto::v1::watch_response::Kind;
use konsul_state::Revision;
use konsul_state::propose::ProposeError;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::hub::{Admission, Hub};
use super::messages::{self, Chunk, EncodedMessage};
use super::ring::Recent;
use super::shard::{Shard, WatcherCell};
use super::state_page::{self, StateCursor};
use super::target::TargetSpec;
use crate::door::Deadline;
use crate::error::ServiceError;

/// Most Batches looked at in one step.
const BATCHES_A_STEP: usize = 256;
/// Bytes of history read in one step.
const HISTORY_BYTES_A_STEP: usize = 256 << 10;
/// Steps without a message after which the stream lets others run.
const QUIET_STEPS: usize = 4;

/// A place in the line of changes: before this change of this revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) revision: Revision,
    pub(super) change: usize,
}

/// What a target is at.
pub(super) enum Phase {
    /// OPENED is due, and then the entries of this revision, if any are asked for.
    Opening { state: Option<Revision> },
    /// Entries of the pinned revision are due, after this key.
    State { pinned: Revision, after: Option<StateCursor> },
    /// SYNCED is due.
    Synced { pinned: Revision },
    /// Changes.
    Live,
    /// RESYNC is due, and then all entries.
    Resync,
    /// The message that ends it is due.
    Failed(ServiceError),
    /// Nothing.
    Ended,
}

/// One target of a stream.
pub(super) struct Target {
    id: u64,
    spec: Arc<TargetSpec>,
    /// Its place in the shard's index.
    place: usize,
    pub(super) phase: Phase,
    /// The first change that was not looked at.
    pub(super) next: Position,
    /// Whether there may be changes from `next` on that were not looked at. If not, the shard will tell.
    behind: bool,
    queued: bool,
    last_sent: Instant,
}

impl Target {
    pub(super) fn new(id: u64, spec: Arc<TargetSpec>, place: usize) -> Self {
        Self {
            id,
            spec,
            place,
            phase: Phase::Opening { state: None },
            next: Position { revision: Revision(0), change: 0 },
            behind: true,
            queued: true,
            last_sent: Instant::now(),
        }
    }
}

/// When a stream ends and when it tells of its progress.
pub(super) struct Timing {
    deadline: Option<Pin<Box<Sleep>>>,
    progress: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Timing {
    pub(super) fn new(deadline: Option<Deadline>, progress: Option<Duration>) -> Self {
        Self {
            deadline: deadline.map(|d| Box::pin(sleep_until(d.instant()))),
            progress: progress.map(|every| (every, Box::pin(sleep_until(Instant::now() + every)))),
        }
    }
}

/// A watch stream; its messages come encoded.
pub struct EncodedStream {
    hub: Arc<Hub>,
    shard: Arc<Shard>,
    cell: Arc<WatcherCell>,
    targets: Box<[Target]>,
    /// Targets that may have something to send, each once.
    queue: VecDeque<u32>,
    /// Progress messages that are due, at most one a target.
    outbox: VecDeque<EncodedMessage>,
    timing: Timing,
    /// Targets that have not ended.
    open: usize,
    end: End,
    _admission: Admission,
}

/// How a stream ends.
enum End {
    /// Not yet.
    Open,
    /// With this status, once the messages before it are sent.
    Due(Status),
    Done,
}

/// What a step of a target yielded.
enum Step {
    /// A message. Whether there may be more at once is `more`.
    Send { message: Bytes, more: bool },
    /// No message so far, but there may be one.
    Again,
    /// Nothing until the shard tells.
    Idle,
}

impl EncodedStream {
    pub(super) fn new(
        hub: Arc<Hub>,
        shard: Arc<Shard>,
        cell: Arc<WatcherCell>,
        targets: Vec<Target>,
        timing: Timing,
        admission: Admission,
    ) -> Self {
        let queue = (0..targets.len() as u32).collect();
        let open = targets.len();
        let targets = targets.into();
        let outbox = VecDeque::new();
        Self { hub, shard, cell, targets, queue, outbox, timing, open, end: End::Open, _admission: admission }
    }

    /// Why the stream has to end now.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<ServiceError> {
        if self.hub.is_stopping() {
            return Some(ProposeError::ShuttingDown.into());
        }
        let deadline = self.timing.deadline.as_mut()?;
        deadline.as_mut().poll(cx).is_ready().then_some(ServiceError::DeadlineExceeded)
    }

    /// Puts the targets into the queue that the shard marked.
    fn take_marked(&mut self) {
        let (cell, targets, queue) = (&self.cell, &mut self.targets, &mut self.queue);
        cell.take_marked(|i, revision| {
            let target = &mut targets[i as usize];
            if matches!(target.phase, Phase::Ended) {
                return;
            }
            if !target.behind {
                // Nothing before this revision concerns the target.
                let marked = Position { revision, change: 0 };
                if marked.revision > target.next.revision {
                    target.next = marked;
                }
                target.behind = true;
            }
            if !std::mem::replace(&mut target.queued, true) {
                queue.push_back(i);
            }
        });
    }

    /// Goes one step with a target.
    fn step(&mut self, i: usize) -> Step {
        let target = &mut self.targets[i];
        let is_open = matches!(target.phase, Phase::State { .. } | Phase::Synced { .. } | Phase::Live);
        if is_open && target.next.revision <= self.hub.restored() {
            target.phase = Phase::Resync;
        }
        match std::mem::replace(&mut target.phase, Phase::Live) {
            Phase::Opening { state } => {
                if let Some(pinned) = state {
                    target.phase = Phase::State { pinned, after: None };
                }
                let revision = Revision(target.next.revision.0.saturating_sub(1));
                Step::Send { message: messages::plain(Kind::Opened, revision), more: true }
            }
            Phase::State { pinned, after } => {
                match state_page::read(&self.hub, &target.spec, pinned, after.as_ref()) {
                    Err(error) => self.fail(i, error),
                    Ok(page) => {
                        target.phase = match page.next {
                            after @ Some(_) => Phase::State { pinned, after },
                            None => Phase::Synced { pinned },
                        };
                        page.message.map_or(Step::Again, |message| Step::Send { message, more: true })
                    }
                }
            }
            Phase::Synced { pinned } => {
                Step::Send { message: messages::plain(Kind::Synced, pinned), more: true }
            }
            Phase::Resync => match self.hub.state.view() {
                Err(error) => self.end_target(i, error.into()),
                Ok(view) => {
                    let pinned = view.revision();
                    target.next = Position { revision: pinned.next(), change: 0 };
                    target.behind = true;
                    target.phase = Phase::State { pinned, after: None };
                    Step::Send { message: messages::plain(Kind::Resync, pinned), more: true }
                }
            },
            Phase::Live => self.step_live(i).unwrap_or_else(|error| self.fail(i, error)),
            Phase::Failed(error) => self.end_target(i, error),
            Phase::Ended => {
                target.phase = Phase::Ended;
                Step::Idle
            }
        }
    }

    fn step_live(&mut self, i: usize) -> Result<Step, ServiceError> {
        // Looked at after the marks were taken: a mark that was taken while the target was behind is of a
        // revision up to this one, so going on to here makes up for it.
        let head = self.hub.revision();
        let target = &mut self.targets[i];
        if !target.behind || target.next.revision > head {
            target.behind = false;
            return Ok(Step::Idle);
        }
        let chunk = chunk(&self.hub, &self.shard, &target.spec, target.next, head)?;
        target.next = chunk.next;
        target.behind = chunk.next.revision <= head;
        self.shard.events_sent.fetch_add(chunk.events, Ordering::Relaxed);
        Ok(match (chunk.message, target.behind) {
            (Some(message), more) => Step::Send { message, more },
            (None, true) => Step::Again,
            (None, false) => Step::Idle,
        })
    }

    /// What was to be read is not there: begins anew if that is because of a restore of which the hub is about to be told.
    fn fail(&mut self, i: usize, error: ServiceError) -> Step {
        let target = &mut self.targets[i];
        let is_compacted = matches!(error, ServiceError::Compacted { .. });
        let restored = self.hub.state.view().map(|view| view.restored_revision());
        if is_compacted && restored.is_ok_and(|restored| target.next.revision <= restored) {
            target.phase = Phase::Resync;
            return Step::Again;
        }
        self.end_target(i, error)
    }

    /// Ends a target, and the stream with its last one.
    fn end_target(&mut self, i: usize, error: ServiceError) -> Step {
        let target = &mut self.targets[i];
        target.phase = Phase::Ended;
        self.shard.remove(&target.spec, target.place);
        let status = Status::from(error);
        let message = messages::ended(&status);
        self.open -= 1;
        if self.open == 0 {
            self.end = End::Due(status);
        }
        Step::Send { message, more: false }
    }

    /// Puts progress messages into the outbox for the targets that are due one.
    fn poll_progress(&mut self, cx: &mut Context<'_>, matched: Revision) {
        let Some((every, sleep)) = &mut self.timing.progress else { return };
        while sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let mut next = now + *every;
            for target in &mut self.targets {
                let due = target.last_sent + *every;
                if due > now {
                    next = next.min(due);
                } else if matches!(target.phase, Phase::Live) && !target.behind {
                    // Whatever the shard has matched is marked, and the marks were taken after it was asked.
                    target.next.revision = target.next.revision.max(matched.next());
                    let revision = Revision(target.next.revision.0 - 1);
                    let rest = messages::plain(Kind::Progress, revision);
                    self.outbox.push_back(EncodedMessage { target_id: target.id, rest });
                    target.last_sent = now;
                }
            }
            sleep.as_mut().reset(next);
        }
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<EncodedMessage>> {
        self.cell.waker.register(cx.waker());
        let matched = self.shard.matched();
        self.take_marked();
        let mut quiet_steps = 0;
        while let Some(i) = self.queue.pop_front() {
            let (message, more) = match self.step(i as usize) {
                Step::Send { message, more } => (Some(message), more),
                Step::Again => (None, true),
                Step::Idle => (None, false),
            };
            let target = &mut self.targets[i as usize];
            target.queued = more;
            if more {
                self.queue.push_back(i);
            }
            if let Some(rest) = message {
                if self.timing.progress.is_some() {
                    target.last_sent = Instant::now();
                }
                return Poll::Ready(Some(EncodedMessage { target_id: target.id, rest }));
            }
            quiet_steps += 1;
            if quiet_steps == QUIET_STEPS && !self.queue.is_empty() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        if matches!(self.end, End::Due(_)) {
            return Poll::Ready(None);
        }
        self.poll_progress(cx, matched);
        self.outbox.pop_front().map_or(Poll::Pending, |message| Poll::Ready(Some(message)))
    }
}

impl Stream for EncodedStream {
    type Item = Result<EncodedMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if matches!(this.end, End::Done) {
            return Poll::Ready(None);
        }
        if matches!(this.end, End::Open)
            && let Some(error) = this.poll_end(cx)
        {
            this.end = End::Done;
            return Poll::Ready(Some(Err(error.into())));
        }
        if let Some(message) = this.outbox.pop_front() {
            return Poll::Ready(Some(Ok(message)));
        }
        match this.poll_message(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(message)) => Poll::Ready(Some(Ok(message))),
            Poll::Ready(None) => match std::mem::replace(&mut this.end, End::Done) {
                End::Due(status) => Poll::Ready(Some(Err(status))),
                End::Open | End::Done => Poll::Ready(None),
            },
        }
    }
}

impl Drop for EncodedStream {
    fn drop(&mut self) {
        for target in &self.targets {
            if !matches!(target.phase, Phase::Ended) {
                self.shard.remove(&target.spec, target.place);
            }
        }
    }
}

/// The next events of a target: what another watcher was sent, or from the ring, or from history.
fn chunk(
    hub: &Hub,
    shard: &Shard,
    spec: &Arc<TargetSpec>,
    start: Position,
    head: Revision,
) -> Result<Chunk, ServiceError> {
    if let Some(chunk) = shard.shared(spec, start, head) {
        return Ok(chunk);
    }
    let batches = match hub.recent(start.revision, BATCHES_A_STEP) {
        Recent::Batches(batches) => batches,
        Recent::Gone(_) => {
            let mut batches = hub.state.view()?.batches(start.revision, HISTORY_BYTES_A_STEP)?;
            // What is committed but not published yet comes when it is.
            batches.retain(|batch| batch.revision <= head);
            batches
        }
    };
    if batches.is_empty() {
        return Err(ServiceError::HistoryMissing { revision: start.revision });
    }
    let chunk = messages::events(spec, &batches, start, &hub.limits);
    shard.share(spec, start, head, &chunk);
    Ok(chunk)
}
