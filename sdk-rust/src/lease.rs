//! The Lease service, and a lease that keeps itself alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use konsul_proto::v1::lease_client::LeaseClient;
use konsul_proto::v1::{
    GrantRequest, GrantResponse, LeaseGetRequest, LeaseGetResponse, LeaseInfo, LeaseListRequest,
    RefreshRequest, Refreshed, RevokeRequest, RevokeResponse,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tonic::Code;

use crate::error::Error;
use crate::kv::proto_duration;
use crate::scope::{Scope, scoped};

/// A lease is refreshed this often within its time to live: two refreshes may fail.
const REFRESHES_A_TTL: u32 = 3;
/// Longest name of a holder: what the API takes, whatever characters it has.
const HOLDER_MAX_CHARS: usize = 256 / 4;
/// How long to wait after a refresh that was refused.
const AGAIN: Duration = Duration::from_millis(100);

/// Leases: what is bound to one goes away when it ends.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// use std::time::Duration;
///
/// // Kept alive until it is dropped or revoked; if this program dies, the key is gone ten seconds later.
/// let lease = client.leases().hold(Duration::from_secs(10)).await?;
/// client.kv().put("workers/7", "10.0.0.7:9000").lease(lease.id()).await?;
/// tokio::select! {
///     () = lease.lost() => eprintln!("the lease is lost, and the key with it"),
///     () = work() => lease.revoke().await?,
/// }
/// # Ok(())
/// # }
/// # async fn work() {}
/// ```
#[derive(Debug, Clone)]
pub struct Leases {
    scope: Scope,
}

scoped!(Leases);

impl Leases {
    /// Makes a lease, which the caller has to refresh. `ttl` is 1 s to 24 h; `id` 0 lets the server pick one; `holder` says
    /// to people who look whose it is.
    ///
    /// # Errors
    /// ALREADY_EXISTS when there is one of this id.
    pub async fn grant(&self, ttl: Duration, id: u64, holder: &str) -> Result<GrantResponse, Error> {
        let request = GrantRequest {
            namespace: self.scope.namespace.clone(),
            ttl: Some(proto_duration(ttl)),
            id,
            holder: holder.to_owned(),
        };
        self.scope
            .write(None)?
            .send(
                request,
                |transport, _, request| async move { LeaseClient::new(transport).grant(request).await },
            )
            .await
    }

    /// Makes a lease and keeps it alive.
    ///
    /// # Errors
    /// Those of [`grant`](Self::grant).
    pub async fn hold(&self, ttl: Duration) -> Result<HeldLease, Error> {
        let sent = Instant::now();
        let granted = self.grant(ttl, 0, &holder()).await?;
        Ok(HeldLease::new(self.clone(), granted.id, ttl, sent))
    }

    /// Keeps a lease alive that was made before.
    ///
    /// # Errors
    /// NOT_FOUND (reason LEASE_NOT_FOUND) when there is none.
    pub async fn keep(&self, id: u64) -> Result<HeldLease, Error> {
        let ttl = self.get(id, false).await?.lease.and_then(|lease| lease.ttl).unwrap_or_default();
        let sent = Instant::now();
        self.refresh(&[id]).await?;
        Ok(HeldLease::new(self.clone(), id, Duration::try_from(ttl).unwrap_or_default(), sent))
    }

    /// Refreshes up to 10,000 leases. A lease that is not there (any more) has no `ttl` in its result.
    ///
    /// # Errors
    /// UNAVAILABLE when no leader could be asked in time: the leases may live on or not.
    pub async fn refresh(&self, ids: &[u64]) -> Result<Vec<Refreshed>, Error> {
        let request = RefreshRequest { namespace: self.scope.namespace.clone(), ids: ids.to_vec() };
        let refreshed = self
            .scope
            .read()
            .send(request, |transport, _, request| async move {
                LeaseClient::new(transport).refresh(request).await
            })
            .await?;
        Ok(refreshed.results)
    }

    /// Ends a lease: its keys are deleted, its locks go to the next in line.
    ///
    /// # Errors
    /// NOT_FOUND (reason LEASE_NOT_FOUND) when there is none.
    pub async fn revoke(&self, id: u64) -> Result<RevokeResponse, Error> {
        let request = RevokeRequest { namespace: self.scope.namespace.clone(), id };
        self.scope
            .write(None)?
            .send(request, |transport, _, request| async move {
                LeaseClient::new(transport).revoke(request).await
            })
            .await
    }

    /// What a lease has left, and on request the first 1,000 keys bound to it.
    ///
    /// # Errors
    /// NOT_FOUND (reason LEASE_NOT_FOUND) when there is none.
    pub async fn get(&self, id: u64, keys: bool) -> Result<LeaseGetResponse, Error> {
        let request = LeaseGetRequest { namespace: self.scope.namespace.clone(), id, keys, read: None };
        self.scope
            .read()
            .send(
                request,
                |transport, _, request| async move { LeaseClient::new(transport).get(request).await },
            )
            .await
    }

    /// All leases of the namespace, page by page.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn list(&self) -> Result<Vec<LeaseInfo>, Error> {
        let mut request = LeaseListRequest { namespace: self.scope.namespace.clone(), ..Default::default() };
        let mut leases = Vec::new();
        loop {
            let page = self
                .scope
                .read()
                .send(request.clone(), |transport, limit, request| async move {
                    LeaseClient::new(transport).max_decoding_message_size(limit).list(request).await
                })
                .await?;
            leases.extend(page.leases);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(leases);
            }
        }
    }
}

