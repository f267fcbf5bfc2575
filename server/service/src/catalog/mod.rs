//! The Catalog service. Writes are Commands; reads of services and instances come from the catalog in memory, once that has what the read
//! must see.
//!
//! - `parse`, `checks`: from the API's messages to what Commands carry; `shown`: back.
//! - `directory`: the catalog in memory.
//! - `select`, `resolve`, `dependencies`: which instances are meant, which are picked, and what services depend on.
//! - `list`: the listings.

pub(crate) mod checks;
mod dependencies;
mod directory;
mod list;
pub(crate) mod parse;
mod resolve;
mod select;
pub(crate) mod shown;

use std::collections::HashMap;
use std::sync::Arc;

use konsul_proto::v1::{self, catalog_server::Catalog};
use konsul_state::command::{
    CatalogConfigure, CatalogDeregister, CatalogMaintain, CatalogOutcome, command::Op, outcome,
};
use konsul_state::{CheckOwner, Namespace, Revision, ServiceId};
use tonic::{Request, Response, Status};

use self::parse::Registrations;
use self::resolve::Strategy;
use self::select::Selector;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::health;
use crate::limits;
use crate::watch::{DecodedStream, Watches};

pub(crate) use directory::each;
pub use directory::{AtAddress, Directory, Listed, ListedInstance};

/// What maintenance is for unless somebody says so.
const MAINTENANCE: &str = "maintenance";

/// The catalog over the state.
#[derive(Clone)]
pub(crate) struct CatalogService {
    core: Arc<Core>,
    watches: Watches,
}

