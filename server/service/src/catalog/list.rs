//! The listings: services and instances of one service from the catalog in memory, all else from the state.

use std::collections::HashMap;

use konsul_proto::v1;
use konsul_state::view::{By, Paging};
use konsul_state::{Ident, InstanceId, Label, Namespace, NodeId, Revision};
use xxhash_rust::xxh3::xxh3_64;

use super::directory::{Listed, ListedInstance};
use super::select::Selector;
use super::{CatalogService, page, parse, shown};
use crate::convert;
use crate::error::ServiceError;
use crate::limits;
use crate::page_token::{PageToken, request_hash};

/// Between a service and an id in a page token: neither has one.
const BETWEEN: char = '\0';
/// How many instances at least are looked at for a page.
const LOOKED_AT: usize = 1_000;

impl CatalogService {
    pub(super) async fn list_services_page(
        &self,
        mut request: v1::ListServicesRequest,
    ) -> Result<v1::ListServicesResponse, ServiceError> {
        let (namespace, size) = page(&request.namespace, request.page_size)?;
        if request.prefix.len() > Label::MAX_BYTES {
            let problem = format!("must be at most {} bytes", Label::MAX_BYTES);
            return Err(ServiceError::field("prefix", problem));
        }
        let (token, read) = (std::mem::take(&mut request.page_token), request.read.take());
        request.page_size = 0;
        let hash = request_hash("Catalog.ListServices", &request);
        let after = PageToken::decode(&token, hash)?.map(PageToken::into_name).transpose()?;
        let after = after.map(|name| Label::parse(&name)).transpose();
        let after = after.map_err(|_| ServiceError::InvalidPageToken)?;
        let directory = self.directory(read.as_ref()).await?;
        let revision = directory.revision();
        let found = directory.services(&namespace, &request.prefix, after.as_ref(), size + 1);
        let mut services: Vec<_> = found.iter().take(size).map(|listed| service(listed)).collect();
        services.truncate(convert::fitting(services.iter().map(prost::Message::encoded_len)));
        let next_page_token = next(found.len() > services.len(), services.last(), |last| {
            PageToken::of_names(revision, hash, last.name.clone())
        });
        Ok(v1::ListServicesResponse { revision: revision.0, services, next_page_token })
    }

    pub(super) async fn list_instances_page(
        &self,
        request: v1::ListInstancesRequest,
    ) -> Result<v1::ListInstancesResponse, ServiceError> {
        let v1::ListInstancesRequest { namespace, service, node, select, page_size, page_token, read } =
            request;
        let hash = instances_hash(&namespace, &service, &node, select.as_ref());
        let (namespace, size) = page(&namespace, page_size)?;
        let node = (!node.is_empty()).then(|| parse::node_name("node", &namespace, &node)).transpose()?;
        let selector = Selector::parse(select)?;
        let after = PageToken::decode(&page_token, hash)?.map(PageToken::into_name).transpose()?;
        let after = after.map(|name| cursor(&namespace, &name)).transpose()?;
        let wanted = Wanted { namespace, node, selector, after, size };
        let (revision, found) = match service.as_str() {
            "" => self.instances_anywhere(read.as_ref(), wanted).await?,
            service => {
                let service = parse::label("service", service)?;
                self.instances_of(read.as_ref(), service, wanted).await?
            }
        };
        let Found { instances, last, .. } = found;
        let next_page_token = next(last.is_some(), last.as_ref(), |last| {
            PageToken::of_names(revision, hash, format!("{}{BETWEEN}{}", last.service, last.id))
        });
        Ok(v1::ListInstancesResponse { revision: revision.0, instances, next_page_token })
    }

