//! What callers register, parsed into what Commands carry: each function names the field it refuses and says what it should be. What a
//! check does is in `checks`.

use std::collections::HashMap;
use std::net::IpAddr;

use konsul_proto::v1;
use konsul_state::command::{
    CatalogRegister, CheckSet, InstanceDefinition, InstanceRegistration, Item, NamedPort, NodeDefinition,
    NodeRegistration, Registration, ServiceSettings,
};
use konsul_state::ids::NameError;
use konsul_state::{Ident, InstanceId, Label, Namespace, NodeId};

use super::checks;
use crate::error::ServiceError;
use crate::limits;
use crate::parse;

/// Registrations as a Command carries them, and what their callers are told.
pub(super) struct Registrations {
    pub(super) command: CatalogRegister,
    /// The instances' ids; empty for a registration without one.
    pub(super) ids: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Registrations {
    pub(super) fn none(namespace: &Namespace) -> Self {
        let namespace = namespace.as_str().to_owned();
        let command = CatalogRegister { namespace, registrations: Vec::new() };
        Self { command, ids: Vec::new(), warnings: Vec::new() }
    }

    /// Adds a request's registration; `path` is what comes before its fields' names.
    pub(super) fn add(&mut self, path: &str, request: v1::RegisterRequest) -> Result<(), ServiceError> {
        let v1::RegisterRequest { namespace: _, node, node_checks, instance, checks } = request;
        if node.is_none() && instance.is_none() {
            return Err(ServiceError::field(format!("{path}instance"), "must be set, or else node"));
        }
        if node.is_none() && node_checks.is_some() {
            return Err(ServiceError::field(format!("{path}node_checks"), "must be unset without node"));
        }
        if instance.is_none() && !checks.is_empty() {
            return Err(ServiceError::field(format!("{path}checks"), "must be empty without instance"));
        }
        let node = node.map(|node| self::node(&format!("{path}node."), node, node_checks)).transpose()?;
        let on = node.as_ref().map(|node| node.name.clone());
        let instance = match instance {
            None => None,
            Some(instance) => {
                let mut instance = self::instance(&format!("{path}instance."), instance, on)?;
                self.warn(&instance);
                let set = checks::set(&format!("{path}checks"), checks, false)?;
                if let Some(place) = checks::follows(&set, &instance.service, &instance.id) {
                    let problem = "must be another instance than its own";
                    return Err(ServiceError::field(format!("{path}checks[{place}].alias"), problem));
                }
                instance.checks = Some(set);
                Some(instance)
            }
        };
        self.ids.push(instance.as_ref().map(|instance| instance.id.clone()).unwrap_or_default());
        self.command.registrations.push(Registration { node, instance });
        Ok(())
    }

    /// Says what DNS can't serve.
    fn warn(&mut self, instance: &InstanceRegistration) {
        let id = &instance.id;
        if Label::parse(id).is_err() {
            let rule = "it is no DNS label in lower case";
            self.warnings.push(format!("DNS does not serve instance {id:?} by its id: {rule}"));
        }
        for tag in instance.definition.iter().flat_map(|definition| &definition.tags) {
            if Label::parse(&tag.to_ascii_lowercase()).is_err() {
                self.warnings.push(format!("DNS does not serve tag {tag:?}: it is no DNS label"));
            }
        }
        self.warnings.truncate(limits::WARNINGS);
    }
}

fn node(path: &str, node: v1::Node, checks: Option<v1::CheckList>) -> Result<NodeRegistration, ServiceError> {
    let v1::Node { name, id, address, tagged_addresses, metadata } = node;
    label(&format!("{path}name"), &name)?;
    at_most(&format!("{path}id"), &id, limits::CATALOG_ID_BYTES)?;
    self::address(&format!("{path}address"), &address)?;
    let field = format!("{path}tagged_addresses");
    for address in tagged_addresses.values() {
        self::address(&field, address)?;
    }
    if tagged_addresses.len() > limits::TAGGED_ADDRESSES {
        return Err(too_many(&field, limits::TAGGED_ADDRESSES));
    }
    let tagged_addresses = items(&field, tagged_addresses)?;
    let metadata = items(&format!("{path}metadata"), metadata)?;
    let checks = checks.map(|list| checks::set("node_checks.checks", list.checks, true)).transpose()?;
    let definition = Some(NodeDefinition { id, address, tagged_addresses, metadata });
    Ok(NodeRegistration { name, definition, checks })
}

/// An instance; `on` is the node that is registered along with it.
fn instance(
    path: &str,
    instance: v1::Instance,
    on: Option<String>,
) -> Result<InstanceRegistration, ServiceError> {
    let v1::Instance { service, id, node, address, port, ports, tags, metadata, version, .. } = instance;
    label(&format!("{path}service"), &service)?;
    let node = if node.is_empty() { on.unwrap_or_default() } else { node };
    if !node.is_empty() {
        label(&format!("{path}node"), &node)?;
    }
    let id = match id.as_str() {
        "" if node.is_empty() => {
            return Err(ServiceError::field(format!("{path}id"), "must be set for an instance on no node"));
        }
        "" => node.clone(),
        _ => id,
    };
    ident(&format!("{path}id"), &id)?;
    match address.as_str() {
        "" if node.is_empty() => {
            let problem = "must be set for an instance on no node";
            return Err(ServiceError::field(format!("{path}address"), problem));
        }
        "" => {}
        address => self::address(&format!("{path}address"), address)?,
    }
    at_most(&format!("{path}version"), &version, limits::CATALOG_ID_BYTES)?;
    let (weight_passing, weight_warning) = weights(&format!("{path}weights"), instance.weights)?;
    if instance.lease != 0 {
        parse::lease(&format!("{path}lease"), instance.lease)?;
    }
    let definition = InstanceDefinition {
        node,
        address,
        port: self::port(&format!("{path}port"), port)?,
        ports: self::ports(&format!("{path}ports"), ports)?,
        tags: self::tags(&format!("{path}tags"), tags)?,
        metadata: items(&format!("{path}metadata"), metadata)?,
        version,
        weight_passing,
        weight_warning,
        depends_on: depends_on(&format!("{path}depends_on"), instance.depends_on)?,
        lease: instance.lease,
    };
    Ok(InstanceRegistration { service, id, definition: Some(definition), checks: Some(CheckSet::default()) })
}

fn weights(field: &str, weights: Option<v1::Weights>) -> Result<(u32, u32), ServiceError> {
    let v1::Weights { passing, warning } = weights.unwrap_or_default();
    for (name, weight) in [("passing", passing), ("warning", warning)] {
        if weight > u32::from(u16::MAX) {
            return Err(ServiceError::field(format!("{field}.{name}"), "must be at most 65535"));
        }
    }
    Ok((passing.max(1), warning.max(1)))
}

fn port(field: &str, port: u32) -> Result<u32, ServiceError> {
    match u16::try_from(port) {
        Ok(_) => Ok(port),
        Err(_) => Err(ServiceError::field(field, "must be at most 65535")),
    }
}

fn ports(field: &str, ports: HashMap<String, u32>) -> Result<Vec<NamedPort>, ServiceError> {
    if ports.len() > limits::NAMED_PORTS {
        return Err(too_many(field, limits::NAMED_PORTS));
    }
    let mut named = Vec::with_capacity(ports.len());
    for (name, port) in ports {
        label(field, &name)?;
        named.push(NamedPort { port: self::port(&format!("{field}[{name:?}]"), port)?, name });
    }
    named.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(named)
}

fn tags(field: &str, mut tags: Vec<String>) -> Result<Vec<String>, ServiceError> {
    if tags.len() > limits::TAGS {
        return Err(too_many(field, limits::TAGS));
    }
    for tag in &tags {
        ident(field, tag)?;
    }
    tags.sort_unstable();
    if tags.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(ServiceError::field(field, "must have each tag once"));
    }
    Ok(tags)
}

