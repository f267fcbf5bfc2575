//! The Lock service, and what it shares with elections: `claims` makes a claim and waits for it, `turns` tells whose turn it is,
//! `abandoned` has the claims of callers who went away.

mod abandoned;
mod claims;
mod election;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use konsul_proto::v1::{self, lock_server::Lock};
use konsul_state::command::{self, ClaimRecord, LockKind, LockRecord};
use tonic::{Request, Response, Status};

use self::claims::Wanted;
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits;
use crate::page_token::{PageToken, request_hash};
use crate::parse;

pub(crate) use abandoned::{Abandoned, Left};
pub(crate) use election::ElectionService;
pub(crate) use turns::Turns;

/// Locks over the state.
pub(crate) struct LockService {
    core: Arc<Core>,
}

impl LockService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn find(&self, request: v1::LockGetRequest) -> Result<v1::LockGetResponse, ServiceError> {
        let lock = claims::name(LockKind::Lock, &request.namespace, &request.name)?;
        let view = self.core.view(request.read.as_ref(), None).await?;
        let record = view.lock(&lock)?.unwrap_or_default();
        let mut claims = view.claims(&lock, 0, limits::LOCK_CLAIMS)?;
        claims.truncate(convert::fitting(claims.iter().map(|(_, claim)| claim.value.len())));
        Ok(v1::LockGetResponse {
            revision: view.revision().0,
            lock: Some(lock_info(request.name, &record)),
            claims: claims.into_iter().map(|(token, record)| claim(token, record)).collect(),
        })
    }

    async fn list_page(
        &self,
        mut request: v1::LockListRequest,
    ) -> Result<v1::LockListResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let size = parse::page_size("page_size", request.page_size, limits::LIST_PAGE)?;
        let (token, read) = (std::mem::take(&mut request.page_token), request.read.take());
        request.page_size = 0;
        let hash = request_hash("Lock.List", &request);
        let after = match PageToken::decode(&token, hash)? {
            Some(token) => Some(claims::name(LockKind::Lock, namespace.as_str(), &token.into_name()?)?),
            None => None,
        };
        let view = self.core.view(read.as_ref(), None).await?;
        let mut locks = view.locks(Some((&namespace, LockKind::Lock)), after.as_ref(), size + 1)?;
        let fitting = convert::fitting(locks.iter().map(|held| held.lock.name.as_str().len()));
        let more = locks.len() > size.min(fitting);
        locks.truncate(size.min(fitting));
        let last = locks.last().map(|held| held.lock.name.as_str().to_owned()).filter(|_| more);
        let next_page_token =
            last.map(|name| PageToken::of_names(view.revision(), hash, name).encode()).unwrap_or_default();
        let locks = locks.into_iter().map(|held| lock_info(held.lock.name.as_str().to_owned(), &held.record));
        Ok(v1::LockListResponse { revision: view.revision().0, locks: locks.collect(), next_page_token })
    }
}

/// A claim as a request asks for it.
fn wanted(request: v1::TryLockRequest) -> Result<Wanted, ServiceError> {
    let lock = claims::name(LockKind::Lock, &request.namespace, &request.name)?;
    let lease = parse::lease("lease", request.lease)?;
    let shared = match v1::LockMode::try_from(request.mode) {
        Ok(v1::LockMode::Unspecified | v1::LockMode::Exclusive) => false,
        Ok(v1::LockMode::Shared) => true,
        Err(_) => return Err(ServiceError::field("mode", "must be a value of LockMode")),
    };
    if request.limit > limits::LOCK_LIMIT {
        return Err(ServiceError::field("limit", format!("must be at most {}", limits::LOCK_LIMIT)));
    }
    let delay = request.lock_delay.as_ref();
    let delay = delay.map(|d| parse::duration("lock_delay", d, limits::LOCK_DELAY)).transpose()?;
    claims::check_value(&request.value)?;
    Ok(Wanted {
        lock,
        lease,
        shared,
        limit: request.limit.max(1),
        delay_ms: delay.unwrap_or_default().as_millis() as u64,
        value: request.value,
    })
}

