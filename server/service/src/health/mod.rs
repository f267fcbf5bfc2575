//! The Health service. A result is a write, and only if it changes something; passing a check in time is a question to the leader, who has
//! the deadlines (`book`). Active checks are on the `schedule` of every member, and shared by the `roll` of those that are there.

mod book;
mod heartbeat;
mod question;
mod roll;
mod schedule;

use std::cmp::Reverse;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use konsul_proto::v1::{self, health_server::Health};
use konsul_state::command::{self, CheckRecord, check_report::Report, command::Op, outcome};
use konsul_state::view::{Paging, RowCursor, Rows};
use konsul_state::{CheckId, CheckOwner, NodeId, Revision, View};
use tonic::{Request, Response, Status, Streaming};

use crate::catalog::{parse as names, shown};
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits;
use crate::page_token::{PageToken, request_hash};
use crate::parse;
use crate::watch::{DecodedStream, Watches};

pub(crate) use book::{Book, Due, Known};
pub(crate) use heartbeat::loads;
pub(crate) use question::Question;
pub(crate) use roll::{Present, Roll, RollCall};
pub(crate) use schedule::{Run, Schedule, probe};

/// Checks over the state.
#[derive(Clone)]
pub(crate) struct HealthService {
    core: Arc<Core>,
    watches: Watches,
}

/// Which checks are listed.
enum Wanted {
    All,
    OfService(konsul_state::Label),
    Of(CheckOwner),
}

impl HealthService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { watches: Watches::new(Arc::clone(&core)), core }
    }

    async fn list(&self, mut request: v1::ListChecksRequest) -> Result<v1::ListChecksResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let size = parse::page_size("page_size", request.page_size, limits::LIST_PAGE)?;
        let (token, read) = (std::mem::take(&mut request.page_token), request.read.take());
        request.page_size = 0;
        let hash = request_hash("Health.ListChecks", &request);
        let wanted = wanted(&namespace, &request)?;
        if request.status.len() > limits::SELECTOR_ITEMS {
            let problem = format!("must have at most {} items", limits::SELECTOR_ITEMS);
            return Err(ServiceError::field("status", problem));
        }
        let statuses = request.status.iter().map(|status| parse::health("status", *status));
        let statuses = statuses.collect::<Result<Vec<_>, _>>()?;
        let token = PageToken::decode(&token, hash)?;
        let pinned = token.as_ref().map(PageToken::revision);
        let after = token.map(PageToken::into_name).transpose()?;
        let after = after.map(|name| RowCursor::from_bytes(name.into_bytes()));
        let view = self.core.view(read.as_ref(), pinned).await?;
        let at = pinned.unwrap_or(view.revision());
        let page = read_page(&view, &namespace, &wanted, at, after.as_ref(), size)?;
        let is_wanted = |record: &CheckRecord| statuses.is_empty() || statuses.contains(&record.status());
        let next_page_token = match &page.next {
            None => String::new(),
            // Row keys are names between NULs.
            Some(next) => {
                let name = String::from_utf8_lossy(next.as_bytes()).into_owned();
                PageToken::of_names(at, hash, name).encode()
            }
        };
        let checks = page.rows.into_iter().filter(|(_, record)| is_wanted(record));
        let checks = checks.map(|(id, record)| shown::check(&id, record)).collect();
        Ok(v1::ListChecksResponse { revision: at.0, checks, next_page_token })
    }

    async fn update(
        &self,
        writer: Writer,
        request: v1::UpdateCheckRequest,
    ) -> Result<v1::UpdateCheckResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let name = request.name.ok_or_else(|| ServiceError::field("name", "must be set"))?;
        let id = check_name(&namespace, &name)?;
        let status = match parse::health("status", request.status)? {
            command::Health::Maintenance => {
                return Err(ServiceError::field("status", "must be PASSING, WARNING or CRITICAL"));
            }
            status => status,
        };
        let report = Report {
            check: Some(id.to_name()),
            status: status.into(),
            output: output(request.output),
            create_revision: 0,
        };
        let report = command::CheckReport { reports: vec![report], by_hand: true, ..Default::default() };
        let outcome = self.core.write(writer, Op::CheckReport(report)).await?;
        if !matches!(outcome.result, Some(outcome::Result::Catalog(_))) {
            return Err(ServiceError::UnexpectedOutcome);
        }
        // What changed nothing was published to nobody, so the leader is told that it counts.
        if let (CheckOwner::Instance(instance), true) = (&id.owner, status != command::Health::Critical) {
            heartbeat::renew(&self.core, instance, &id.id).await?;
        }
        Ok(v1::UpdateCheckResponse { revision: outcome.revision })
    }

    async fn transitions(
        &self,
        request: v1::ListTransitionsRequest,
    ) -> Result<v1::ListTransitionsResponse, ServiceError> {
        let namespace = parse::namespace(&request.namespace)?;
        let name = v1::InstanceName { service: request.service, id: request.instance.clone() };
        let id = names::instance_name("", &namespace, &name).map_err(|error| match error {
            ServiceError::InvalidField { field, problem } if field == "id" => {
                ServiceError::field("instance", problem)
            }
            other => other,
        })?;
        let view = self.core.view(request.read.as_ref(), None).await?;
        let record = view.instance(&id)?.ok_or_else(|| ServiceError::InstanceNotFound {
            service: name.service.clone(),
            id: name.id.clone(),
        })?;
        let mut checks = view.checks_of(&CheckOwner::Instance(id))?;
        let node = record.definition.map(|definition| definition.node).filter(|node| !node.is_empty());
        if let Some(node) = node {
            let name = names::label("node", &node)?;
            checks.extend(view.checks_of(&CheckOwner::Node(NodeId { namespace, name }))?);
        }
        let mut transitions: Vec<_> = checks.iter().flat_map(|(id, record)| history(id, record)).collect();
        transitions.sort_by_key(|transition| Reverse(transition.revision));
        Ok(v1::ListTransitionsResponse { revision: view.revision().0, transitions })
    }
}

