//! The Catalog service.

pub(crate) mod checks;
pub(crate) mod parse;
pub(crate) mod shown;

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use konsul_proto::v1::{self, catalog_server::Catalog};
use tonic::{Request, Response, Status};

use crate::core::Core;

/// The catalog over the state.
#[derive(Clone)]
pub(crate) struct CatalogService {
    core: Arc<Core>,
}

impl CatalogService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl Catalog for CatalogService {
    async fn register(
        &self,
        _: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        Err(Status::unimplemented("register"))
    }

    async fn register_batch(
        &self,
        _: Request<v1::RegisterBatchRequest>,
    ) -> Result<Response<v1::RegisterBatchResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn deregister(
        &self,
        _: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn set_maintenance(
        &self,
        _: Request<v1::SetMaintenanceRequest>,
    ) -> Result<Response<v1::SetMaintenanceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn configure_service(
        &self,
        _: Request<v1::ConfigureServiceRequest>,
    ) -> Result<Response<v1::ConfigureServiceResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_services(
        &self,
        _: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_instances(
        &self,
        _: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn resolve(&self, _: Request<v1::ResolveRequest>) -> Result<Response<v1::ResolveResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn dependencies(
        &self,
        _: Request<v1::DependenciesRequest>,
    ) -> Result<Response<v1::DependenciesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_node(
        &self,
        _: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::CatalogWatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<v1::CatalogWatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
