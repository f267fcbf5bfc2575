//! The Lease service. Making and ending a lease is a write; keeping it alive is a question to the leader, who has the deadlines.

mod deadlines;
mod question;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use konsul_proto::v1::{self, lease_server::Lease};
use konsul_state::command::{self, LeaseOutcome, LeaseRecord, command::Op, outcome};
use konsul_state::{LeaseId, Namespace, Revision};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use crate::asked::Asked;
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits;
use crate::page_token::{PageToken, request_hash};
use crate::parse;
use crate::streams::answer_in_order;

pub(crate) use deadlines::{Deadlines, Due, Name};
use question::Left;
pub(crate) use question::Question;

/// Lease over the state and the leader's deadlines.
#[derive(Clone)]
pub(crate) struct LeaseService {
    core: Arc<Core>,
}

impl LeaseService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn carry_out_grant(
        &self,
        writer: Writer,
        request: v1::GrantRequest,
    ) -> Result<v1::GrantResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let ttl = request.ttl.ok_or_else(|| ServiceError::field("ttl", "must be set"))?;
        let ttl_ms = parse::ttl_ms("ttl", &ttl)?;
        if request.id > LeaseId::MAX {
            return Err(ServiceError::field("id", "must be at most 2^63-1"));
        }
        if request.holder.len() > limits::LEASE_HOLDER_BYTES {
            let problem = format!("must be at most {} bytes", limits::LEASE_HOLDER_BYTES);
            return Err(ServiceError::field("holder", problem));
        }
        let namespace = namespace.as_str().to_owned();
        let grant = command::LeaseGrant { namespace, id: request.id, ttl_ms, holder: request.holder };
        let (revision, done) = self.write(writer, Op::LeaseGrant(grant)).await?;
        Ok(v1::GrantResponse { revision, id: done.id, ttl: convert::duration_ms(done.ttl_ms) })
    }

    async fn carry_out_revoke(
        &self,
        writer: Writer,
        request: v1::RevokeRequest,
    ) -> Result<v1::RevokeResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?.as_str().to_owned();
        let id = parse::lease("id", request.id)?.0;
        let (revision, done) =
            self.write(writer, Op::LeaseRevoke(command::LeaseRevoke { namespace, id })).await?;
        Ok(v1::RevokeResponse { revision, deleted: done.deleted })
    }

    async fn write(&self, writer: Writer, op: Op) -> Result<(u64, LeaseOutcome), ServiceError> {
        let outcome = self.core.write(writer, op).await?;
        match outcome.result {
            Some(outcome::Result::Lease(done)) => Ok((outcome.revision, done)),
            _ => Err(ServiceError::UnexpectedOutcome),
        }
    }

    async fn find(&self, request: v1::LeaseGetRequest) -> Result<v1::LeaseGetResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let id = parse::lease("id", request.id)?;
        let is_stale = request.read.as_ref().is_some_and(|r| r.consistency() == v1::Consistency::Stale);
        let mut response = self.describe(&namespace, id, &request).await?;
        if !is_stale {
            let left = self.ask(&namespace, vec![id.0], false).await?;
            // It has ended since it was read.
            let left = left.first().copied().filter(|ms| *ms > 0).ok_or(ServiceError::LeaseNotFound(id))?;
            response.remaining = convert::duration_ms(left);
        }
        Ok(response)
    }

    async fn describe(
        &self,
        namespace: &Namespace,
        id: LeaseId,
        request: &v1::LeaseGetRequest,
    ) -> Result<v1::LeaseGetResponse, ServiceError> {
        let view = self.core.view(request.read.as_ref(), None).await?;
        let record = view.lease(namespace, id)?.ok_or(ServiceError::LeaseNotFound(id))?;
        let others = view.lease_claims(namespace, id)? + view.lease_instances(namespace, id)?;
        let keys = match request.keys {
            true => view.lease_keys(namespace, id, limits::LEASE_KEYS)?,
            false => Vec::new(),
        };
        Ok(v1::LeaseGetResponse {
            revision: view.revision().0,
            lease: Some(lease_info(id, record)),
            remaining: None,
            key_count: view.lease_load(namespace, id)?.count - others,
            keys,
        })
    }

    async fn list_page(
        &self,
        mut request: v1::LeaseListRequest,
    ) -> Result<v1::LeaseListResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let size = parse::page_size("page_size", request.page_size, limits::LIST_PAGE)?;
        let (token, read) = (std::mem::take(&mut request.page_token), request.read.take());
        request.page_size = 0;
        let hash = request_hash("Lease.List", &request);
        let after = PageToken::decode(&token, hash)?.map(|token| token.version()).transpose()?;
        let view = self.core.view(read.as_ref(), None).await?;
        let after = after.map(|after| (&namespace, LeaseId(after.0)));
        let mut leases = view.leases(Some(&namespace), after, size + 1)?;
        let fitting = convert::fitting(leases.iter().map(|lease| lease.record.holder.len()));
        let more = leases.len() > size.min(fitting);
        leases.truncate(size.min(fitting));
        let last = leases.last().map(|lease| lease.id).filter(|_| more);
        let next_page_token = last
            .map(|id| PageToken::of_versions(view.revision(), hash, Revision(id.0)).encode())
            .unwrap_or_default();
        let leases = leases.into_iter().map(|lease| lease_info(lease.id, lease.record)).collect();
        Ok(v1::LeaseListResponse { revision: view.revision().0, leases, next_page_token })
    }

    /// Begins the time of leases anew, and answers each request up to the first that can't be answered. What was sent together is
    /// asked together, as far as it fits into one question.
    async fn refresh_all(
        &self,
        requests: Vec<v1::KeepAliveRequest>,
    ) -> (Vec<v1::KeepAliveResponse>, Option<ServiceError>) {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while let Some(first) = requests.next() {
            let mut counts = vec![first.ids.len()];
            let v1::KeepAliveRequest { namespace, mut ids } = first;
            let fits = |ids: &[u64], next: &v1::KeepAliveRequest| {
                let together = ids.len() + next.ids.len();
                next.namespace == namespace && !next.ids.is_empty() && together <= limits::REFRESH_LEASES
            };
            while let Some(next) = requests.next_if(|next| fits(&ids, next)) {
                counts.push(next.ids.len());
                ids.extend(next.ids);
            }
            match self.refresh_some(&namespace, ids).await {
                Ok(results) => {
                    let mut results = results.into_iter();
                    let answer =
                        |count| v1::KeepAliveResponse { results: results.by_ref().take(count).collect() };
                    answers.extend(counts.into_iter().map(answer));
                }
                Err(error) => return (answers, Some(error)),
            }
        }
        (answers, None)
    }

    /// Begins the time of leases of a namespace anew.
    async fn refresh_some(&self, namespace: &str, ids: Vec<u64>) -> Result<Vec<v1::Refreshed>, ServiceError> {
        if !(1..=limits::REFRESH_LEASES).contains(&ids.len()) {
            let problem = format!("must have 1 to {} items", limits::REFRESH_LEASES);
            return Err(ServiceError::field("ids", problem));
        }
        let left = self.ask(&parse::namespace(namespace)?, ids.clone(), true).await?;
        Ok(ids.into_iter().zip(left).map(refreshed).collect())
    }

    /// What the leader says that leases have left, in ms; 0 for one that is not there.
    async fn ask(
        &self,
        namespace: &Namespace,
        ids: Vec<u64>,
        refresh: bool,
    ) -> Result<Vec<u64>, ServiceError> {
        if let Some(error) = self.core.propose.unfit() {
            return Err(error.into());
        }
        let count = ids.len();
        let question = Question { namespace: namespace.as_str().to_owned(), ids, refresh };
        let asked = Asked { leases: Some(question), ..Asked::default() };
        let answer = self.core.propose.ask_leader(asked.encode_to_vec().into()).await?;
        match Left::decode(answer) {
            Ok(Left { ms }) if ms.len() == count => Ok(ms),
            _ => Err(ServiceError::UnexpectedOutcome),
        }
    }
}

