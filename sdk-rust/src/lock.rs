//! The Lock service: locks that are held as long as their guards live.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use konsul_proto::v1::lock_client::LockClient;
use konsul_proto::v1::{
    Fence, LockGetRequest, LockGetResponse, LockInfo, LockListRequest, LockMode, LockRequest, TryLockRequest,
    UnlockRequest, fence,
};

use crate::client::MAX_TIMEOUT;
use crate::error::Error;
use crate::kv::proto_duration;
use crate::lease::HeldLease;
use crate::scope::{Scope, scoped};

/// How long a lock's own lease lives without a refresh, unless the call says otherwise: how long others wait when this
/// program dies.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(15);

/// Locks, held alone, by a few, or shared, in the order in which they were asked for.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// let guard = client.locks().lock("jobs/nightly").await?;
/// // Refused if the lock was lost meanwhile, whatever this program believes.
/// client.kv().put("jobs/nightly/state", "running").fence(guard.fence()).await?;
/// tokio::select! {
///     () = guard.lost() => eprintln!("the lock is lost"),
///     () = work() => guard.unlock().await?,
/// }
/// # Ok(())
/// # }
/// # async fn work() {}
/// ```
#[derive(Debug, Clone)]
pub struct Locks {
    scope: Scope,
}

scoped!(Locks);

impl Locks {
    /// Waits for a lock and holds it.
    pub fn lock(&self, name: impl Into<String>) -> Lock {
        Lock {
            locks: self.clone(),
            request: LockRequest {
                namespace: self.scope.namespace.clone(),
                name: name.into(),
                ..Default::default()
            },
            ttl: DEFAULT_TTL,
            lease: None,
            wait: MAX_TIMEOUT,
        }
    }

    /// Who holds a lock and who waits for it.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn get(&self, name: impl Into<String>) -> Result<LockGetResponse, Error> {
        let request =
            LockGetRequest { namespace: self.scope.namespace.clone(), name: name.into(), read: None };
        self.scope
            .read()
            .send(request, |transport, limit, request| async move {
                LockClient::new(transport).max_decoding_message_size(limit).get(request).await
            })
            .await
    }

    /// All locks of the namespace that somebody claims, page by page.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn list(&self) -> Result<Vec<LockInfo>, Error> {
        let mut request = LockListRequest { namespace: self.scope.namespace.clone(), ..Default::default() };
        let mut locks = Vec::new();
        loop {
            let page = self
                .scope
                .read()
                .send(request.clone(), |transport, limit, request| async move {
                    LockClient::new(transport).max_decoding_message_size(limit).list(request).await
                })
                .await?;
            locks.extend(page.locks);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(locks);
            }
        }
    }

    async fn unlock(&self, name: String, lease: u64, token: u64) -> Result<(), Error> {
        let request = UnlockRequest { namespace: self.scope.namespace.clone(), name, lease, token };
        self.scope
            .write(None)?
            .send(
                request,
                |transport, _, request| async move { LockClient::new(transport).unlock(request).await },
            )
            .await
            .map(|_| ())
    }
}

/// A lock that is asked for: `.await` it to wait for it, or [`try_now`](Self::try_now).
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Lock {
    locks: Locks,
    request: LockRequest,
    ttl: Duration,
    lease: Option<HeldLease>,
    wait: Duration,
}

impl Lock {
    /// Shares it with all others who do so too.
    pub fn shared(mut self) -> Self {
        self.request.mode = LockMode::Shared.into();
        self
    }

    /// How many may hold it at a time: a semaphore. All who ask for it must say the same. Default: 1.
    pub fn limit(mut self, limit: u32) -> Self {
        self.request.limit = limit;
        self
    }

