//! How instances and nodes are: what results of checks make of them. What an instance's row says of its health, its address and its
//! zone is brought up to date here, in the Command that changed what it follows from.
//!
//! Alias checks follow what an instance is without alias checks (`own_health`), and nodes have none: so a change goes on to
//! those who follow, and from there to nobody else.

use crate::command::{
    CatalogOutcome, CheckNotFound, CheckNotTtl, CheckRecord, CheckReport, CheckSettle, Deposed, Health,
    InstanceDefinition, InstanceRecord, Item, NodeDefinition, NodeRecord, TransitionRecord,
    check_definition::Kind, check_report::Report, owner, refusal::Reason,
};
use crate::error::StateError;
use crate::ids::{CheckId, CheckOwner, InstanceId, Label, NodeId};
use crate::tables::check::{self, Check};
use crate::tables::found::{self, By};
use crate::tables::instance::Instance;
use crate::tables::node::Node;
use crate::tx::Tx;

/// A check whose result changes this often within this time flaps, and is held for this long after its last change.
pub const FLIPS: usize = 5;
/// See [`FLIPS`].
pub const FLAP_WINDOW_MS: u64 = 60_000;
/// See [`FLIPS`].
pub const HOLD_MS: u64 = 60_000;
/// How often the output of a check is written that changes nothing else.
pub const OUTPUT_EVERY_MS: u64 = 60_000;
/// How many changes of its status a check remembers, and how much of what was said.
const TRANSITIONS: usize = 10;
const TRANSITION_OUTPUT_BYTES: usize = 256;
/// The item of metadata that tells where something is.
const ZONE: &str = "zone";

type Done = Result<Result<CatalogOutcome, Reason>, StateError>;

/// Most results in a brief Command.
const BRIEF_REPORTS: usize = 2;

/// Whether the Command touches few rows, whose number is known before they are read: not those of all instances of a node.
pub(super) fn is_brief(report: &CheckReport) -> bool {
    let is_of_node = |report: &Report| {
        let owner = report.check.as_ref().and_then(|check| check.owner.as_ref());
        matches!(owner.and_then(|owner| owner.owner.as_ref()), Some(owner::Owner::Node(_)))
    };
    report.reports.len() <= BRIEF_REPORTS && !report.reports.iter().any(is_of_node)
}

/// Takes results of checks.
pub(super) fn report(tx: &mut Tx<'_, '_>, report: CheckReport) -> Done {
    if report.term != 0 && (report.term, report.leader) != tx.leader() {
        return Ok(Err(Reason::Deposed(Deposed {})));
    }
    if report.by_hand
        && let Err(reason) = check_by_hand(tx, &report.reports)?
    {
        return Ok(Err(reason));
    }
    for Report { check, status, output, create_revision } in report.reports {
        let Some(id) = CheckId::trusted(check.as_ref()) else { continue };
        let Some(record) = tx.get::<Check>(&id)? else { continue };
        if create_revision != 0 && record.create_revision != create_revision {
            continue;
        }
        // What an alias check says follows from another instance, and from nothing else.
        if check::followed(id.owner.namespace(), &record).is_some() {
            continue;
        }
        let status = Health::try_from(status).unwrap_or(Health::Critical).min(Health::Critical);
        if let Some(next) = observe(tx, &record, status, output) {
            change(tx, id, &record, next)?;
        }
    }
    Ok(Ok(CatalogOutcome::default()))
}

fn check_by_hand(tx: &mut Tx<'_, '_>, reports: &[Report]) -> Result<Result<(), Reason>, StateError> {
    for report in reports {
        let name = || report.check.as_ref().map(|check| check.id.clone()).unwrap_or_default();
        let found = match CheckId::trusted(report.check.as_ref()) {
            Some(id) => tx.get::<Check>(&id)?,
            None => None,
        };
        match found.and_then(|record| record.definition).and_then(|definition| definition.kind) {
            None => return Ok(Err(Reason::CheckNotFound(CheckNotFound { id: name() }))),
            Some(Kind::TtlMs(_)) => {}
            Some(_) => return Ok(Err(Reason::CheckNotTtl(CheckNotTtl { id: name() }))),
        }
    }
    Ok(Ok(()))
}

/// Lets checks that were held be as their last results were.
pub(super) fn settle(tx: &mut Tx<'_, '_>, settle: CheckSettle) -> Done {
    if (settle.term, settle.leader) != tx.leader() {
        return Ok(Err(Reason::Deposed(Deposed {})));
    }
    for held in settle.checks {
        let Some(id) = CheckId::trusted(held.check.as_ref()) else { continue };
        let Some(record) = tx.get::<Check>(&id)? else { continue };
        if record.held_until_steady_ms == 0 || record.held_until_steady_ms != held.held_until_steady_ms {
            continue;
        }
        let mut next = CheckRecord { held_until_ms: 0, held_until_steady_ms: 0, ..record.clone() };
        let observed = next.observed();
        set_status(tx, &mut next, observed);
        change(tx, id, &record, next)?;
    }
    Ok(Ok(CatalogOutcome::default()))
}