impl CatalogService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { watches: Watches::new(Arc::clone(&core)), core }
    }

    async fn write(&self, writer: Writer, op: Op) -> Result<(u64, CatalogOutcome), ServiceError> {
        let outcome = self.core.write(writer, op).await?;
        match outcome.result {
            Some(outcome::Result::Catalog(done)) => Ok((outcome.revision, done)),
            _ => Err(ServiceError::UnexpectedOutcome),
        }
    }

    async fn register_one(
        &self,
        writer: Writer,
        request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, ServiceError> {
        let namespace = crate::parse::namespace(&request.namespace)?;
        let mut registrations = Registrations::none(&namespace);
        registrations.add("", request)?;
        let Registrations { command, mut ids, warnings } = registrations;
        let (revision, _) = self.write(writer, Op::CatalogRegister(command)).await?;
        Ok(v1::RegisterResponse { revision, id: ids.pop().unwrap_or_default(), warnings })
    }

    async fn register_many(
        &self,
        writer: Writer,
        request: v1::RegisterBatchRequest,
    ) -> Result<v1::RegisterBatchResponse, ServiceError> {
        let v1::RegisterBatchRequest { namespace, registrations: requests } = request;
        let namespace = crate::parse::namespace(&namespace)?;
        if !(1..=limits::REGISTRATIONS).contains(&requests.len()) {
            let problem = format!("must be 1 to {} registrations", limits::REGISTRATIONS);
            return Err(ServiceError::field("registrations", problem));
        }
        let mut registrations = Registrations::none(&namespace);
        for (i, request) in requests.into_iter().enumerate() {
            let path = format!("registrations[{i}].");
            let is_same = request.namespace.is_empty() || request.namespace == namespace.as_str();
            if !is_same {
                let problem = "must be empty or that of the whole request";
                return Err(ServiceError::field(format!("{path}namespace"), problem));
            }
            registrations.add(&path, request)?;
        }
        let Registrations { command, ids, warnings } = registrations;
        let (revision, _) = self.write(writer, Op::CatalogRegister(command)).await?;
        Ok(v1::RegisterBatchResponse { revision, ids, warnings })
    }

    async fn take_away(
        &self,
        writer: Writer,
        request: v1::DeregisterRequest,
    ) -> Result<v1::DeregisterResponse, ServiceError> {
        use v1::deregister_request::What;
        let namespace = crate::parse::namespace(&request.namespace)?;
        let what = match request.what {
            None => return Err(ServiceError::field("what", "must be an instance or a node")),
            Some(What::Instance(name)) => {
                CheckOwner::Instance(parse::instance_name("instance.", &namespace, &name)?)
            }
            Some(What::Node(name)) => CheckOwner::Node(parse::node_name("node", &namespace, &name)?),
        };
        let (namespace, what) = (namespace.as_str().to_owned(), Some(what.to_owner()));
        let (revision, done) =
            self.write(writer, Op::CatalogDeregister(CatalogDeregister { namespace, what })).await?;
        Ok(v1::DeregisterResponse { revision, instances: done.deregistered })
    }

    async fn maintain(
        &self,
        writer: Writer,
        request: v1::SetMaintenanceRequest,
    ) -> Result<v1::SetMaintenanceResponse, ServiceError> {
        use v1::set_maintenance_request::What;
        let namespace = crate::parse::namespace(&request.namespace)?;
        let what = match request.what {
            None => return Err(ServiceError::field("what", "must be an instance or a node")),
            Some(What::Instance(name)) => {
                CheckOwner::Instance(parse::instance_name("instance.", &namespace, &name)?)
            }
            Some(What::Node(name)) => CheckOwner::Node(parse::node_name("node", &namespace, &name)?),
        };
        parse::at_most("reason", &request.reason, limits::MAINTENANCE_REASON_BYTES)?;
        let reason = match (request.enabled, request.reason) {
            (false, _) => String::new(),
            (true, reason) if reason.is_empty() => MAINTENANCE.to_owned(),
            (true, reason) => reason,
        };
        let (namespace, what) = (namespace.as_str().to_owned(), Some(what.to_owner()));
        let (revision, _) =
            self.write(writer, Op::CatalogMaintain(CatalogMaintain { namespace, what, reason })).await?;
        Ok(v1::SetMaintenanceResponse { revision })
    }

    async fn configure(
        &self,
        writer: Writer,
        request: v1::ConfigureServiceRequest,
    ) -> Result<v1::ConfigureServiceResponse, ServiceError> {
        let namespace = crate::parse::namespace(&request.namespace)?.as_str().to_owned();
        let service = parse::label("service", &request.service)?.as_str().to_owned();
        let settings = Some(parse::settings("settings", request.settings)?);
        let configure = CatalogConfigure { namespace, service, settings };
        let (revision, _) = self.write(writer, Op::CatalogConfigure(configure)).await?;
        Ok(v1::ConfigureServiceResponse { revision })
    }

    /// The catalog in memory, once it has what a read must see.
    async fn directory(&self, read: Option<&v1::ReadOptions>) -> Result<&Directory, ServiceError> {
        let revision = self.core.view(read, None).await?.revision();
        let readers = &self.core.readers;
        if readers.directory.revision() < revision {
            // Watchers are told after the catalog in memory.
            readers.hub.applied(revision).await?;
        }
        Ok(&readers.directory)
    }

    /// A service, and the revision it is of.
    async fn service(
        &self,
        namespace: &str,
        name: &str,
        read: Option<&v1::ReadOptions>,
    ) -> Result<(Revision, Arc<Listed>), ServiceError> {
        let namespace = crate::parse::namespace(namespace)?;
        let name = parse::label("service", name)?;
        let directory = self.directory(read).await?;
        // Before the service is looked at: it may be newer than what is said of it, but not older.
        let revision = directory.revision();
        let not_found = || ServiceError::ServiceNotFound {
            namespace: namespace.as_str().to_owned(),
            name: name.as_str().to_owned(),
        };
        let id = ServiceId { namespace: namespace.clone(), name: name.clone() };
        Ok((revision, directory.service(&id).ok_or_else(not_found)?))
    }

    async fn pick(&self, request: v1::ResolveRequest) -> Result<v1::ResolveResponse, ServiceError> {
        let limit = match request.limit {
            0 => 1,
            limit if limit <= limits::RESOLVE_INSTANCES => limit as usize,
            _ => {
                let problem = format!("must be at most {}", limits::RESOLVE_INSTANCES);
                return Err(ServiceError::field("limit", problem));
            }
        };
        let selector = Selector::parse(request.select)?;
        let mut strategy = self::strategy(request.strategy, request.hash_key, request.zone)?;
        let stale = v1::ReadOptions { consistency: v1::Consistency::Stale.into(), ..Default::default() };
        let read = request.read.unwrap_or(stale);
        let (revision, listed) = self.service(&request.namespace, &request.service, Some(&read)).await?;
        if let Strategy::LeastLoaded(loads) = &mut strategy {
            *loads = health::loads(&self.core, &listed).await?;
        }
        let picked = resolve::pick(&listed, &selector, &strategy, limit);
        let shown = |i: &Arc<ListedInstance>| shown::instance(&i.id, i.record.clone());
        let instances = picked.instances.iter().map(shown).collect();
        Ok(v1::ResolveResponse { revision: revision.0, instances, protected: picked.protected })
    }

    async fn graph(
        &self,
        request: v1::DependenciesRequest,
    ) -> Result<v1::DependenciesResponse, ServiceError> {
        let (revision, listed) =
            self.service(&request.namespace, &request.service, request.read.as_ref()).await?;
        let graph = dependencies::of(&self.core.readers.directory, &listed);
        Ok(v1::DependenciesResponse {
            revision: revision.0,
            services: graph.services,
            cycles: graph.cycles,
            truncated: graph.truncated,
        })
    }

    async fn find_node(&self, request: v1::GetNodeRequest) -> Result<v1::GetNodeResponse, ServiceError> {
        let namespace = crate::parse::namespace(&request.namespace)?;
        let id = parse::node_name("name", &namespace, &request.name)?;
        let view = self.core.view(request.read.as_ref(), None).await?;
        let record = view.node(&id)?.ok_or(ServiceError::NodeNotFound { name: request.name })?;
        Ok(v1::GetNodeResponse { revision: view.revision().0, node: Some(shown::node(&id.name, record)) })
    }
}

