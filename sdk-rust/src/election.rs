//! The Election service: leading for as long as a guard lives, and seeing who leads.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use konsul_proto::v1::election_client::ElectionClient;
use konsul_proto::v1::{
    CampaignRequest, ElectedLeader, Fence, LeaderRequest, ObserveRequest, ObserveResponse, ProclaimRequest,
    ResignRequest, fence,
};
use tonic::Streaming;

use crate::client::{Client, MAX_TIMEOUT};
use crate::error::Error;
use crate::lease::HeldLease;
use crate::lock::DEFAULT_TTL;
use crate::retry::{Backoff, is_turned_away, is_undecided, may_help};
use crate::scope::{Scope, scoped};
use crate::transport::Transport;

/// Elections: one of many leads, and all can see who.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// let leadership = client.elections().campaign("scheduler", "10.0.0.7:9000").await?;
/// tokio::select! {
///     () = leadership.lost() => eprintln!("another one leads"),
///     () = lead() => leadership.resign().await?,
/// }
/// # Ok(())
/// # }
/// # async fn lead() {}
/// ```
#[derive(Debug, Clone)]
pub struct Elections {
    scope: Scope,
}

scoped!(Elections);

impl Elections {
    /// Stands for election, and leads when it is won. `value` (up to 4 KiB) is what others are told.
    pub fn campaign(&self, name: impl Into<String>, value: impl Into<Bytes>) -> Campaign {
        let (namespace, name, value) = (self.scope.namespace.clone(), name.into(), value.into());
        let request = CampaignRequest { namespace, name, lease: 0, value };
        Campaign { elections: self.clone(), request, ttl: DEFAULT_TTL, lease: None, wait: MAX_TIMEOUT }
    }

    /// Who leads; `None` if nobody does.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn leader(&self, name: impl Into<String>) -> Result<Option<ElectedLeader>, Error> {
        let request =
            LeaderRequest { namespace: self.scope.namespace.clone(), name: name.into(), read: None };
        let response = self
            .scope
            .read()
            .send(request, |transport, _, request| async move {
                ElectionClient::new(transport).leader(request).await
            })
            .await?;
        Ok(response.leader)
    }

    /// Who leads, at once and whenever it changes; the stream reconnects by itself, and ends only with an error that another
    /// attempt would not mend. What was between is not told to a slow reader, the latest always is.
    pub fn observe(&self, name: impl Into<String>) -> Observation {
        let request = ObserveRequest { namespace: self.scope.namespace.clone(), name: name.into() };
        let observer = Observer {
            client: self.scope.client.clone(),
            request,
            stream: None,
            last: None,
            backoff: Backoff::default(),
        };
        let leaders = stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(leader) => Some((Ok(leader), Some(observer))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Observation { leaders: Box::pin(leaders) }
    }

    async fn resign(&self, name: String, lease: u64, token: u64) -> Result<(), Error> {
        let request = ResignRequest { namespace: self.scope.namespace.clone(), name, lease, token };
        self.scope
            .write(None)?
            .send(request, |transport, _, request| async move {
                ElectionClient::new(transport).resign(request).await
            })
            .await
            .map(|_| ())
    }
}

/// A stream of who leads: see [`Elections::observe`]. `None` stands for nobody.
#[must_use = "an observation does nothing unless it is polled"]
pub struct Observation {
    leaders: Pin<Box<dyn Stream<Item = Result<Option<ElectedLeader>, Error>> + Send>>,
}

impl Observation {
    /// Who leads next; nothing after an error. The same as `StreamExt::next`, without the import.
    pub async fn next(&mut self) -> Option<Result<Option<ElectedLeader>, Error>> {
        self.leaders.next().await
    }
}

impl Stream for Observation {
    type Item = Result<Option<ElectedLeader>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.leaders.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observation").finish_non_exhaustive()
    }
}

/// A candidacy: `.await` it to lead.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Campaign {
    elections: Elections,
    request: CampaignRequest,
    ttl: Duration,
    lease: Option<HeldLease>,
    wait: Duration,
}

