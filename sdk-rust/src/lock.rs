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
use crate::kv::{Operation, proto_duration};
use crate::lease::HeldLease;
use crate::retry::is_undecided;
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
    ///
    /// A lease has one claim on a lock: guards of the same lock under the same lease share it, and the first to go takes it from
    /// all. So does an attempt that fails for want of an answer, or is dropped before it has one: it gives up what it may have got.
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
        let mut guard = self.attempt(lease);
        let call = guard.held.locks.scope.read();
        let tried = call.send(request, |transport, _, request| async move {
            LockClient::new(transport).try_lock(request).await
        });
        let tried = guard.decided(tried.await)?;
        guard.held.token = tried.token;
        if !tried.acquired {
            guard.is_over = true;
            return Ok(None);
        }
        Ok(Some(guard))
    }

    async fn send(mut self) -> Result<LockGuard, Error> {
        let lease = self.held_lease().await?;
        self.request.lease = lease.id();
        let (request, wait) = (self.request.clone(), self.wait);
        let mut guard = self.attempt(lease.clone());
        let call = guard.held.locks.scope.waiting(wait);
        let granted = call.send(request, |transport, _, request| async move {
            LockClient::new(transport).lock(request).await
        });
        let granted = lease.while_held(granted).await;
        guard.held.token = guard.decided(granted)?.token;
        Ok(guard)
    }

    async fn held_lease(&mut self) -> Result<HeldLease, Error> {
        match &self.lease {
            Some(lease) => {
                lease.settled().await;
                Ok(lease.clone())
            }
            None => self.locks.scope.leases().hold(self.ttl).await,
        }
    }

    /// The guard that an attempt will have. It is there before, so that what was got without knowing it is given up: without a token
    /// that is whatever claim the lease has.
    fn attempt(self, lease: HeldLease) -> LockGuard {
        let owns_lease = self.lease.is_none();
        let name = self.request.name;
        LockGuard { held: Held { locks: self.locks, name, token: 0, lease, owns_lease }, is_over: false }
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
    held: Held,
    /// Whether nothing is to be given up any more.
    is_over: bool,
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
        self.held.token
    }

    /// A condition for writes: that the lock is still held under this token.
    pub fn fence(&self) -> Fence {
        Fence { held: Some(fence::Held::Lock(self.held.name.clone())), token: self.held.token }
    }

    /// Gives the lock up within a transaction, so that the last write under it and its end are one. The guard may be dropped then.
    pub fn unlock_operation(&self) -> Operation {
        Operation::unlock(&self.held.name, self.held.lease.id(), self.held.token)
    }

    /// Whether the lock is lost, because its lease could not be kept alive.
    pub fn is_lost(&self) -> bool {
        self.held.lease.is_lost()
    }

    /// Returns when the lock is lost: whatever it protects must not be touched any more.
    pub async fn lost(&self) {
        self.held.lease.lost().await;
    }

    /// Gives the lock up.
    ///
    /// # Errors
    /// FAILED_PRECONDITION (reason LOCK_NOT_HELD) when it was lost before.
    pub async fn unlock(mut self) -> Result<(), Error> {
        let Held { locks, name, token, lease, owns_lease } = self.held.clone();
        let unlocked = locks.unlock(name, lease.id(), token).await;
        self.is_over = true;
        unlocked?;
        if owns_lease { lease.revoke().await } else { Ok(()) }
    }

    /// Remembers of an attempt that was refused that there is nothing to be given up, or only what others hold.
    fn decided<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.is_over = result.as_ref().is_err_and(|error| !is_undecided(error));
        result
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        // With a lease of its own the lock goes when that is dropped.
        if !self.is_over && !self.held.owns_lease {
            let Held { locks, name, token, lease, .. } = self.held.clone();
            let id = lease.id();
            lease.give_up(|| async move { locks.unlock(name, id, token).await });
        }
    }
}