fn depends_on(field: &str, mut services: Vec<String>) -> Result<Vec<String>, ServiceError> {
    if services.len() > limits::DEPENDS_ON {
        return Err(too_many(field, limits::DEPENDS_ON));
    }
    for service in &services {
        label(field, service)?;
    }
    services.sort_unstable();
    services.dedup();
    Ok(services)
}

/// Items of metadata, in the order of their names.
pub(super) fn items(field: &str, map: HashMap<String, String>) -> Result<Vec<Item>, ServiceError> {
    if map.len() > limits::METADATA_ITEMS {
        return Err(too_many(field, limits::METADATA_ITEMS));
    }
    let mut items = Vec::with_capacity(map.len());
    for (name, value) in map {
        ident(field, &name)?;
        at_most(&format!("{field}[{name:?}]"), &value, limits::METADATA_VALUE_BYTES)?;
        items.push(Item { name, value });
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

/// What holds for a service.
pub(super) fn settings(
    field: &str,
    settings: Option<v1::ServiceSettings>,
) -> Result<ServiceSettings, ServiceError> {
    let v1::ServiceSettings { protect_threshold, dns_ttl, metadata } = settings.unwrap_or_default();
    if protect_threshold > 100 {
        return Err(ServiceError::field(format!("{field}.protect_threshold"), "must be at most 100"));
    }
    let dns_ttl = dns_ttl.map(|ttl| parse::duration(&format!("{field}.dns_ttl"), &ttl, limits::DNS_TTL));
    Ok(ServiceSettings {
        protect_threshold,
        dns_ttl_ms: dns_ttl.transpose()?.map(|ttl| ttl.as_millis() as u64),
        metadata: items(&format!("{field}.metadata"), metadata)?,
    })
}

/// An instance's name.
pub(crate) fn instance_name(
    path: &str,
    namespace: &Namespace,
    name: &v1::InstanceName,
) -> Result<InstanceId, ServiceError> {
    Ok(InstanceId {
        namespace: namespace.clone(),
        service: label(&format!("{path}service"), &name.service)?,
        id: ident(&format!("{path}id"), &name.id)?,
    })
}

/// A node's name.
pub(crate) fn node_name(field: &str, namespace: &Namespace, name: &str) -> Result<NodeId, ServiceError> {
    Ok(NodeId { namespace: namespace.clone(), name: label(field, name)? })
}

/// The name of a service, a node or a port.
pub(crate) fn label(field: &str, text: &str) -> Result<Label, ServiceError> {
    Label::parse(text).map_err(|e| name_error(field, e))
}

/// An id, a tag, or the name of an item of metadata.
pub(crate) fn ident(field: &str, text: &str) -> Result<Ident, ServiceError> {
    Ident::parse(text).map_err(|e| name_error(field, e))
}

fn name_error(field: &str, error: NameError) -> ServiceError {
    ServiceError::field(field, error.to_string())
}

/// An IP address, or a DNS name (RFC 1123 §2.1; underscores are let through, as resolvers do).
pub(super) fn address(field: &str, text: &str) -> Result<(), ServiceError> {
    let is_name = |text: &str| {
        let name = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A last label of digits would be an address that was mistyped.
        let is_numeric = name.rsplit('.').next().is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        name.len() <= limits::DNS_NAME_BYTES && name.split('.').all(label) && !is_numeric
    };
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(()),
        Err(_) if is_name(text) => Ok(()),
        Err(_) => Err(ServiceError::field(field, "must be an IP address or a DNS name")),
    }
}

/// Text of at most so many bytes, without control characters.
pub(super) fn at_most(field: &str, text: &str, bytes: usize) -> Result<(), ServiceError> {
    if text.len() > bytes || text.chars().any(char::is_control) {
        let problem = format!("must be at most {bytes} bytes without control characters");
        return Err(ServiceError::field(field, problem));
    }
    Ok(())
}

pub(super) fn too_many(field: &str, most: usize) -> ServiceError {
    ServiceError::field(field, format!("must have at most {most} items"))
}
