//! The model: maps of records. What follows from something else is worked out anew after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use konsul_state::command::{
    CheckRecord, CheckSet, Health, InstanceDefinition, InstanceRecord, InstanceRegistration, NamedCheck,
    NodeRecord, NodeRegistration, Registration, ServiceRecord, ServiceSettings, TransitionRecord,
    check_definition::Kind,
};
use konsul_state::{
    CheckId, CheckOwner, FLAP_WINDOW_MS, FLIPS, HOLD_MS, Ident, InstanceId, Label, Namespace, NodeId,
    OUTPUT_EVERY_MS, ServiceId,
};

/// Everything that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Now {
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    pub services: BTreeMap<ServiceId, ServiceRecord>,
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    pub checks: BTreeMap<CheckId, CheckRecord>,
    /// Create revisions.
    pub leases: BTreeMap<(Namespace, u64), u64>,
}

#[derive(Default)]
pub struct Model {
    pub now: Now,
    /// All there was at the revisions that can be read.
    pub past: BTreeMap<u64, Now>,
    pub revision: u64,
    pub compacted: u64,
    pub time_ms: u64,
    pub steady_ms: u64,
}

impl Now {
    pub fn worst(&self, owner: &CheckOwner, counts: impl Fn(&CheckRecord) -> bool) -> Health {
        let checks = self.checks.iter().filter(|(id, check)| id.owner == *owner && counts(check));
        checks.map(|(_, check)| check.status()).max().unwrap_or(Health::Passing)
    }

    pub fn definition(&self, id: &InstanceId) -> Option<&InstanceDefinition> {
        self.instances.get(id)?.definition.as_ref()
    }

    pub fn is_service_there(&self, id: &ServiceId) -> bool {
        self.instances.keys().any(|instance| instance.service_id() == *id)
    }

    pub fn on_node(&self, node: &NodeId) -> Vec<InstanceId> {
        let is_on = |id: &&InstanceId| {
            id.namespace == node.namespace
                && self.definition(id).is_some_and(|definition| definition.node == node.name.as_str())
        };
        self.instances.keys().filter(is_on).cloned().collect()
    }

    pub fn leased(&self, namespace: &Namespace, lease: u64) -> Vec<InstanceId> {
        let is_leased = |id: &&InstanceId| {
            id.namespace == *namespace
                && self.definition(id).is_some_and(|definition| definition.lease == lease)
        };
        self.instances.keys().filter(is_leased).cloned().collect()
    }
}

pub fn is_alias(check: &CheckRecord) -> bool {
    matches!(kind(check), Kind::Alias(_))
}

pub fn kind(check: &CheckRecord) -> &Kind {
    check.definition.as_ref().unwrap().kind.as_ref().unwrap()
}

pub fn zone(metadata: &[konsul_state::command::Item]) -> Option<String> {
    metadata.iter().find(|item| item.name == "zone").map(|item| item.value.clone())
}

/// The instance that an alias check follows.
pub fn followed(id: &CheckId, check: &CheckRecord) -> Option<InstanceId> {
    let Kind::Alias(key) = kind(check) else { return None };
    let namespace = id.owner.namespace().clone();
    let (service, id) = (Label::parse(&key.service).unwrap(), Ident::parse(&key.id).unwrap());
    Some(InstanceId { namespace, service, id })
}

impl Model {
    /// The revision that the Command takes, if it changes something.
    pub fn next(&self) -> u64 {
        self.revision + 1
    }

    /// Begins a Command of this time.
    pub fn begin(&mut self, time_ms: u64) -> Now {
        self.steady_ms += (time_ms - self.time_ms).min(1_000);
        self.time_ms = time_ms;
        self.now.clone()
    }

    /// Ends a Command before which this was there.
    pub fn end(&mut self, before: &Now) {
        if self.now != *before {
            self.revision += 1;
            self.past.insert(self.revision, self.now.clone());
        }
    }

    /// What an alias check says.
    pub fn says(&self, id: &CheckId, check: &CheckRecord) -> Option<Health> {
        let followed = self.now.instances.get(&followed(id, check)?);
        Some(followed.map_or(Health::Critical, InstanceRecord::own_health).min(Health::Critical))
    }

