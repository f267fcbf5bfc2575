//! The catalog: registering nodes and instances with their checks, and taking them away. All of a Command is judged before any of it
//! is done.

use super::health;
use super::tally::Tally;
use crate::command::{
    CatalogConfigure, CatalogDeregister, CatalogMaintain, CatalogOutcome, CatalogReap, CatalogRegister,
    CheckDefinition, CheckRecord, CheckSet, Deposed, Health, InstanceDefinition, InstanceNotFound,
    InstanceRegistration, NamedCheck, NodeNotFound, NodeRegistration, Registration, ServiceRecord,
    ServiceSettings, check_definition::Kind, refusal::Reason,
};
use crate::error::StateError;
use crate::ids::{CheckId, CheckOwner, Ident, InstanceId, Label, Namespace, NodeId, ServiceId};
use crate::tables::check::{self, Check};
use crate::tables::found::{self, By};
use crate::tables::instance::Instance;
use crate::tables::node::Node;
use crate::tables::service::Service;
use crate::tx::Tx;

type Done = Result<Result<CatalogOutcome, Reason>, StateError>;

/// Most checks of an instance whose registration is brief, and most of what it is found by.
const BRIEF_CHECKS: usize = 4;
const BRIEF_INDEXED: usize = 16;

/// Whether the Command touches few rows, whose number is known before they are read.
pub(super) fn is_brief(register: &CatalogRegister) -> bool {
    match &register.registrations[..] {
        [Registration { node: None, instance: Some(instance) }] => {
            let indexed = |d: &InstanceDefinition| d.tags.len() + d.metadata.len();
            instance.checks.as_ref().is_none_or(|set| set.checks.len() <= BRIEF_CHECKS)
                && instance.definition.as_ref().is_none_or(|d| indexed(d) <= BRIEF_INDEXED)
        }
        _ => false,
    }
}

/// Registers nodes and instances, in order, all or none.
pub(super) fn register(tx: &mut Tx<'_, '_>, register: CatalogRegister) -> Done {
    let namespace = Namespace::trusted(&register.namespace);
    let mut tally = Tally::of(&register);
    for registration in &register.registrations {
        if let Err(reason) = tally.admit(tx, &namespace, registration)? {
            return Ok(Err(reason));
        }
    }
    for Registration { node, instance } in register.registrations {
        if let Some(node) = node {
            register_node(tx, &namespace, node)?;
        }
        if let Some(instance) = instance {
            register_instance(tx, &namespace, instance)?;
        }
    }
    Ok(Ok(CatalogOutcome::default()))
}

fn register_node(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    node: NodeRegistration,
) -> Result<(), StateError> {
    let NodeRegistration { name, definition, checks } = node;
    let id = NodeId { namespace: namespace.clone(), name: Label::trusted(&name) };
    if let Some(checks) = checks {
        set_checks(tx, &CheckOwner::Node(id.clone()), checks)?;
    }
    health::put_node(tx, id, |record| record.definition = definition)
}

fn register_instance(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    instance: InstanceRegistration,
) -> Result<(), StateError> {
    let InstanceRegistration { service, id, definition, checks } = instance;
    let service = ServiceId { namespace: namespace.clone(), name: Label::trusted(&service) };
    let id =
        InstanceId { namespace: namespace.clone(), service: service.name.clone(), id: Ident::trusted(&id) };
    if tx.get::<Service>(&service)?.is_none() {
        put_service(tx, service, ServiceSettings::default())?;
    }
    set_checks(tx, &CheckOwner::Instance(id.clone()), checks.unwrap_or_default())?;
    health::put_instance(tx, id, |record| record.definition = definition)
}

/// Gives an owner these checks and no others. One that is there already goes on as it is, if it is of the same kind; of another kind it
/// is another check, so that no result of the one before is taken for its own.
fn set_checks(tx: &mut Tx<'_, '_>, owner: &CheckOwner, checks: CheckSet) -> Result<(), StateError> {
    let rows = tx.rows();
    let before = check::of_owner(&rows.tables, &rows.txn, owner)?;
    for (id, _) in &before {
        if !checks.checks.iter().any(|check| check.id == id.id.as_str()) {
            tx.update::<Check>(id.clone(), |_| None)?;
        }
    }
    let mod_revision = tx.revision().0;
    for NamedCheck { id, definition } in checks.checks {
        let id = CheckId { owner: owner.clone(), id: Ident::trusted(&id) };
        let definition = definition.unwrap_or_default();
        let found = before.iter().find(|(known, _)| *known == id).map(|(_, record)| record);
        let next = match found {
            Some(record) if record.definition.as_ref() == Some(&definition) => continue,
            Some(record) if goes_on(record, &definition) => {
                CheckRecord { definition: Some(definition), mod_revision, ..record.clone() }
            }
            _ => health::fresh(tx, &id, definition)?,
        };
        tx.update::<Check>(id, |_| Some(next))?;
    }
    Ok(())
}

/// Whether a check with another definition is still about the same: what is known of it holds on.
fn goes_on(record: &CheckRecord, definition: &CheckDefinition) -> bool {
    let before = record.definition.as_ref().and_then(|definition| definition.kind.as_ref());
    match (before, definition.kind.as_ref()) {
        (Some(Kind::Alias(before)), Some(Kind::Alias(after))) => before == after,
        (Some(before), Some(after)) => std::mem::discriminant(before) == std::mem::discriminant(after),
        _ => false,
    }
}