/// What a result makes of a check; `None` if nothing.
fn observe(tx: &Tx<'_, '_>, record: &CheckRecord, status: Health, output: String) -> Option<CheckRecord> {
    let (time_ms, steady_ms) = (tx.time_ms(), tx.steady_ms());
    let mut next = record.clone();
    let is_held = record.held_until_steady_ms > steady_ms;
    if status == record.observed() {
        let is_over = record.held_until_steady_ms != 0 && !is_held;
        let is_first = record.output_ms == 0;
        let is_due = is_first || time_ms.saturating_sub(record.output_ms) >= OUTPUT_EVERY_MS;
        let is_new = is_due && output != record.output;
        if !is_over && !is_new {
            return None;
        }
        next.output = output;
        if is_over {
            (next.held_until_ms, next.held_until_steady_ms) = (0, 0);
            set_status(tx, &mut next, status);
        }
    } else {
        next.set_observed(status);
        next.output = output;
        next.flips_ms.push(time_ms);
        let surplus = next.flips_ms.len().saturating_sub(FLIPS);
        next.flips_ms.drain(..surplus);
        let flaps = next.flips_ms.len() == FLIPS
            && next.flips_ms.first().is_some_and(|first| time_ms.saturating_sub(*first) <= FLAP_WINDOW_MS);
        let status = if flaps || is_held {
            (next.held_until_ms, next.held_until_steady_ms) = (time_ms + HOLD_MS, steady_ms + HOLD_MS);
            status.max(record.status())
        } else {
            (next.held_until_ms, next.held_until_steady_ms) = (0, 0);
            status
        };
        set_status(tx, &mut next, status);
    }
    next.output_ms = time_ms;
    Some(next)
}

/// Gives a check a status, and remembers it if it is another one.
fn set_status(tx: &Tx<'_, '_>, record: &mut CheckRecord, status: Health) {
    if record.status() == status {
        return;
    }
    record.set_status(status);
    record.since_ms = tx.time_ms();
    let surplus = (record.transitions.len() + 1).saturating_sub(TRANSITIONS);
    record.transitions.drain(..surplus);
    let fits = |at: &usize| record.output.is_char_boundary(*at);
    let longest = record.output.len().min(TRANSITION_OUTPUT_BYTES);
    // 0 is the boundary of every text.
    let cut = (0..=longest).rev().find(fits).unwrap_or_default();
    record.transitions.push(TransitionRecord {
        time_ms: tx.time_ms(),
        status: status.into(),
        output: record.output[..cut].to_owned(),
        revision: tx.revision().0,
    });
}

/// Writes a check, and what follows from it.
fn change(
    tx: &mut Tx<'_, '_>,
    id: CheckId,
    before: &CheckRecord,
    next: CheckRecord,
) -> Result<(), StateError> {
    let is_other = before.status != next.status;
    let (owner, mod_revision) = (id.owner.clone(), tx.revision().0);
    tx.update::<Check>(id, |_| Some(CheckRecord { mod_revision, ..next }))?;
    match owner {
        _ if !is_other => Ok(()),
        CheckOwner::Instance(id) => put_instance(tx, id, |_| {}),
        CheckOwner::Node(id) => put_node(tx, id, |_| {}),
    }
}

/// A check that nobody has reported of.
pub(super) fn fresh(
    tx: &mut Tx<'_, '_>,
    id: &CheckId,
    definition: crate::command::CheckDefinition,
) -> Result<CheckRecord, StateError> {
    let status = match &definition.kind {
        Some(Kind::Alias(key)) => followed_status(tx, &InstanceId::trusted(id.owner.namespace(), key))?,
        _ => definition.initial().min(Health::Critical),
    };
    Ok(CheckRecord {
        definition: Some(definition),
        status: status.into(),
        observed: status.into(),
        since_ms: tx.time_ms(),
        create_revision: tx.revision().0,
        mod_revision: tx.revision().0,
        ..CheckRecord::default()
    })
}

/// What an alias check says of the instance that it follows.
fn followed_status(tx: &mut Tx<'_, '_>, followed: &InstanceId) -> Result<Health, StateError> {
    let health = tx.get::<Instance>(followed)?.map_or(Health::Critical, |record| record.own_health());
    // Who is in maintenance can't be used, and a check knows no other word for it.
    Ok(health.min(Health::Critical))
}

/// Writes an instance as `alter` makes it, with what follows from its checks and its node; makes it if it is not there. Writes
/// nothing if nothing changes.
pub(super) fn put_instance(
    tx: &mut Tx<'_, '_>,
    id: InstanceId,
    alter: impl FnOnce(&mut InstanceRecord),
) -> Result<(), StateError> {
    let before = tx.get::<Instance>(&id)?;
    let (revision, time_ms) = (tx.revision().0, tx.time_ms());
    let is_new = before.is_none();
    let before = before.unwrap_or_default();
    let mut next = before.clone();
    alter(&mut next);
    judge(tx, &id, &mut next)?;
    if is_new {
        next.create_revision = revision;
    }
    if is_new || next.health != before.health {
        next.health_since_ms = time_ms;
    }
    if !is_new && next == before {
        return Ok(());
    }
    next.mod_revision = revision;
    let is_other = is_new || next.own_health != before.own_health;
    tx.update::<Instance>(id.clone(), |_| Some(next))?;
    if is_other { tell_followers(tx, &id) } else { Ok(()) }
}