    /// Works out all that follows, one after the other.
    pub fn follow(&mut self) {
        let (revision, time_ms) = (self.next(), self.time_ms);
        let mut nodes = std::mem::take(&mut self.now.nodes);
        for (id, node) in &mut nodes {
            let worst = self.now.worst(&CheckOwner::Node(id.clone()), |_| true);
            let health = if node.maintenance.is_empty() { worst } else { Health::Maintenance };
            if node.health() != health {
                node.set_health(health);
                node.mod_revision = revision;
            }
        }
        self.now.nodes = nodes;
        for id in self.now.instances.keys().cloned().collect::<Vec<_>>() {
            let own = self.own_health(&id);
            let mut next = self.now.instances[&id].clone();
            let definition = next.definition.clone().unwrap();
            let name = Label::parse(&definition.node).ok();
            let node = name.map(|name| NodeId { namespace: id.namespace.clone(), name });
            let node = node.map(|node| self.now.nodes[&node].definition.clone().unwrap());
            next.address = match definition.address.is_empty() {
                true => node.clone().map(|node| node.address).unwrap_or_default(),
                false => definition.address.clone(),
            };
            let node_zone = node.and_then(|node| zone(&node.metadata));
            next.zone = zone(&definition.metadata).or(node_zone).unwrap_or_default();
            next.set_own_health(own);
            self.replace(id, next);
        }
        let follows: Vec<_> = self
            .now
            .checks
            .iter()
            .filter_map(|(id, check)| Some((id.clone(), self.says(id, check)?)))
            .collect();
        for (id, says) in follows {
            let check = self.now.checks.get_mut(&id).unwrap();
            if check.status() != says {
                check.set_observed(says);
                turn(check, says, time_ms, revision);
                check.mod_revision = revision;
            }
        }
        for id in self.now.instances.keys().cloned().collect::<Vec<_>>() {
            let mut next = self.now.instances[&id].clone();
            let aliases = self.now.worst(&CheckOwner::Instance(id.clone()), is_alias);
            let health = next.own_health().max(aliases);
            if next.health_since_ms == 0 || next.health() != health {
                next.health_since_ms = time_ms;
            }
            next.set_health(health);
            self.replace(id, next);
        }
    }

    pub fn own_health(&self, id: &InstanceId) -> Health {
        let record = &self.now.instances[id];
        if !record.maintenance.is_empty() {
            return Health::Maintenance;
        }
        let name = Label::parse(&record.definition.as_ref().unwrap().node).ok();
        let node = name.map(|name| NodeId { namespace: id.namespace.clone(), name });
        let node = node.map_or(Health::Passing, |node| self.now.nodes[&node].health());
        node.max(self.now.worst(&CheckOwner::Instance(id.clone()), |check| !is_alias(check)))
    }

    pub fn replace(&mut self, id: InstanceId, next: InstanceRecord) {
        let revision = self.next();
        let record = self.now.instances.get_mut(&id).unwrap();
        if *record != next {
            *record = InstanceRecord { mod_revision: revision, ..next };
        }
    }