fn strategy(strategy: i32, hash_key: String, zone: String) -> Result<Strategy, ServiceError> {
    let required = |field: &str, text: &str, with: &str| match text.len() {
        0 => Err(ServiceError::field(field, format!("must not be empty with {with}"))),
        n if n > limits::HASH_KEY_BYTES => {
            Err(ServiceError::field(field, format!("must be at most {} bytes", limits::HASH_KEY_BYTES)))
        }
        _ => Ok(()),
    };
    Ok(match v1::Strategy::try_from(strategy) {
        Ok(v1::Strategy::Unspecified | v1::Strategy::RoundRobin) => Strategy::RoundRobin,
        Ok(v1::Strategy::Random) => Strategy::Random,
        Ok(v1::Strategy::Weighted) => Strategy::Weighted,
        Ok(v1::Strategy::LeastLoaded) => Strategy::LeastLoaded(HashMap::new()),
        Ok(v1::Strategy::ConsistentHash) => {
            required("hash_key", &hash_key, "CONSISTENT_HASH")?;
            Strategy::ConsistentHash(hash_key.into_bytes())
        }
        Ok(v1::Strategy::Nearest) => {
            required("zone", &zone, "NEAREST")?;
            Strategy::Nearest(zone)
        }
        Err(_) => return Err(ServiceError::field("strategy", "must be a value of Strategy")),
    })
}

#[tonic::async_trait]
impl Catalog for CatalogService {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.register_one(writer, request.into_inner()).await?))
    }

    async fn register_batch(
        &self,
        request: Request<v1::RegisterBatchRequest>,
    ) -> Result<Response<v1::RegisterBatchResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.register_many(writer, request.into_inner()).await?))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.take_away(writer, request.into_inner()).await?))
    }

    async fn set_maintenance(
        &self,
        request: Request<v1::SetMaintenanceRequest>,
    ) -> Result<Response<v1::SetMaintenanceResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.maintain(writer, request.into_inner()).await?))
    }

    async fn configure_service(
        &self,
        request: Request<v1::ConfigureServiceRequest>,
    ) -> Result<Response<v1::ConfigureServiceResponse>, Status> {
        let writer = Writer::of(&request)?;
        Ok(Response::new(self.configure(writer, request.into_inner()).await?))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        Ok(Response::new(self.list_services_page(request.into_inner()).await?))
    }

    async fn list_instances(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        Ok(Response::new(self.list_instances_page(request.into_inner()).await?))
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        Ok(Response::new(self.pick(request.into_inner()).await?))
    }

    async fn dependencies(
        &self,
        request: Request<v1::DependenciesRequest>,
    ) -> Result<Response<v1::DependenciesResponse>, Status> {
        Ok(Response::new(self.graph(request.into_inner()).await?))
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Ok(Response::new(self.list_nodes_page(request.into_inner()).await?))
    }

    async fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        Ok(Response::new(self.find_node(request.into_inner()).await?))
    }

    type WatchStream = DecodedStream<v1::CatalogWatchResponse>;

    /// The Door's own way to it leaves out the decoding.
    async fn watch(
        &self,
        request: Request<v1::CatalogWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(self.watches.open(request).await?.map(DecodedStream::new))
    }
}

/// The namespace of a listing, and how many items its page may have.
fn page(namespace: &str, page_size: u32) -> Result<(Namespace, usize), ServiceError> {
    let namespace = crate::parse::namespace(namespace)?;
    Ok((namespace, crate::parse::page_size("page_size", page_size, limits::LIST_PAGE)?))
}