fn history(id: &CheckId, record: &CheckRecord) -> impl Iterator<Item = v1::Transition> {
    record.transitions.iter().map(|transition| v1::Transition {
        name: Some(shown::check_name(id)),
        time: Some(convert::timestamp(transition.time_ms)),
        status: convert::health(transition.status()).into(),
        output: transition.output.clone(),
        revision: transition.revision,
    })
}

fn wanted(
    namespace: &konsul_state::Namespace,
    request: &v1::ListChecksRequest,
) -> Result<Wanted, ServiceError> {
    let v1::ListChecksRequest { service, instance, node, .. } = request;
    match (service.as_str(), instance.as_str(), node.as_str()) {
        ("", "", "") => Ok(Wanted::All),
        (service, "", "") => Ok(Wanted::OfService(names::label("service", service)?)),
        ("", "", node) => Ok(Wanted::Of(CheckOwner::Node(names::node_name("node", namespace, node)?))),
        ("", _, _) => Err(ServiceError::field("instance", "must be empty without service")),
        (service, id, "") => {
            let service = names::label("service", service)?;
            let id = names::ident("instance", id)?;
            let namespace = namespace.clone();
            Ok(Wanted::Of(CheckOwner::Instance(konsul_state::InstanceId { namespace, service, id })))
        }
        (_, _, _) => Err(ServiceError::field("node", "must be empty together with service")),
    }
}

fn read_page(
    view: &View,
    namespace: &konsul_state::Namespace,
    wanted: &Wanted,
    at: Revision,
    after: Option<&RowCursor>,
    limit: usize,
) -> Result<Rows<CheckId, CheckRecord>, ServiceError> {
    let (max_bytes, max_rows) = (limits::PAGE_BYTES, limits::PAGE_ROWS);
    let paging = Paging { at: Some(at), after, limit, max_bytes, max_rows };
    Ok(match wanted {
        Wanted::All => view.checks(Some((namespace, None)), &paging)?,
        Wanted::OfService(service) => view.checks(Some((namespace, Some(service))), &paging)?,
        Wanted::Of(owner) => view.checks_of_owner(owner, &paging)?,
    })
}

/// The name of a check.
fn check_name(namespace: &konsul_state::Namespace, name: &v1::CheckName) -> Result<CheckId, ServiceError> {
    use v1::check_name::Owner;
    let owner = match &name.owner {
        None => return Err(ServiceError::field("name.owner", "must be an instance or a node")),
        Some(Owner::Instance(instance)) => {
            CheckOwner::Instance(names::instance_name("name.instance.", namespace, instance)?)
        }
        Some(Owner::Node(node)) => CheckOwner::Node(names::node_name("name.node", namespace, node)?),
    };
    Ok(CheckId { owner, id: names::ident("name.check", &name.check)? })
}

/// What a check says, within its bounds: cut where a character begins, and without what a terminal might take for a command.
pub(crate) fn output(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limits::CHECK_OUTPUT_BYTES));
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        text = text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect();
    }
    text
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn list_checks(
        &self,
        request: Request<v1::ListChecksRequest>,
    ) -> Result<Response<v1::ListChecksResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn update_check(
        &self,
        request: Request<v1::UpdateCheckRequest>,
    ) -> Result<Response<v1::UpdateCheckResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.update(writer, request.into_inner()).await?))
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<v1::HeartbeatResponse, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatRequest>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        Ok(Response::new(heartbeat::stream(Arc::clone(&self.core), request.into_inner())?))
    }

    async fn list_transitions(
        &self,
        request: Request<v1::ListTransitionsRequest>,
    ) -> Result<Response<v1::ListTransitionsResponse>, Status> {
        Ok(Response::new(self.transitions(request.into_inner()).await?))
    }

    type WatchStream = DecodedStream<v1::HealthWatchResponse>;

    /// The Door's own way to it leaves out the decoding.
    async fn watch(
        &self,
        request: Request<v1::HealthWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(self.watches.open(request).await?.map(DecodedStream::new))
    }
}