    /// Why a registration is refused, if so; otherwise it is carried out.
    pub fn register(
        &mut self,
        namespace: &Namespace,
        registrations: &[Registration],
    ) -> Option<&'static str> {
        let mut nodes: BTreeSet<NodeId> = self.now.nodes.keys().cloned().collect();
        let node_id = |name: &str| NodeId { namespace: namespace.clone(), name: Label::parse(name).unwrap() };
        for Registration { node, instance } in registrations {
            nodes.extend(node.iter().map(|node| node_id(&node.name)));
            let Some(instance) = instance else { continue };
            let definition = instance.definition.as_ref().unwrap();
            if !definition.node.is_empty() && !nodes.contains(&node_id(&definition.node)) {
                return Some("node");
            }
            if definition.lease != 0 && !self.now.leases.contains_key(&(namespace.clone(), definition.lease))
            {
                return Some("lease");
            }
        }
        for Registration { node, instance } in registrations {
            if let Some(node) = node {
                self.register_node(node_id(&node.name), node);
            }
            if let Some(instance) = instance {
                self.register_instance(namespace, instance);
            }
        }
        None
    }

    pub fn register_node(&mut self, id: NodeId, node: &NodeRegistration) {
        if let Some(set) = &node.checks {
            self.set_checks(&CheckOwner::Node(id.clone()), set);
        }
        let revision = self.next();
        let record = self.now.nodes.entry(id).or_default();
        if record.create_revision == 0 || record.definition != node.definition {
            record.definition.clone_from(&node.definition);
            record.create_revision =
                if record.create_revision == 0 { revision } else { record.create_revision };
            record.mod_revision = revision;
        }
        self.follow();
    }

    pub fn register_instance(&mut self, namespace: &Namespace, instance: &InstanceRegistration) {
        let InstanceRegistration { service, id, definition, checks } = instance;
        let (service, id) = (Label::parse(service).unwrap(), Ident::parse(id).unwrap());
        let id = InstanceId { namespace: namespace.clone(), service, id };
        let revision = self.next();
        let none = ServiceRecord {
            settings: Some(ServiceSettings::default()),
            create_revision: revision,
            mod_revision: revision,
        };
        self.now.services.entry(id.service_id()).or_insert(none);
        self.set_checks(&CheckOwner::Instance(id.clone()), checks.as_ref().unwrap());
        let record = self.now.instances.entry(id).or_default();
        if record.create_revision == 0 || record.definition != *definition {
            record.definition.clone_from(definition);
            record.create_revision =
                if record.create_revision == 0 { revision } else { record.create_revision };
            record.mod_revision = revision;
        }
        self.follow();
    }

    pub fn set_checks(&mut self, owner: &CheckOwner, set: &CheckSet) {
        let ids: Vec<&str> = set.checks.iter().map(|check| check.id.as_str()).collect();
        self.now.checks.retain(|id, _| id.owner != *owner || ids.contains(&id.id.as_str()));
        let revision = self.next();
        for NamedCheck { id, definition } in &set.checks {
            let definition = definition.clone().unwrap();
            let id = CheckId { owner: owner.clone(), id: Ident::parse(id).unwrap() };
            let same = |old: &&mut CheckRecord| match (kind(old), definition.kind.as_ref().unwrap()) {
                (Kind::Alias(a), Kind::Alias(b)) => a == b,
                (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
            };
            if let Some(old) = self.now.checks.get_mut(&id).filter(same) {
                if old.definition.as_ref() != Some(&definition) {
                    old.definition = Some(definition);
                    old.mod_revision = revision;
                }
                continue;
            }
            let initial = definition.initial();
            let mut check = CheckRecord {
                definition: Some(definition),
                since_ms: self.time_ms,
                create_revision: revision,
                mod_revision: revision,
                ..CheckRecord::default()
            };
            let status = self.says(&id, &check).unwrap_or(initial);
            check.set_status(status);
            check.set_observed(status);
            self.now.checks.insert(id, check);
        }
    }

    pub fn deregister(&mut self, what: &CheckOwner) -> u64 {
        match what {
            CheckOwner::Instance(id) => u64::from(self.remove(id)),
            CheckOwner::Node(node) => {
                let on = self.now.on_node(node);
                on.iter().for_each(|id| assert!(self.remove(id)));
                self.now.checks.retain(|id, _| id.owner != *what);
                self.now.nodes.remove(node);
                on.len() as u64
            }
        }
    }

    pub fn remove(&mut self, id: &InstanceId) -> bool {
        if self.now.instances.remove(id).is_none() {
            return false;
        }
        self.now.checks.retain(|check, _| check.owner != CheckOwner::Instance(id.clone()));
        let service = id.service_id();
        let is_set = self.now.services[&service].settings != Some(ServiceSettings::default());
        if !is_set && !self.now.is_service_there(&service) {
            self.now.services.remove(&service);
        }
        self.follow();
        true
    }

    pub fn configure(&mut self, id: ServiceId, settings: ServiceSettings) {
        let revision = self.next();
        if settings == ServiceSettings::default() && !self.now.is_service_there(&id) {
            self.now.services.remove(&id);
            return;
        }
        let record = self.now.services.entry(id).or_default();
        if record.settings.as_ref() != Some(&settings) {
            record.settings = Some(settings);
            record.create_revision =
                if record.create_revision == 0 { revision } else { record.create_revision };
            record.mod_revision = revision;
        }
    }

    pub fn maintain(&mut self, what: &CheckOwner, reason: &str) -> Option<&'static str> {
        let revision = self.next();
        let (maintenance, mod_revision) = match what {
            CheckOwner::Instance(id) => match self.now.instances.get_mut(id) {
                None => return Some("instance"),
                Some(record) => (&mut record.maintenance, &mut record.mod_revision),
            },
            CheckOwner::Node(id) => match self.now.nodes.get_mut(id) {
                None => return Some("node"),
                Some(record) => (&mut record.maintenance, &mut record.mod_revision),
            },
        };
        if maintenance != reason {
            reason.clone_into(maintenance);
            *mod_revision = revision;
        }
        self.follow();
        None
    }

    pub fn report(
        &mut self,
        reports: &[(CheckId, Health, &str, u64)],
        by_hand: bool,
    ) -> Option<&'static str> {
        let refused = |(id, ..): &(CheckId, Health, &str, u64)| match self.now.checks.get(id) {
            None => Some("check"),
            Some(check) => (!matches!(kind(check), Kind::TtlMs(_))).then_some("kind"),
        };
        if let Some(why) = reports.iter().find_map(refused).filter(|_| by_hand) {
            return Some(why);
        }
        let revision = self.next();
        for (id, status, output, create_revision) in reports {
            let Some(check) = self.now.checks.get_mut(id).filter(|check| !is_alias(check)) else { continue };
            if [0, check.create_revision].contains(create_revision)
                && observe(check, *status, output, (self.time_ms, self.steady_ms), revision)
            {
                check.mod_revision = revision;
            }
            self.follow();
        }
        None
    }
}

