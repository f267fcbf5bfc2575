//! The Catalog service: which services there are, and where their instances run.

use konsul_proto::v1::catalog_client::CatalogClient;
use konsul_proto::v1::{
    ConfigureServiceRequest, ConfigureServiceResponse, DependenciesRequest, DependenciesResponse,
    DeregisterRequest, DeregisterResponse, GetNodeRequest, InstanceInfo, InstanceName, ListInstancesRequest,
    ListNodesRequest, ListServicesRequest, NodeInfo, RegisterBatchRequest, RegisterBatchResponse,
    RegisterRequest, RegisterResponse, ResolveRequest, ResolveResponse, ServiceInfo, ServiceSettings,
    SetMaintenanceRequest, SetMaintenanceResponse, deregister_request, set_maintenance_request,
};

use crate::error::Error;
use crate::scope::{Scope, scoped};

/// Services, their instances, and the nodes these run on.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// use konsul_client::proto::{Instance, RegisterRequest, ResolveRequest};
///
/// let catalog = client.catalog();
/// let instance = Instance {
///     service: "web".into(),
///     id: "web-1".into(),
///     address: "192.0.2.10".into(),
///     port: 8080,
///     ..Default::default()
/// };
/// catalog.register(RegisterRequest { instance: Some(instance), ..Default::default() }).await?;
/// let picked = catalog.resolve(ResolveRequest { service: "web".into(), ..Default::default() }).await?;
/// for info in picked.instances {
///     println!("{}:{}", info.address, info.instance.unwrap_or_default().port);
/// }
/// # Ok(())
/// # }
/// ```
///
/// The requests are those of the API. Their namespace is this service's; what they say of it themselves is not looked at.
#[derive(Debug, Clone)]
pub struct Catalog {
    scope: Scope,
}

scoped!(Catalog);

/// What is taken away, or put into maintenance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// An instance of a service.
    Instance {
        /// The service.
        service: String,
        /// The instance's id.
        id: String,
    },
    /// A node, with all that runs on it.
    Node(String),
}

/// Makes a call of the service.
macro_rules! call {
    ($call:expr, $request:expr, $method:ident) => {
        $call
            .send($request, |transport, limit, request| async move {
                CatalogClient::new(transport).max_decoding_message_size(limit).$method(request).await
            })
            .await
    };
}

impl Catalog {
    /// Registers a node, an instance with its checks, or both at once. To register the same thing again changes nothing.
    ///
    /// # Errors
    /// NOT_FOUND (reason NODE_NOT_FOUND, LEASE_NOT_FOUND) for what it refers to and is not there; RESOURCE_EXHAUSTED (reason CATALOG_FULL);
    /// INVALID_ARGUMENT, which names the field.
    pub async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Error> {
        let request = RegisterRequest { namespace: self.namespace_name(), ..request };
        call!(self.scope.write(None)?, request, register)
    }

