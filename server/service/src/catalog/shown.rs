//! The catalog's records as the API shows them. Nothing is decided here.

use konsul_proto::v1;
use konsul_state::command::{CheckRecord, InstanceRecord, Item, NodeRecord, ServiceRecord, ServiceSettings};
use konsul_state::{CheckId, CheckOwner, InstanceId, Label};

use super::checks;
use crate::convert;

/// A node.
pub(crate) fn node(name: &Label, record: NodeRecord) -> v1::NodeInfo {
    let health = convert::health(record.health()).into();
    let definition = record.definition.unwrap_or_default();
    v1::NodeInfo {
        node: Some(v1::Node {
            name: name.as_str().to_owned(),
            id: definition.id,
            address: definition.address,
            tagged_addresses: map(definition.tagged_addresses),
            metadata: map(definition.metadata),
        }),
        health,
        maintenance_reason: record.maintenance,
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
    }
}

/// A service, without what its instances come to.
pub(crate) fn service(name: &Label, record: ServiceRecord) -> v1::ServiceInfo {
    v1::ServiceInfo {
        name: name.as_str().to_owned(),
        settings: Some(settings(record.settings.unwrap_or_default())),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        ..v1::ServiceInfo::default()
    }
}

fn settings(settings: ServiceSettings) -> v1::ServiceSettings {
    v1::ServiceSettings {
        protect_threshold: settings.protect_threshold,
        dns_ttl: settings.dns_ttl_ms.and_then(convert::duration_ms),
        metadata: map(settings.metadata),
    }
}

/// An instance.
pub(crate) fn instance(id: &InstanceId, record: InstanceRecord) -> v1::InstanceInfo {
    let health = convert::health(record.health()).into();
    let definition = record.definition.unwrap_or_default();
    v1::InstanceInfo {
        instance: Some(v1::Instance {
            service: id.service.as_str().to_owned(),
            id: id.id.as_str().to_owned(),
            node: definition.node,
            address: definition.address,
            port: definition.port,
            ports: definition.ports.into_iter().map(|port| (port.name, port.port)).collect(),
            tags: definition.tags,
            metadata: map(definition.metadata),
            version: definition.version,
            weights: Some(v1::Weights {
                passing: definition.weight_passing,
                warning: definition.weight_warning,
            }),
            depends_on: definition.depends_on,
            lease: definition.lease,
        }),
        address: record.address,
        zone: record.zone,
        health,
        maintenance_reason: record.maintenance,
        health_since: Some(convert::timestamp(record.health_since_ms)),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
    }
}

/// A check.
pub(crate) fn check(id: &CheckId, record: CheckRecord) -> v1::CheckInfo {
    let (status, observed) = (convert::health(record.status()), convert::health(record.observed()));
    v1::CheckInfo {
        name: Some(check_name(id)),
        check: record.definition.map(|definition| checks::shown(id.id.as_str(), definition)),
        status: status.into(),
        output: record.output,
        since: Some(convert::timestamp(record.since_ms)),
        held_until: (record.held_until_ms > 0).then(|| convert::timestamp(record.held_until_ms)),
        observed: observed.into(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
    }
}

/// The name of a check.
pub(crate) fn check_name(id: &CheckId) -> v1::CheckName {
    use v1::check_name::Owner;
    let owner = match &id.owner {
        CheckOwner::Instance(instance) => Owner::Instance(v1::InstanceName {
            service: instance.service.as_str().to_owned(),
            id: instance.id.as_str().to_owned(),
        }),
        CheckOwner::Node(node) => Owner::Node(node.name.as_str().to_owned()),
    };
    v1::CheckName { owner: Some(owner), check: id.id.as_str().to_owned() }
}

fn map(items: Vec<Item>) -> std::collections::HashMap<String, String> {
    items.into_iter().map(|item| (item.name, item.value)).collect()
}