/// What follows from an instance's checks and its node.
fn judge(tx: &mut Tx<'_, '_>, id: &InstanceId, record: &mut InstanceRecord) -> Result<(), StateError> {
    let none = InstanceDefinition::default();
    let definition = record.definition.as_ref().unwrap_or(&none);
    let node = match definition.node.as_str() {
        "" => None,
        name => {
            let node = NodeId { namespace: id.namespace.clone(), name: Label::trusted(name) };
            tx.get::<Node>(&node)?
        }
    };
    let on = node.as_ref().and_then(|node| node.definition.as_ref());
    let address = match definition.address.as_str() {
        "" => on.map(|node| node.address.clone()).unwrap_or_default(),
        address => address.to_owned(),
    };
    let zone = zone(&definition.metadata).or_else(|| zone(&on?.metadata)).unwrap_or_default().to_owned();
    let rows = tx.rows();
    let checks = check::of_owner(&rows.tables, &rows.txn, &CheckOwner::Instance(id.clone()))?;
    let (aliases, own): (Vec<_>, Vec<_>) =
        checks.iter().partition(|(_, check)| check::followed(&id.namespace, check).is_some());
    let worst = |checks: &[&(CheckId, CheckRecord)]| checks.iter().map(|(_, check)| check.status()).max();
    let node_health = node.as_ref().map(NodeRecord::health);
    let own = match record.maintenance.as_str() {
        "" => node_health.max(worst(&own)).unwrap_or(Health::Passing),
        _ => Health::Maintenance,
    };
    let health = Some(own).max(worst(&aliases)).unwrap_or(Health::Passing);
    (record.address, record.zone) = (address, zone);
    record.set_own_health(own);
    record.set_health(health);
    Ok(())
}

fn zone(metadata: &[Item]) -> Option<&str> {
    metadata.iter().find(|item| item.name == ZONE).map(|item| item.value.as_str())
}

/// Lets the alias checks follow that have this instance's health, and their instances.
pub(super) fn tell_followers(tx: &mut Tx<'_, '_>, id: &InstanceId) -> Result<(), StateError> {
    let rows = tx.rows();
    let followers = found::followers(&rows.tables, &rows.txn, id)?;
    for follower in followers {
        let Some(record) = tx.get::<Check>(&follower)? else { continue };
        let status = followed_status(tx, id)?;
        if status != record.status() {
            let mut next = record.clone();
            next.set_observed(status);
            set_status(tx, &mut next, status);
            change(tx, follower, &record, next)?;
        }
    }
    Ok(())
}

/// Writes a node as `alter` makes it, with what follows from its checks; makes it if it is not there. What follows for its instances
/// is written as well.
pub(super) fn put_node(
    tx: &mut Tx<'_, '_>,
    id: NodeId,
    alter: impl FnOnce(&mut NodeRecord),
) -> Result<(), StateError> {
    let before = tx.get::<Node>(&id)?;
    let revision = tx.revision().0;
    let is_new = before.is_none();
    let before = before.unwrap_or_default();
    let mut next = before.clone();
    alter(&mut next);
    let rows = tx.rows();
    let checks = check::of_owner(&rows.tables, &rows.txn, &CheckOwner::Node(id.clone()))?;
    let worst = checks.iter().map(|(_, check)| check.status()).max().unwrap_or(Health::Passing);
    next.set_health(if next.maintenance.is_empty() { worst } else { Health::Maintenance });
    if is_new {
        next.create_revision = revision;
    }
    if !is_new && next == before {
        return Ok(());
    }
    next.mod_revision = revision;
    let is_felt = !is_new && (next.health != before.health || is_elsewhere(&before, &next));
    tx.update::<Node>(id.clone(), |_| Some(next))?;
    if is_felt {
        for instance in on_node(tx, &id)? {
            put_instance(tx, instance, |_| {})?;
        }
    }
    Ok(())
}

/// Whether a node has another address or zone.
fn is_elsewhere(before: &NodeRecord, after: &NodeRecord) -> bool {
    fn place(node: &NodeRecord) -> Option<(&str, Option<&str>)> {
        let NodeDefinition { address, metadata, .. } = node.definition.as_ref()?;
        Some((address, zone(metadata)))
    }
    place(before) != place(after)
}

/// All instances on a node.
pub(super) fn on_node(tx: &Tx<'_, '_>, id: &NodeId) -> Result<Vec<InstanceId>, StateError> {
    let rows = tx.rows();
    let by = By::Node(id.name.as_str());
    found::instances(&rows.tables, &rows.txn, &id.namespace, &by, None, usize::MAX)
}