    /// How long nobody gets the lock when this holder is lost, so that what it had under way can end: up to a minute. Default:
    /// none.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.request.lock_delay = Some(proto_duration(delay));
        self
    }

    /// What this holder says of itself, up to 4 KiB.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.request.value = value.into();
        self
    }

    /// How long the lock's own lease lives without a refresh: 1 s to 24 h. Default: 15 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Claims it under this lease instead of one of its own. It is unlocked when the guard goes, and the lease lives on.
    pub fn lease(mut self, lease: &HeldLease) -> Self {
        self.lease = Some(lease.clone());
        self
    }

    /// Waits no longer than this (DEADLINE_EXCEEDED). Default: as long as it takes.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(MAX_TIMEOUT);
        self
    }

    /// Holds the lock if it can be had at once; `None` if not.
    ///
    /// # Errors
    /// Those of waiting for it.
    pub async fn try_now(mut self) -> Result<Option<LockGuard>, Error> {
        let lease = self.held_lease().await?;
        let LockRequest { namespace, name, mode, limit, lock_delay, value, .. } = self.request.clone();
        let request = TryLockRequest { namespace, name, lease: lease.id(), mode, limit, lock_delay, value };
        let tried = self
            .locks
            .scope
            .read()
            .send(request, |transport, _, request| async move {
                LockClient::new(transport).try_lock(request).await
            })
            .await?;
        Ok(tried.acquired.then(|| self.guard(lease, tried.token)))
    }

    async fn send(mut self) -> Result<LockGuard, Error> {
        let lease = self.held_lease().await?;
        self.request.lease = lease.id();
        let granted = self
            .locks
            .scope
            .waiting(self.wait)
            .send(self.request.clone(), |transport, _, request| async move {
                LockClient::new(transport).lock(request).await
            })
            .await?;
        Ok(self.guard(lease, granted.token))
    }

    async fn held_lease(&mut self) -> Result<HeldLease, Error> {
        match &self.lease {
            Some(lease) => Ok(lease.clone()),
            None => self.locks.scope.leases().hold(self.ttl).await,
        }
    }

    fn guard(self, lease: HeldLease, token: u64) -> LockGuard {
        let owns_lease = self.lease.is_none();
        let name = self.request.name;
        LockGuard { held: Some(Held { locks: self.locks, name, token, lease, owns_lease }) }
    }
}

impl IntoFuture for Lock {
    type Output = Result<LockGuard, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// A lock that is held until [`unlock`](Self::unlock), or until this is dropped.
#[derive(Debug)]
pub struct LockGuard {
    /// Until it is given up.
    held: Option<Held>,
}

#[derive(Debug, Clone)]
struct Held {
    locks: Locks,
    name: String,
    token: u64,
    lease: HeldLease,
    owns_lease: bool,
}

impl LockGuard {
    /// The fencing token: greater than that of every earlier holder.
    pub fn token(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.token)
    }

    /// A condition for writes: that the lock is still held under this token.
    pub fn fence(&self) -> Fence {
        let name = self.held.as_ref().map(|held| held.name.clone()).unwrap_or_default();
        Fence { held: Some(fence::Held::Lock(name)), token: self.token() }
    }

    /// Whether the lock is lost, because its lease could not be kept alive.
    pub fn is_lost(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.lease.is_lost())
    }

    /// Returns when the lock is lost: whatever it protects must not be touched any more.
    pub async fn lost(&self) {
        if let Some(held) = &self.held {
            held.lease.lost().await;
        }
    }

    /// Gives the lock up.
    ///
    /// # Errors
    /// FAILED_PRECONDITION (reason LOCK_NOT_HELD) when it was lost before.
    pub async fn unlock(mut self) -> Result<(), Error> {
        match self.held.take() {
            Some(held) => held.give_up().await,
            None => Ok(()),
        }
    }
}

impl Held {
    async fn give_up(self) -> Result<(), Error> {
        self.locks.unlock(self.name, self.lease.id(), self.token).await?;
        if self.owns_lease {
            self.lease.revoke().await?;
        }
        Ok(())
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let Some(held) = self.held.take().filter(|held| !held.lease.is_lost()) else { return };
        // Without a runtime it is given up when the lease ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(held.give_up());
        }
    }
}