/// A lease that is kept alive in the background, until it is revoked or its last clone is dropped.
///
/// It counts as lost when its time to live has passed since the last refresh that was acknowledged was sent: a little before
/// the servers end it, so that nobody works on who has lost it.
#[derive(Debug, Clone)]
pub struct HeldLease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    leases: Leases,
    id: u64,
    ttl: Duration,
    lost: watch::Receiver<bool>,
    renewing: JoinHandle<()>,
    /// Whether it is to be ended when nobody holds it any more.
    ends: AtomicBool,
}

impl HeldLease {
    fn new(leases: Leases, id: u64, ttl: Duration, sent: Instant) -> Self {
        let (tell, lost) = watch::channel(false);
        let renewing = tokio::spawn(renew(leases.clone(), id, ttl, sent, tell));
        Self { inner: Arc::new(Inner { leases, id, ttl, lost, renewing, ends: AtomicBool::new(true) }) }
    }

    /// The lease's id, to bind keys and claim locks with.
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// How long it lives after a refresh.
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        self.inner.is_lost()
    }

    /// Returns when it is lost.
    pub async fn lost(&self) {
        // An error says that nobody renews it any more.
        drop(self.inner.lost.clone().wait_for(|lost| *lost).await);
    }

    /// Stops refreshing it without ending it: somebody else may go on, or it ends by itself. For all clones it counts as lost.
    pub fn leave(self) {
        self.inner.ends.store(false, Ordering::Relaxed);
        self.inner.renewing.abort();
    }

    /// Ends the lease now. One that was lost is no error.
    ///
    /// # Errors
    /// UNAVAILABLE when no server could be reached in time: then the lease ends by itself.
    pub async fn revoke(self) -> Result<(), Error> {
        self.inner.renewing.abort();
        self.inner.ends.store(false, Ordering::Relaxed);
        match self.inner.leases.revoke(self.inner.id).await {
            Err(error) if error.code() != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn is_lost(&self) -> bool {
        // Nobody tells any more when nobody refreshes it any more.
        *self.lost.borrow() || self.lost.has_changed().is_err()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.ends.load(Ordering::Relaxed) || self.is_lost() {
            self.renewing.abort();
            return;
        }
        self.renewing.abort();
        let (leases, id) = (self.leases.clone(), self.id);
        // Without a runtime it ends by itself a little later.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { leases.revoke(id).await });
        }
    }
}

/// Refreshes a lease until it is lost.
async fn renew(leases: Leases, id: u64, ttl: Duration, mut sent: Instant, tell: watch::Sender<bool>) {
    loop {
        let until = sent + ttl;
        sleep_until(sent + ttl / REFRESHES_A_TTL).await;
        let refreshed = loop {
            let began = Instant::now();
            let left = until.saturating_duration_since(began);
            let refresh = leases.clone().timeout(left.max(Duration::from_millis(1)));
            match timeout_at(until, refresh.refresh(&[id])).await {
                Ok(Ok(results)) => break results.iter().any(|result| result.ttl.is_some()).then_some(began),
                Ok(Err(_)) if Instant::now() + AGAIN < until => sleep(AGAIN).await,
                Ok(Err(_)) | Err(_) => {
                    sleep_until(until).await;
                    break None;
                }
            }
        };
        match refreshed {
            Some(began) => sent = began,
            None => {
                tell.send_replace(true);
                return;
            }
        }
    }
}

/// This program and its process, for people who look whose lease it is.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_name()).unwrap_or_default();
    let holder = format!("{} {} {}", host.trim(), program.to_string_lossy(), std::process::id());
    holder.chars().take(HOLDER_MAX_CHARS).collect()
}