    /// Of one service, from memory. A service that is not there has none.
    async fn instances_of(
        &self,
        read: Option<&v1::ReadOptions>,
        service: Label,
        wanted: Wanted,
    ) -> Result<(Revision, Found), ServiceError> {
        let directory = self.directory(read).await?;
        let revision = directory.revision();
        let id = konsul_state::ServiceId { namespace: wanted.namespace.clone(), name: service };
        let listed = directory.service(&id);
        let all = listed.as_ref().map(|listed| &listed.instances[..]).unwrap_or_default();
        let from = wanted.after.as_ref().map_or(0, |after| all.partition_point(|i| i.id <= *after));
        let mut found = Found::default();
        for instance in &all[from..] {
            if !found.add(&wanted, instance) {
                break;
            }
        }
        Ok((revision, found.whole(all.last().map(|i| &i.id))))
    }

    /// Of any service, from the state: by an index if there is one for what is asked, otherwise by a look at all, of which each page
    /// makes a part.
    async fn instances_anywhere(
        &self,
        read: Option<&v1::ReadOptions>,
        wanted: Wanted,
    ) -> Result<(Revision, Found), ServiceError> {
        let view = self.core.view(read, None).await?;
        let (namespace, after) = (&wanted.namespace, wanted.after.as_ref());
        // As many as the page takes, if all of them are meant.
        let most = (wanted.size + 1).max(LOOKED_AT);
        let by = match (&wanted.node, wanted.selector.tag(), wanted.selector.item()) {
            (Some(node), _, _) => Some(By::Node(node.name.as_str())),
            (None, Some(tag), _) => Some(By::Tag(tag)),
            (None, None, Some((name, value))) => Some(By::Metadata(name, value)),
            (None, None, None) => None,
        };
        let (rows, is_all) = match by {
            Some(by) => {
                let rows = view.instances_by(namespace, &by, after, most)?;
                let is_all = rows.len() < most;
                (rows, is_all)
            }
            None => {
                let after = after.map(konsul_state::view::RowCursor::behind_instance);
                let paging = Paging {
                    at: None,
                    after: after.as_ref(),
                    limit: most,
                    max_bytes: limits::PAGE_BYTES,
                    max_rows: limits::PAGE_ROWS,
                };
                let rows = view.instances(Some((namespace, None)), &paging)?;
                (rows.rows, rows.next.is_none())
            }
        };
        let mut found = Found::default();
        let last = rows.last().map(|(id, _)| id.clone());
        for (id, record) in rows {
            if !found.add(&wanted, &ListedInstance { id, record }) {
                break;
            }
        }
        let found = if is_all { found.whole(last.as_ref()) } else { found };
        Ok((view.revision(), found))
    }

    pub(super) async fn list_nodes_page(
        &self,
        request: v1::ListNodesRequest,
    ) -> Result<v1::ListNodesResponse, ServiceError> {
        let v1::ListNodesRequest { namespace, metadata, page_size, page_token, read } = request;
        if metadata.len() > limits::SELECTOR_ITEMS {
            let problem = format!("must have at most {} items", limits::SELECTOR_ITEMS);
            return Err(ServiceError::field("metadata", problem));
        }
        let hash = nodes_hash(&namespace, &metadata);
        let (namespace, size) = page(&namespace, page_size)?;
        let after = PageToken::decode(&page_token, hash)?.map(PageToken::into_name).transpose()?;
        let after = after.map(|name| parse::node_name("page_token", &namespace, &name)).transpose();
        let after = after.map_err(|_| ServiceError::InvalidPageToken)?;
        let view = self.core.view(read.as_ref(), None).await?;
        let after = after.as_ref().map(konsul_state::view::RowCursor::behind_node);
        let paging = Paging {
            at: None,
            after: after.as_ref(),
            limit: size,
            max_bytes: limits::PAGE_BYTES,
            max_rows: limits::PAGE_ROWS,
        };
        let rows = view.nodes(Some(&namespace), &paging)?;
        let last = rows.rows.last().map(|(id, _)| id.clone());
        let nodes = rows.rows.into_iter().filter(|(_, record)| {
            let items = record.definition.as_ref().map(|d| &d.metadata[..]).unwrap_or_default();
            metadata.iter().all(|(name, value)| items.iter().any(|i| i.name == *name && i.value == *value))
        });
        let nodes = nodes.map(|(id, record)| shown::node(&id.name, record)).collect();
        let next_page_token = next(rows.next.is_some(), last.as_ref(), |last: &NodeId| {
            PageToken::of_names(view.revision(), hash, last.name.as_str().to_owned())
        });
        Ok(v1::ListNodesResponse { revision: view.revision().0, nodes, next_page_token })
    }
}