    /// Does up to 256 registrations at one revision, all or none.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn register_batch(
        &self,
        registrations: Vec<RegisterRequest>,
    ) -> Result<RegisterBatchResponse, Error> {
        let request = RegisterBatchRequest { namespace: self.namespace_name(), registrations };
        call!(self.scope.write(None)?, request, register_batch)
    }

    /// Takes something away. What is not there is no error.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn deregister(&self, what: Registered) -> Result<DeregisterResponse, Error> {
        use deregister_request::What;
        let what = Some(match what {
            Registered::Instance { service, id } => What::Instance(InstanceName { service, id }),
            Registered::Node(name) => What::Node(name),
        });
        let request = DeregisterRequest { namespace: self.namespace_name(), what };
        call!(self.scope.write(None)?, request, deregister)
    }

    /// Puts something into maintenance for a reason (empty: "maintenance").
    ///
    /// # Errors
    /// NOT_FOUND when it is not there.
    pub async fn begin_maintenance(
        &self,
        what: Registered,
        reason: &str,
    ) -> Result<SetMaintenanceResponse, Error> {
        self.set_maintenance(what, true, reason).await
    }

    /// Takes something out of maintenance.
    ///
    /// # Errors
    /// NOT_FOUND when it is not there.
    pub async fn end_maintenance(&self, what: Registered) -> Result<SetMaintenanceResponse, Error> {
        self.set_maintenance(what, false, "").await
    }

    async fn set_maintenance(
        &self,
        what: Registered,
        enabled: bool,
        reason: &str,
    ) -> Result<SetMaintenanceResponse, Error> {
        use set_maintenance_request::What;
        let what = Some(match what {
            Registered::Instance { service, id } => What::Instance(InstanceName { service, id }),
            Registered::Node(name) => What::Node(name),
        });
        let (namespace, reason) = (self.namespace_name(), reason.to_owned());
        let request = SetMaintenanceRequest { namespace, what, enabled, reason };
        call!(self.scope.write(None)?, request, set_maintenance)
    }

    /// Sets what holds for a service as a whole.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, which names the field.
    pub async fn configure(
        &self,
        service: &str,
        settings: ServiceSettings,
    ) -> Result<ConfigureServiceResponse, Error> {
        let (namespace, service) = (self.namespace_name(), service.to_owned());
        let request = ConfigureServiceRequest { namespace, service, settings: Some(settings) };
        call!(self.scope.write(None)?, request, configure_service)
    }

    /// All services whose names begin with `prefix`, page by page.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn services(&self, prefix: &str) -> Result<Vec<ServiceInfo>, Error> {
        let (namespace, prefix) = (self.namespace_name(), prefix.to_owned());
        let mut request = ListServicesRequest { namespace, prefix, ..Default::default() };
        let mut services = Vec::new();
        loop {
            let page = call!(self.scope.read(), request.clone(), list_services)?;
            services.extend(page.services);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(services);
            }
        }
    }

    /// All instances that are asked for, page by page.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, which names the field, above all `select.filter`.
    pub async fn instances(&self, request: ListInstancesRequest) -> Result<Vec<InstanceInfo>, Error> {
        let mut request = ListInstancesRequest { namespace: self.namespace_name(), ..request };
        let mut instances = Vec::new();
        loop {
            let page = call!(self.scope.read(), request.clone(), list_instances)?;
            instances.extend(page.instances);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(instances);
            }
        }
    }

    /// Instances of a service to speak to, best first.
    ///
    /// # Errors
    /// NOT_FOUND (reason SERVICE_NOT_FOUND) when there is no such service.
    pub async fn resolve(&self, request: ResolveRequest) -> Result<ResolveResponse, Error> {
        let request = ResolveRequest { namespace: self.namespace_name(), ..request };
        call!(self.scope.read(), request, resolve)
    }

    /// What a service depends on, and how all of that is.
    ///
    /// # Errors
    /// NOT_FOUND (reason SERVICE_NOT_FOUND) when there is no such service.
    pub async fn dependencies(&self, service: &str) -> Result<DependenciesResponse, Error> {
        let (namespace, service) = (self.namespace_name(), service.to_owned());
        let request = DependenciesRequest { namespace, service, read: None };
        call!(self.scope.read(), request, dependencies)
    }

    /// All nodes, page by page.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn nodes(&self) -> Result<Vec<NodeInfo>, Error> {
        let mut request = ListNodesRequest { namespace: self.namespace_name(), ..Default::default() };
        let mut nodes = Vec::new();
        loop {
            let page = call!(self.scope.read(), request.clone(), list_nodes)?;
            nodes.extend(page.nodes);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(nodes);
            }
        }
    }

    /// A node; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn node(&self, name: &str) -> Result<Option<NodeInfo>, Error> {
        let (namespace, name) = (self.namespace_name(), name.to_owned());
        let request = GetNodeRequest { namespace, name, read: None };
        match call!(self.scope.read(), request, get_node) {
            Ok(response) => Ok(response.node),
            Err(error) if error.reason() == Some("NODE_NOT_FOUND") => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn namespace_name(&self) -> String {
        self.scope.namespace.clone()
    }
}