/// A check gets another status.
pub fn turn(check: &mut CheckRecord, status: Health, time_ms: u64, revision: u64) {
    if check.status() == status {
        return;
    }
    check.set_status(status);
    check.since_ms = time_ms;
    let output = check.output.clone();
    check.transitions.push(TransitionRecord { time_ms, status: status.into(), output, revision });
    if check.transitions.len() > 10 {
        check.transitions.remove(0);
    }
}

/// A check has a result. Says whether it is another one by that.
pub fn observe(
    check: &mut CheckRecord,
    status: Health,
    output: &str,
    (time_ms, steady_ms): (u64, u64),
    revision: u64,
) -> bool {
    let is_held = check.held_until_steady_ms > steady_ms;
    let mut next = CheckRecord { output: output.to_owned(), output_ms: time_ms, ..check.clone() };
    let mut hold = None;
    if status == check.observed() {
        let is_over = check.held_until_steady_ms > 0 && !is_held;
        let is_new =
            check.output != output && (check.output_ms == 0 || time_ms - check.output_ms >= OUTPUT_EVERY_MS);
        if !is_over && !is_new {
            return false;
        }
        if is_held {
            hold = Some((check.held_until_ms, check.held_until_steady_ms));
        }
    } else {
        next.set_observed(status);
        next.flips_ms.push(time_ms);
        if next.flips_ms.len() > FLIPS {
            next.flips_ms.remove(0);
        }
        let is_flapping = next.flips_ms.len() == FLIPS && time_ms - next.flips_ms[0] <= FLAP_WINDOW_MS;
        if is_held || is_flapping {
            hold = Some((time_ms + HOLD_MS, steady_ms + HOLD_MS));
        }
    }
    (next.held_until_ms, next.held_until_steady_ms) = hold.unwrap_or_default();
    let worse = if hold.is_some() { status.max(check.status()) } else { status };
    turn(&mut next, worse, time_ms, revision);
    *check = next;
    true
}