impl Campaign {
    /// How long leadership lasts when this program dies: 1 s to 24 h. Default: 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Stands under this lease instead of one of its own. Leadership ends when its guard goes, and the lease lives on.
    ///
    /// A lease has one candidacy in an election: guards of the same election under the same lease share it, and the first to go
    /// takes it from all. So does a campaign that fails for want of an answer, or is dropped before it has one.
    pub fn lease(mut self, lease: &HeldLease) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// Waits no longer than this (DEADLINE_EXCEEDED). Default: as long as it takes.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(MAX_TIMEOUT);
        self
    }

    async fn send(mut self) -> Result<Leadership, Error> {
        let elections = self.elections;
        let owns_lease = self.lease.is_none();
        let lease = match self.lease {
            Some(lease) => {
                lease.settled().await;
                lease
            }
            None => elections.scope.leases().hold(self.ttl).await?,
        };
        self.request.lease = lease.id();
        let name = self.request.name.clone();
        let call = elections.scope.waiting(self.wait);
        // It is there before it is known to be won, so that what was won without knowing it is given up.
        let mut leadership =
            Leadership { elections, name, token: 0, lease: lease.clone(), owns_lease, is_over: false };
        let won = call.send(self.request, |transport, _, request| async move {
            ElectionClient::new(transport).campaign(request).await
        });
        let won = lease.while_held(won).await;
        leadership.is_over = won.as_ref().is_err_and(|error| !is_undecided(error));
        leadership.token = won?.token;
        Ok(leadership)
    }
}

impl IntoFuture for Campaign {
    type Output = Result<Leadership, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// Leadership that lasts until [`resign`](Self::resign), or until this is dropped.
#[derive(Debug)]
pub struct Leadership {
    elections: Elections,
    name: String,
    token: u64,
    lease: HeldLease,
    owns_lease: bool,
    /// Whether nothing is to be given up any more.
    is_over: bool,
}

impl Leadership {
    /// The fencing token: greater than that of every earlier leader.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// A condition for writes: that this still leads.
    pub fn fence(&self) -> Fence {
        Fence { held: Some(fence::Held::Election(self.name.clone())), token: self.token }
    }

    /// Whether leadership is lost, because its lease could not be kept alive.
    pub fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Returns when leadership is lost.
    pub async fn lost(&self) {
        self.lease.lost().await;
    }

    /// Tells others another value.
    ///
    /// # Errors
    /// FAILED_PRECONDITION (reason LOCK_NOT_HELD) when leadership was lost.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<(), Error> {
        let request = ProclaimRequest {
            namespace: self.elections.scope.namespace.clone(),
            name: self.name.clone(),
            lease: self.lease.id(),
            token: self.token,
            value: value.into(),
        };
        self.elections
            .scope
            .write(None)?
            .send(request, |transport, _, request| async move {
                ElectionClient::new(transport).proclaim(request).await
            })
            .await
            .map(|_| ())
    }

    /// Gives leadership up.
    ///
    /// # Errors
    /// FAILED_PRECONDITION (reason LOCK_NOT_HELD) when it was lost before.
    pub async fn resign(mut self) -> Result<(), Error> {
        let resigned = self.elections.resign(self.name.clone(), self.lease.id(), self.token).await;
        self.is_over = true;
        resigned
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        // With a lease of its own leadership goes when that is dropped.
        if !self.is_over && !self.owns_lease {
            let (elections, name) = (self.elections.clone(), self.name.clone());
            let (lease, token) = (self.lease.id(), self.token);
            self.lease.give_up(|| async move { elections.resign(name, lease, token).await });
        }
    }
}

/// The inside of an observation.
struct Observer {
    client: Client,
    request: ObserveRequest,
    stream: Option<(Transport, Streaming<ObserveResponse>)>,
    /// What was told last; `None` if nothing was.
    last: Option<Option<ElectedLeader>>,
    backoff: Backoff,
}

impl Observer {
    async fn next(&mut self) -> Result<Option<ElectedLeader>, Error> {
        loop {
            let error = match self.receive().await {
                Ok(leader) => {
                    self.backoff.reset();
                    if self.last.as_ref() == Some(&leader) {
                        continue;
                    }
                    self.last = Some(leader.clone());
                    return Ok(leader);
                }
                Err(error) => error,
            };
            if let Some((transport, _)) = self.stream.take().filter(|_| is_turned_away(&error)) {
                self.client.shared.route.leave(&transport);
            }
            let wait = self.backoff.after(&error);
            // Before the first answer the limits of any other call hold; after that there are none.
            let last = self.last.is_none() && self.backoff.failures() >= self.client.shared.max_attempts;
            if last || !may_help(&error) {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn receive(&mut self) -> Result<Option<ElectedLeader>, Error> {
        if self.stream.is_none() {
            let transport = self.client.shared.route.transport();
            let stream = ElectionClient::new(transport.clone()).observe(self.request.clone()).await?;
            self.stream = Some((transport, stream.into_inner()));
        }
        let Some((_, stream)) = &mut self.stream else { return Ok(None) };
        match stream.message().await? {
            Some(told) => Ok(told.leader),
            // A stream of who leads has no end of its own: the server went away.
            None => Err(tonic::Status::unavailable("the stream ended").into()),
        }
    }
}