/// A claim that a Txn makes.
pub(crate) fn lock_operation(
    namespace: &str,
    operation: v1::LockOperation,
) -> Result<command::LockAcquire, ServiceError> {
    let v1::LockOperation { name, lease, mode, limit, lock_delay, value } = operation;
    let namespace = namespace.to_owned();
    let wanted = wanted(v1::TryLockRequest { namespace, name, lease, mode, limit, lock_delay, value })?;
    Ok(claims::acquire(wanted, false))
}

/// A claim that a Txn gives up.
pub(crate) fn unlock_operation(
    namespace: &str,
    operation: v1::UnlockOperation,
) -> Result<command::LockRelease, ServiceError> {
    let v1::UnlockOperation { name, lease, token } = operation;
    let lock = claims::name(LockKind::Lock, namespace, &name)?;
    let lease = parse::lease("lease", lease)?;
    Ok(command::LockRelease { lock: Some(lock.to_name()), lease: lease.0, token })
}

fn lock_info(name: String, record: &LockRecord) -> v1::LockInfo {
    let delay = Duration::from_millis(record.delay_ms);
    v1::LockInfo {
        name,
        limit: record.limit,
        holders: record.shared + record.exclusive,
        waiting: record.waiting,
        held_back: (record.held_back_since != 0)
            .then(|| prost_types::Duration::try_from(delay).ok())
            .flatten(),
    }
}

fn claim(token: u64, record: ClaimRecord) -> v1::Claim {
    let mode = if record.shared { v1::LockMode::Shared } else { v1::LockMode::Exclusive };
    v1::Claim {
        token,
        lease: record.lease,
        mode: mode.into(),
        granted: record.granted,
        since: Some(convert::timestamp(record.since_ms)),
        value: record.value,
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<v1::LockRequest>) -> Result<Response<v1::LockResponse>, Status> {
        let writer = Writer::of(&request)?;
        let v1::LockRequest { namespace, name, lease, mode, limit, lock_delay, value } = request.into_inner();
        let wanted = wanted(v1::TryLockRequest { namespace, name, lease, mode, limit, lock_delay, value })?;
        let granted = claims::claim(&self.core, writer, wanted).await?;
        Ok(Response::new(v1::LockResponse { revision: granted.revision, token: granted.token }))
    }

    async fn try_lock(
        &self,
        request: Request<v1::TryLockRequest>,
    ) -> Result<Response<v1::TryLockResponse>, Status> {
        let writer = Writer::of(&request)?;
        let wanted = wanted(request.into_inner())?;
        let (revision, outcome) = claims::try_claim(&self.core, writer, wanted).await?;
        let token = if outcome.granted { outcome.token } else { 0 };
        Ok(Response::new(v1::TryLockResponse { revision, acquired: outcome.granted, token }))
    }

    async fn unlock(
        &self,
        request: Request<v1::UnlockRequest>,
    ) -> Result<Response<v1::UnlockResponse>, Status> {
        let writer = Writer::of(&request)?;
        let v1::UnlockRequest { namespace, name, lease, token } = request.into_inner();
        let lock = claims::name(LockKind::Lock, &namespace, &name)?;
        let lease = parse::lease("lease", lease)?;
        let revision = claims::release(&self.core, writer, &lock, lease, token).await?;
        Ok(Response::new(v1::UnlockResponse { revision }))
    }

    async fn get(
        &self,
        request: Request<v1::LockGetRequest>,
    ) -> Result<Response<v1::LockGetResponse>, Status> {
        Ok(Response::new(self.find(request.into_inner()).await?))
    }

    async fn list(
        &self,
        request: Request<v1::LockListRequest>,
    ) -> Result<Response<v1::LockListResponse>, Status> {
        Ok(Response::new(self.list_page(request.into_inner()).await?))
    }
}