/// What a page of instances is asked for.
struct Wanted {
    namespace: Namespace,
    node: Option<NodeId>,
    selector: Selector,
    after: Option<InstanceId>,
    size: usize,
}

/// A page of instances.
#[derive(Default)]
struct Found {
    instances: Vec<v1::InstanceInfo>,
    bytes: usize,
    /// The last one that was looked at; `None` once all were.
    last: Option<InstanceId>,
}

impl Found {
    /// Adds an instance if it is meant; `false` if the page is full, and then it was not looked at.
    fn add(&mut self, wanted: &Wanted, instance: &ListedInstance) -> bool {
        if self.instances.len() == wanted.size || self.bytes >= limits::PAGE_BYTES {
            return false;
        }
        self.last = Some(instance.id.clone());
        let on = instance.record.definition.as_ref().map_or("", |definition| definition.node.as_str());
        let is_there = wanted.node.as_ref().is_none_or(|node| node.name.as_str() == on);
        if is_there && wanted.selector.admits(instance) {
            let shown = shown::instance(&instance.id, instance.record.clone());
            self.bytes += prost::Message::encoded_len(&shown);
            self.instances.push(shown);
        }
        true
    }

    /// The same, given the last of all that there are.
    fn whole(mut self, last: Option<&InstanceId>) -> Self {
        if self.last.as_ref() == last {
            self.last = None;
        }
        self
    }
}

/// A service with what its instances come to.
fn service(listed: &Listed) -> v1::ServiceInfo {
    let [passing, warning, critical, maintenance] = listed.counts;
    v1::ServiceInfo {
        passing,
        warning,
        critical,
        maintenance,
        tags: listed.tags().to_vec(),
        ..shown::service(&listed.id.name, listed.record.clone())
    }
}

fn next<T>(more: bool, last: Option<&T>, token: impl FnOnce(&T) -> PageToken) -> String {
    last.filter(|_| more).map(|last| token(last).encode()).unwrap_or_default()
}

fn cursor(namespace: &Namespace, name: &str) -> Result<InstanceId, ServiceError> {
    let invalid = || ServiceError::InvalidPageToken;
    let (service, id) = name.split_once(BETWEEN).ok_or_else(invalid)?;
    Ok(InstanceId {
        namespace: namespace.clone(),
        service: Label::parse(service).map_err(|_| invalid())?,
        id: Ident::parse(id).map_err(|_| invalid())?,
    })
}

/// The hash of a request for instances. Maps have no order of their own, so their items are added up.
fn instances_hash(namespace: &str, service: &str, node: &str, select: Option<&v1::InstanceSelector>) -> u64 {
    let none = v1::InstanceSelector::default();
    let select = select.unwrap_or(&none);
    let rest = v1::ListInstancesRequest {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        node: node.to_owned(),
        select: Some(v1::InstanceSelector { metadata: HashMap::new(), ..select.clone() }),
        ..Default::default()
    };
    request_hash("Catalog.ListInstances", &rest).wrapping_add(items_hash(&select.metadata))
}

fn nodes_hash(namespace: &str, metadata: &HashMap<String, String>) -> u64 {
    let rest = v1::ListNodesRequest { namespace: namespace.to_owned(), ..Default::default() };
    request_hash("Catalog.ListNodes", &rest).wrapping_add(items_hash(metadata))
}

fn items_hash(items: &HashMap<String, String>) -> u64 {
    let hash = |(name, value): (&String, &String)| xxh3_64(format!("{name}\0{value}").as_bytes());
    items.iter().map(hash).fold(0, u64::wrapping_add)
}