fn refreshed((id, ms): (u64, u64)) -> v1::Refreshed {
    v1::Refreshed { id, ttl: (ms > 0).then(|| convert::duration_ms(ms)).flatten() }
}

fn lease_info(id: LeaseId, record: LeaseRecord) -> v1::LeaseInfo {
    v1::LeaseInfo {
        id: id.0,
        ttl: convert::duration_ms(record.ttl_ms),
        create_revision: record.create_revision,
        create_time: Some(convert::timestamp(record.create_time_ms)),
        implicit: record.implicit,
        holder: record.holder,
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::KeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn grant(&self, request: Request<v1::GrantRequest>) -> Result<Response<v1::GrantResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.carry_out_grant(writer, request.into_inner()).await?))
    }

    type KeepAliveStream = Answers;

    async fn keep_alive(
        &self,
        request: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let place = self.core.keep_alives.enter()?;
        let stop = self.core.readers.stop.clone();
        let service = self.clone();
        let answers = answer_in_order(request.into_inner(), stop, place, move |requests| {
            let service = service.clone();
            async move { service.refresh_all(requests).await }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn refresh(
        &self,
        request: Request<v1::RefreshRequest>,
    ) -> Result<Response<v1::RefreshResponse>, Status> {
        let v1::RefreshRequest { namespace, ids } = request.into_inner();
        Ok(Response::new(v1::RefreshResponse { results: self.refresh_some(&namespace, ids).await? }))
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.carry_out_revoke(writer, request.into_inner()).await?))
    }

    async fn get(
        &self,
        request: Request<v1::LeaseGetRequest>,
    ) -> Result<Response<v1::LeaseGetResponse>, Status> {
        Ok(Response::new(self.find(request.into_inner()).await?))
    }

    async fn list(
        &self,
        request: Request<v1::LeaseListRequest>,
    ) -> Result<Response<v1::LeaseListResponse>, Status> {
        Ok(Response::new(self.list_page(request.into_inner()).await?))
    }
}
