//! How one call is made: its deadline, its idempotency key, and its attempts. Knows no particular RPC.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::client::Client;
use crate::error::{Answer, Error};
use crate::retry::{Backoff, is_turned_away, may_help};
use crate::transport::Transport;

/// Metadata by which the server knows a repeated write.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest idempotency key the API takes.
const IDEMPOTENCY_KEY_MAX_BYTES: usize = 128;

/// An attempt to wait that lasted longer than this was no failure to begin with: what ended it is news.
const LONG: Duration = Duration::from_secs(1);

/// What every attempt of a call has in common.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    client: Client,
    timeout: Duration,
    /// Whether it waits for something at the server, so that silence says nothing.
    is_waiting: bool,
    idempotency_key: Option<MetadataValue<Ascii>>,
}

impl Call {
    /// A call that changes nothing.
    pub(crate) fn read(client: &Client, timeout: Duration) -> Self {
        Self { client: client.clone(), timeout, is_waiting: false, idempotency_key: None }
    }

    /// A call that waits at the server for something to happen, and may be repeated as it is, as often as
    /// it takes: only its deadline bounds it. A server that hangs is found out by its connection.
    pub(crate) fn waiting(client: &Client, timeout: Duration) -> Self {
        Self { is_waiting: true, ..Self::read(client, timeout) }
    }

    /// A call that changes something: with the caller's idempotency key or a fresh one.
    pub(crate) fn write(client: &Client, timeout: Duration, key: Option<&str>) -> Result<Self, Error> {
        let fresh;
        let key = match key {
            Some(key) => key,
            None => {
                fresh = Uuid::now_v7().to_string();
                &fresh
            }
        };
        let printable = key.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX_BYTES || !printable {
            return Err(Error::InvalidIdempotencyKey);
        }
        let key = MetadataValue::try_from(key).map_err(|_| Error::InvalidIdempotencyKey)?;
        Ok(Self { idempotency_key: Some(key), ..Self::read(client, timeout) })
    }

    /// Makes the call, again and again while that may help and the deadline has not passed.
    pub(crate) async fn send<Req, Res, Rpc, Answered>(&self, message: Req, rpc: Rpc) -> Result<Res, Error>
    where
        Req: Clone,
        Rpc: Fn(Transport, usize, Request<Req>) -> Answered,
        Answered: Future<Output = Result<Response<Res>, Status>>,
    {
        let shared = &self.client.shared;
        let deadline = Instant::now() + self.timeout;
        // How many members have not kept silent since one last answered.
        let mut turns = shared.route.addresses();
        let mut backoff = Backoff::default();
        let mut before = None;
        loop {
            let request = self.attempt(message.clone(), deadline);
            let transport = shared.route.transport();
            let until = self.attempt_until(deadline, turns);
            let began = Instant::now();
            let attempt = rpc(transport.clone(), shared.max_message_bytes, request);
            let error = match tokio::time::timeout_at(until, attempt).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                // Who gives up at the deadline, here or there, may call it either.
                Ok(Err(status))
                    if matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded)
                        && Instant::now() >= deadline =>
                {
                    self.deadline_exceeded(before.as_ref())
                }
                Ok(Err(status)) => {
                    turns = shared.route.addresses();
                    Error::from(status)
                }
                Err(_) if until < deadline => {
                    turns -= 1;
                    shared.route.leave(&transport);
                    transport.unanswered()
                }
                Err(_) => self.deadline_exceeded(before.as_ref()),
            };
            if is_turned_away(&error) {
                shared.route.leave(&transport);
            }
            if self.is_waiting && began.elapsed() > LONG {
                backoff.reset();
            }
            let wait = backoff.after(&error);
            let is_spent = !self.is_waiting && backoff.failures() >= shared.max_attempts;
            let last = is_spent || Instant::now() + wait >= deadline;
            if last || !may_help(&error) {
                return Err(error);
            }
            before = Some(error);
            tokio::time::sleep(wait).await;
        }
    }

    /// When an attempt has waited long enough for this member. When all others kept silent it has all the time that is
    /// left: the call may just be a slow one.
    fn attempt_until(&self, deadline: Instant, turns: u32) -> Instant {
        match self.client.shared.patience(self.timeout) {
            Some(patience) if turns > 1 && !self.is_waiting => deadline.min(Instant::now() + patience),
            _ => deadline,
        }
    }

    fn attempt<Req>(&self, message: Req, deadline: Instant) -> Request<Req> {
        let mut request = Request::new(message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        if let Some(key) = &self.idempotency_key {
            request.metadata_mut().insert(IDEMPOTENCY_KEY, key.clone());
        }
        request
    }

    fn deadline_exceeded(&self, before: Option<&Error>) -> Error {
        let mut message = format!("no answer within {:?}", self.timeout);
        if let Some(error) = before {
            message.push_str(&format!(" (the attempt before: {error})"));
        }
        Error::Rpc(Box::new(Answer::local(Code::DeadlineExceeded, message)))
    }
}
