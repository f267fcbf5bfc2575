//! Opens the streams of a watch, one after the other, and decides what ends it. What a message means is the cursor's.

use std::collections::VecDeque;

use konsul_proto::rpc;
use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{WatchRequest, WatchResponse, WatchTarget};
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Request, Status, Streaming};

use super::cursor::Cursor;
use super::event::WatchEvent;
use super::options::WatchOptions;
use crate::error::{Answer, Error};
use crate::kv::{Kv, proto_duration};
use crate::retry::{Backoff, is_turned_away, may_help};
use crate::transport::Transport;

/// How often a resumed watch may be told that its revision is in the future, by a member that lags behind the one it
/// was read from, before that is taken for the truth: a store that lost its past.
const FUTURE_MAX_ATTEMPTS: u32 = 12;

/// The inside of a watch.
pub(super) struct Driver {
    kv: Kv,
    options: WatchOptions,
    cursors: Vec<Cursor>,
    stream: Option<Streaming<WatchResponse>>,
    /// What the stream runs over.
    transport: Option<Transport>,
    /// Events of the last message that were not asked for yet.
    ready: VecDeque<WatchEvent>,
    backoff: Backoff,
    /// Until when the first stream must be open.
    open_by: Option<Instant>,
    finished: bool,
}

impl Driver {
    pub(super) fn new(kv: Kv, options: WatchOptions) -> Self {
        let cursor = |target| Cursor::new(target, options.start_revision, options.initial_state);
        let cursors = (0..options.selectors.len()).map(cursor).collect();
        Self {
            kv,
            options,
            cursors,
            stream: None,
            transport: None,
            ready: VecDeque::new(),
            backoff: Backoff::default(),
            open_by: None,
            finished: false,
        }
    }

    /// The next event, or the error that ended the watch; then nothing.
    pub(super) async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if self.finished {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.stream = None;
                if let Some(transport) = self.transport.take().filter(|_| is_turned_away(&error)) {
                    self.kv.scope.client.shared.route.leave(&transport);
                }
                let wait = self.backoff.after(&error);
                if !self.start_over(&error) && !self.may_resume(&error, Instant::now() + wait) {
                    self.finished = true;
                    return Some(Err(error));
                }
                tokio::time::sleep(wait).await;
            }
        }
    }

    /// Takes one message from the stream, which it opens if there is none.
    async fn advance(&mut self) -> Result<(), Error> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open().await?,
        };
        match self.stream.insert(stream).message().await? {
            Some(message) => self.accept(message),
            None => Err(Status::unavailable("the server closed the stream").into()),
        }
    }

    async fn open(&mut self) -> Result<Streaming<WatchResponse>, Error> {
        let timeout = self.kv.scope.timeout;
        self.open_by.get_or_insert_with(|| Instant::now() + timeout);
        let request = Request::new(self.request());
        let shared = &self.kv.scope.client.shared;
        let transport = self.transport.insert(shared.route.transport()).clone();
        let mut stub = Kv::stub(transport.clone(), shared.max_message_bytes);
        let patience = shared.patience(timeout);
        match tokio::time::timeout(patience.unwrap_or(timeout), stub.watch(request)).await {
            Ok(response) => Ok(response?.into_inner()),
            Err(_) if patience.is_some() => {
                shared.route.leave(&transport);
                Err(transport.unanswered())
            }
            Err(_) => {
                let message = format!("the watch was not opened within {timeout:?}");
                Err(Error::Rpc(Box::new(Answer::local(Code::DeadlineExceeded, message))))
            }
        }
    }

    fn request(&mut self) -> WatchRequest {
        let mut targets = Vec::with_capacity(self.cursors.len());
        for (index, cursor) in self.cursors.iter_mut().enumerate().filter(|(_, cursor)| !cursor.ended) {
            let (start_revision, initial_state) = cursor.reopen();
            targets.push(WatchTarget {
                id: index as u64,
                selector: Some(self.options.selectors[index].clone()),
                start_revision,
                initial_state,
                previous: self.options.previous,
                filter: self.options.filter.into(),
            });
        }
        WatchRequest {
            namespace: self.kv.scope.namespace.clone(),
            targets,
            progress_interval: self.options.progress_interval.map(proto_duration),
        }
    }

    fn accept(&mut self, message: WatchResponse) -> Result<(), Error> {
        let target = usize::try_from(message.target_id).unwrap_or(usize::MAX);
        let Some(cursor) = self.cursors.get_mut(target) else { return Ok(()) };
        match message.kind() {
            Kind::Ended => return self.ended(target, message.status.unwrap_or_default()),
            // A stream that opens and breaks again and again is no success yet.
            Kind::Opened => {}
            _ => self.backoff.reset(),
        }
        cursor.accept(message, &mut self.ready);
        Ok(())
    }

    /// A target's end is the whole stream's when another stream may resume it, or when no other target is left.
    fn ended(&mut self, target: usize, status: rpc::Status) -> Result<(), Error> {
        let details = status.encode_to_vec().into();
        let error = Error::from(Status::with_details(status.code.into(), status.message, details));
        let resets = self.resets_after(&error, &self.cursors[target..=target]);
        if may_help(&error) || resets || self.member_lags(&error) {
            return Err(error);
        }
        self.cursors[target].ended = true;
        if self.cursors.iter().all(|cursor| cursor.ended) {
            return Err(error);
        }
        let revision = self.cursors[target].complete_revision();
        self.ready.push_back(WatchEvent::Ended { target, revision, error });
        Ok(())
    }

    /// Sends the targets whose changes are compacted back to their initial state, if they may go there.
    fn start_over(&mut self, error: &Error) -> bool {
        let resets = self.resets_after(error, &self.cursors);
        if let (true, Error::Compacted(compacted)) = (resets, error) {
            let lost = |cursor: &&mut Cursor| cursor.complete_revision() < compacted.compact_revision;
            self.cursors.iter_mut().filter(lost).for_each(Cursor::start_over);
        }
        resets
    }

    /// An initial state that was compacted before all of it had come begins again in any case: its consumer has been given
    /// nothing yet that it could miss a change of. A later compaction is a gap, and only the options can allow that.
    fn resets_after(&self, error: &Error, cursors: &[Cursor]) -> bool {
        let allowed = self.options.initial_state && self.options.reset_when_compacted;
        let incomplete = cursors.iter().any(Cursor::in_initial_state);
        matches!(error, Error::Compacted(_)) && (allowed || incomplete)
    }

    /// Whether a revision that was already seen is in the future of the member that answers.
    fn member_lags(&self, error: &Error) -> bool {
        self.is_open()
            && error.code() == Code::OutOfRange
            && error.reason().is_some()
            && !matches!(error, Error::Compacted(_))
            && self.backoff.failures() < FUTURE_MAX_ATTEMPTS
    }

    fn is_open(&self) -> bool {
        self.cursors.iter().any(Cursor::is_open)
    }

    /// Whether another stream may go on where this one failed. Before the first one was open the limits of any other call
    /// hold; after that there are none.
    fn may_resume(&self, error: &Error, at: Instant) -> bool {
        if self.is_open() {
            return may_help(error) || error.code() == Code::DeadlineExceeded || self.member_lags(error);
        }
        may_help(error)
            && self.backoff.failures() < self.kv.scope.client.shared.max_attempts
            && self.open_by.is_none_or(|open_by| at < open_by)
    }
}
