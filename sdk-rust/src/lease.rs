//! The Lease service, and a lease that keeps itself alive.

use std::collections::HashMap;
use std::future::Future;
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
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Answer, Error};
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
        let refreshed = self.refresh(&[id]).await?;
        if refreshed.iter().all(|result| result.ttl.is_none()) {
            return Err(not_found(id));
        }
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
/// the servers end it, so that nobody works on who has lost it. That holds too for a program that was stopped, or too busy to
/// refresh it. What was lost once stays lost.
#[derive(Debug, Clone)]
pub struct HeldLease {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    leases: Leases,
    id: u64,
    ttl: Duration,
    /// When it is lost unless it is refreshed before; `None` when it is lost, left or revoked.
    until: watch::Sender<Option<Instant>>,
    renewing: JoinHandle<()>,
    /// Whether it is to be ended when nobody holds it any more.
    ends: AtomicBool,
    /// Claims that are being given up in the background.
    giving_up: watch::Sender<u32>,
}

impl HeldLease {
    fn new(leases: Leases, id: u64, ttl: Duration, sent: Instant) -> Self {
        let until = watch::Sender::new(Some(sent + ttl));
        let renewing = tokio::spawn(renew(leases.clone(), id, ttl, sent, until.clone()));
        let (ends, giving_up) = (AtomicBool::new(true), watch::Sender::new(0));
        Self { inner: Arc::new(Inner { leases, id, ttl, until, renewing, ends, giving_up }) }
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
        let mut told = self.inner.until.subscribe();
        loop {
            let until = *told.borrow_and_update();
            let Some(until) = until.filter(|_| !self.is_lost()) else { return };
            // By the clock too: who refreshes it may be kept from telling.
            drop(timeout_at(until, told.changed()).await);
        }
    }

    /// Stops refreshing it without ending it: somebody else may go on, or it ends by itself. For all clones it counts as lost.
    pub fn leave(self) {
        self.inner.stop();
    }

    /// Ends the lease now; for all clones it counts as lost at once. One that was lost is no error.
    ///
    /// # Errors
    /// UNAVAILABLE when no server could be reached in time: then the lease ends by itself.
    pub async fn revoke(self) -> Result<(), Error> {
        self.inner.stop();
        match self.inner.leases.revoke(self.inner.id).await {
            Err(error) if error.code() != Code::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives a claim under this lease up in the background, unless it goes with the lease. Without a runtime it does so later.
    pub(crate) fn give_up<F>(&self, call: impl FnOnce() -> F)
    where
        F: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_lost() {
            return;
        }
        self.inner.giving_up.send_modify(|claims| *claims += 1);
        let (given_up, call) = (GivingUp(self.clone()), call());
        runtime.spawn(async move {
            // What can't be given up ends with the lease.
            drop(call.await);
            drop(given_up);
        });
    }

    /// Waits until nothing is being given up: it would take a claim along that is made meanwhile, for a lease has but one on a lock.
    pub(crate) async fn settled(&self) {
        // Fails when nobody tells any more, and this does.
        drop(self.inner.giving_up.subscribe().wait_for(|claims| *claims == 0).await);
    }

    /// The result of a call that waits under this lease; it can't be had any more once the lease is lost.
    pub(crate) async fn while_held<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            result = call => result,
            () = self.lost() => {
                let message = format!(
                    "lease {} was lost meanwhile: it was ended, or no server could be reached for {:?}",
                    self.id(),
                    self.ttl()
                );
                Err(Error::Rpc(Box::new(Answer::local(Code::FailedPrecondition, message))))
            }
        }
    }
}

impl Inner {
    fn is_lost(&self) -> bool {
        is_over(*self.until.borrow())
    }

    /// From here on it is lost, and does not end when it is dropped.
    fn stop(&self) {
        self.ends.store(false, Ordering::Relaxed);
        self.renewing.abort();
        self.until.send_replace(None);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.renewing.abort();
        if !self.ends.load(Ordering::Relaxed) || self.is_lost() {
            return;
        }
        let (leases, id) = (self.leases.clone(), self.id);
        // Without a runtime it ends by itself a little later.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { leases.revoke(id).await });
        }
    }
}

/// A claim that is being given up, or was, once this is dropped: also with the runtime that does it.
struct GivingUp(HeldLease);

impl Drop for GivingUp {
    fn drop(&mut self) {
        self.0.inner.giving_up.send_modify(|claims| *claims -= 1);
    }
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_none_or(|until| Instant::now() >= until)
}

/// Refreshes a lease until it is lost.
async fn renew(
    leases: Leases,
    id: u64,
    ttl: Duration,
    mut sent: Instant,
    tell: watch::Sender<Option<Instant>>,
) {
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
        // An answer that came too late, or after it was left, does not bring it back: somebody may know already that it is lost.
        tell.send_modify(|told| {
            *told = refreshed.filter(|_| !is_over(*told)).map(|began| began + ttl);
        });
        match refreshed {
            Some(began) if tell.borrow().is_some() => sent = began,
            _ => return,
        }
    }
}

/// As a server says that there is no such lease.
fn not_found(id: u64) -> Error {
    let details = ErrorDetails::with_error_info("LEASE_NOT_FOUND", "konsul", HashMap::new());
    Status::with_error_details(Code::NotFound, format!("lease {id} does not exist"), details).into()
}

/// This program and its process, for people who look whose lease it is.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let program = std::env::current_exe().ok();
    let program = program.as_deref().and_then(|path| path.file_name()).unwrap_or_default();
    let holder = format!("{} {} {}", host.trim(), program.to_string_lossy(), std::process::id());
    holder.chars().take(HOLDER_MAX_CHARS).collect()
}