/// Takes an instance away, or a node with all that runs on it.
pub(super) fn deregister(tx: &mut Tx<'_, '_>, deregister: &CatalogDeregister) -> Done {
    let namespace = Namespace::trusted(&deregister.namespace);
    let mut outcome = CatalogOutcome::default();
    match CheckOwner::trusted(&namespace, deregister.what.as_ref()) {
        None => {}
        Some(CheckOwner::Instance(id)) => outcome.deregistered += u64::from(remove_instance(tx, id)?),
        Some(CheckOwner::Node(id)) => {
            for instance in health::on_node(tx, &id)? {
                outcome.deregistered += u64::from(remove_instance(tx, instance)?);
            }
            set_checks(tx, &CheckOwner::Node(id.clone()), CheckSet::default())?;
            tx.update::<Node>(id, |_| None)?;
        }
    }
    Ok(Ok(outcome))
}

/// Takes instances away whose checks have been critical for too long, if they still are since then.
pub(super) fn reap(tx: &mut Tx<'_, '_>, reap: CatalogReap) -> Done {
    if (reap.term, reap.leader) != tx.leader() {
        return Ok(Err(Reason::Deposed(Deposed {})));
    }
    let mut outcome = CatalogOutcome::default();
    for overdue in reap.instances {
        let Some(id) = CheckId::trusted(overdue.check.as_ref()) else { continue };
        let is_overdue = |record: CheckRecord| {
            record.definition.as_ref().is_some_and(|definition| definition.deregister_after_ms > 0)
                && record.status() == Health::Critical
                && (record.since_ms, record.create_revision) == (overdue.since_ms, overdue.create_revision)
        };
        if let CheckOwner::Instance(instance) = &id.owner
            && tx.get::<Check>(&id)?.is_some_and(is_overdue)
        {
            outcome.deregistered += u64::from(remove_instance(tx, instance.clone())?);
        }
    }
    Ok(Ok(outcome))
}

/// Takes an instance away with its checks, and its service with its last instance. Says whether it was there.
pub(super) fn remove_instance(tx: &mut Tx<'_, '_>, id: InstanceId) -> Result<bool, StateError> {
    if tx.get::<Instance>(&id)?.is_none() {
        return Ok(false);
    }
    set_checks(tx, &CheckOwner::Instance(id.clone()), CheckSet::default())?;
    tx.update::<Instance>(id.clone(), |_| None)?;
    let service = id.service_id();
    if let Some(record) = tx.get::<Service>(&service)? {
        put_service(tx, service, record.settings.unwrap_or_default())?;
    }
    health::tell_followers(tx, &id)?;
    Ok(true)
}

/// Begins maintenance, or ends it.
pub(super) fn maintain(tx: &mut Tx<'_, '_>, maintain: CatalogMaintain) -> Done {
    let namespace = Namespace::trusted(&maintain.namespace);
    let reason = maintain.reason;
    match CheckOwner::trusted(&namespace, maintain.what.as_ref()) {
        None => {}
        Some(CheckOwner::Instance(id)) => {
            if tx.get::<Instance>(&id)?.is_none() {
                let (service, id) = (id.service.as_str().to_owned(), id.id.as_str().to_owned());
                return Ok(Err(Reason::InstanceNotFound(InstanceNotFound { service, id })));
            }
            health::put_instance(tx, id, |record| record.maintenance = reason)?;
        }
        Some(CheckOwner::Node(id)) => {
            if tx.get::<Node>(&id)?.is_none() {
                let name = id.name.as_str().to_owned();
                return Ok(Err(Reason::NodeNotFound(NodeNotFound { name })));
            }
            health::put_node(tx, id, |record| record.maintenance = reason)?;
        }
    }
    Ok(Ok(CatalogOutcome::default()))
}

/// Sets what holds for a service.
pub(super) fn configure(tx: &mut Tx<'_, '_>, configure: CatalogConfigure) -> Done {
    let namespace = Namespace::trusted(&configure.namespace);
    let service = ServiceId { namespace, name: Label::trusted(&configure.service) };
    let settings = configure.settings.unwrap_or_default();
    // Nothing said of nothing.
    if settings != ServiceSettings::default() || tx.get::<Service>(&service)?.is_some() {
        put_service(tx, service, settings)?;
    }
    Ok(Ok(CatalogOutcome::default()))
}

/// Writes a service with these settings, or takes it away if there is nothing to say of it: it has neither settings nor, but for one
/// that is about to come, instances.
fn put_service(tx: &mut Tx<'_, '_>, id: ServiceId, settings: ServiceSettings) -> Result<(), StateError> {
    let rows = tx.rows();
    let instances = found::counted(&rows.tables, &rows.txn, &id.namespace, &By::Service(&id.name))?;
    let before = tx.get::<Service>(&id)?;
    let is_set = settings != ServiceSettings::default();
    let revision = tx.revision().0;
    match before {
        Some(_) if !is_set && instances == 0 => drop(tx.update::<Service>(id, |_| None)?),
        Some(before) if before.settings.as_ref() == Some(&settings) => {}
        before => {
            let create_revision = before.map_or(revision, |record| record.create_revision);
            let settings = Some(settings);
            tx.update::<Service>(id, |_| {
                Some(ServiceRecord { settings, create_revision, mod_revision: revision })
            })?;
        }
    }
    Ok(())
}
