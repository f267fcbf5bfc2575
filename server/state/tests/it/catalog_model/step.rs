//! One step: a Command is drawn, and applied to the store and to the model.

use konsul_state::command::{
    CatalogConfigure, CatalogDeregister, CatalogMaintain, CatalogReap, CatalogRegister, CheckRecord,
    CheckReport, CheckSettle, Compact, Health, LeaseExpire, LeaseGrant, LeaseRevoke, ServiceSettings,
    TrimHistory, catalog_reap::Overdue, check_report::Report, check_settle::Held, command::Op,
    lease_expire::Due, outcome, refusal::Reason,
};
use konsul_state::{CheckId, CheckOwner, Namespace, Outcome};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::draw::{LEASES, namespace, some_check, some_owner, some_registrations, some_service};
use super::model::{Model, turn};
use crate::catalog::{LEADER, TERM};
use crate::fixture::{Fixture, refused};

/// Term and leader of the entries, or those of another leader.
pub fn mostly_the_leader(rng: &mut StdRng) -> (u64, u64) {
    *[(TERM, LEADER), (TERM, LEADER), (TERM, LEADER), (TERM + 1, LEADER), (TERM, LEADER + 1)]
        .choose(rng)
        .unwrap()
}

/// Applies a Command to both, and compares how it came out. Says whether it was refused.
pub fn step(rng: &mut StdRng, f: &mut Fixture, model: &mut Model) -> bool {
    f.time_ms += *[0, 0, 10, 300, 300, 999, 999, 1_500, 5_000, 20_000, 61_000].choose(rng).unwrap();
    let namespace = namespace(rng);
    let name = || namespace.as_str().to_owned();
    let is_deposed = |(term, leader): (u64, u64)| (term, leader) != (TERM, LEADER);
    let apply = |f: &mut Fixture, model: &mut Model, op: Op| {
        let command = f.command(op);
        let before = model.begin(f.time_ms);
        (f.apply(command), before)
    };
    let (outcome, why, before) = match rng.random_range(0..100) {
        0..35 => {
            let registrations = some_registrations(rng, model, &namespace);
            let op = CatalogRegister { namespace: name(), registrations: registrations.clone() };
            let (outcome, before) = apply(f, model, Op::CatalogRegister(op));
            (outcome, model.register(&namespace, &registrations), before)
        }
        35..41 => {
            let what = some_owner(rng, &namespace);
            let op = CatalogDeregister { namespace: name(), what: Some(what.to_owner()) };
            let (outcome, before) = apply(f, model, Op::CatalogDeregister(op));
            let count = model.deregister(&what);
            let Some(outcome::Result::Catalog(catalog)) = &outcome.result else { panic!("{outcome:?}") };
            assert_eq!(catalog.deregistered, count);
            (outcome, None, before)
        }
        41..66 => {
            let by_hand = rng.random_ratio(1, 5);
            let leads = rng.random_ratio(1, 5).then(|| mostly_the_leader(rng));
            let mut results = Vec::new();
            for _ in 0..rng.random_range(1..4) {
                let id = some_check(rng, model, &namespace);
                let status = *[Health::Passing, Health::Warning, Health::Critical].choose(rng).unwrap();
                let created = model.now.checks.get(&id).map_or(7, |check| check.create_revision);
                let created = *[0, created, created, created + 1].choose(rng).unwrap();
                results.push((id, status, *["", "fine", "slow"].choose(rng).unwrap(), created));
            }
            // Now and then one turns again and again.
            if rng.random_ratio(1, 4) {
                let (id, _, output, created) = results[0].clone();
                for turn in 0..rng.random_range(3..8) {
                    let status = [Health::Critical, Health::Passing][turn % 2];
                    results.push((id.clone(), status, output, created));
                }
            }
            let report = |(id, status, output, created): &(CheckId, Health, &str, u64)| Report {
                check: Some(id.to_name()),
                status: (*status).into(),
                output: (*output).into(),
                create_revision: *created,
            };
            let reports = results.iter().map(report).collect();
            let (term, leader) = leads.unwrap_or_default();
            let (outcome, before) =
                apply(f, model, Op::CheckReport(CheckReport { reports, term, leader, by_hand }));
            let why = match leads.is_some_and(is_deposed) {
                true => Some("deposed"),
                false => model.report(&results, by_hand),
            };
            (outcome, why, before)
        }
        66..71 => {
            let (term, leader) = mostly_the_leader(rng);
            let mut held: Vec<(CheckId, u64)> = Vec::new();
            for (id, check) in &model.now.checks {
                let until = check.held_until_steady_ms;
                if until > 0 || rng.random_ratio(1, 20) {
                    held.push((id.clone(), until + u64::from(rng.random_ratio(1, 5))));
                }
            }
            let named = |(id, until): &(CheckId, u64)| Held {
                check: Some(id.to_name()),
                held_until_steady_ms: *until,
            };
            let checks = held.iter().map(named).collect();
            let (outcome, before) = apply(f, model, Op::CheckSettle(CheckSettle { term, leader, checks }));
            if is_deposed((term, leader)) {
                (outcome, Some("deposed"), before)
            } else {
                let (revision, time_ms) = (model.next(), model.time_ms);
                for (id, until) in held {
                    let check = model.now.checks.get_mut(&id).unwrap();
                    if check.held_until_steady_ms > 0 && check.held_until_steady_ms == until {
                        (check.held_until_ms, check.held_until_steady_ms) = (0, 0);
                        let observed = check.observed();
                        turn(check, observed, time_ms, revision);
                        check.mod_revision = revision;
                        model.follow();
                    }
                }
                (outcome, None, before)
            }
        }
        71..75 => {
            let (term, leader) = mostly_the_leader(rng);
            let mut overdue = Vec::new();
            for _ in 0..rng.random_range(1..4) {
                let id = some_check(rng, model, &namespace);
                let (since, created) =
                    model.now.checks.get(&id).map_or((1, 1), |check| (check.since_ms, check.create_revision));
                overdue.push((
                    id,
                    since + u64::from(rng.random_ratio(1, 6)),
                    created + u64::from(rng.random_ratio(1, 6)),
                ));
            }
            let named = |(id, since_ms, create_revision): &(CheckId, u64, u64)| Overdue {
                check: Some(id.to_name()),
                since_ms: *since_ms,
                create_revision: *create_revision,
            };
            let instances = overdue.iter().map(named).collect();
            let (outcome, before) = apply(f, model, Op::CatalogReap(CatalogReap { term, leader, instances }));
            if is_deposed((term, leader)) {
                (outcome, Some("deposed"), before)
            } else {
                for (id, since_ms, create_revision) in overdue {
                    let is_overdue = |check: &CheckRecord| {
                        check.status() == Health::Critical
                            && check.definition.as_ref().unwrap().deregister_after_ms > 0
                            && (check.since_ms, check.create_revision) == (since_ms, create_revision)
                    };
                    if let CheckOwner::Instance(instance) = &id.owner
                        && model.now.checks.get(&id).is_some_and(is_overdue)
                    {
                        assert!(model.remove(instance));
                    }
                }
                (outcome, None, before)
            }
        }
        75..83 => {
            let (what, reason) = (some_owner(rng, &namespace), *["", "", "disk", "cpu"].choose(rng).unwrap());
            let op =
                CatalogMaintain { namespace: name(), what: Some(what.to_owner()), reason: reason.into() };
            let (outcome, before) = apply(f, model, Op::CatalogMaintain(op));
            (outcome, model.maintain(&what, reason), before)
        }
        83..87 => {
            let id = some_service(rng, &namespace);
            let settings =
                ServiceSettings { protect_threshold: rng.random_range(0..2), ..Default::default() };
            let service = id.name.as_str().to_owned();
            let op = CatalogConfigure { namespace: name(), service, settings: Some(settings.clone()) };
            let (outcome, before) = apply(f, model, Op::CatalogConfigure(op));
            model.configure(id, settings);
            (outcome, None, before)
        }
        87..92 => {
            let id = rng.random_range(LEASES);
            let op = LeaseGrant { namespace: name(), id, ttl_ms: 1_000, ..LeaseGrant::default() };
            let (outcome, before) = apply(f, model, Op::LeaseGrant(op));
            let (revision, key) = (model.next(), (namespace.clone(), id));
            match model.now.leases.contains_key(&key) {
                true => (outcome, Some("lease there"), before),
                false => {
                    model.now.leases.insert(key, revision);
                    (outcome, None, before)
                }
            }
        }
        92..94 => {
            let id = rng.random_range(LEASES);
            let (outcome, before) = apply(f, model, Op::LeaseRevoke(LeaseRevoke { namespace: name(), id }));
            match model.now.leases.contains_key(&(namespace.clone(), id)) {
                true => {
                    model.now.leased(&namespace, id).iter().for_each(|id| assert!(model.remove(id)));
                    model.now.leases.remove(&(namespace.clone(), id));
                    (outcome, None, before)
                }
                false => (outcome, Some("lease"), before),
            }
        }
        94..97 => {
            let (term, leader) = mostly_the_leader(rng);
            let all: Vec<_> = model.now.leases.clone().into_iter().filter(|_| rng.random_bool(0.4)).collect();
            let due: Vec<_> =
                all.into_iter().map(|(key, made)| (key, made + u64::from(rng.random_ratio(1, 4)))).collect();
            let named = |((namespace, id), made): &((Namespace, u64), u64)| Due {
                namespace: namespace.as_str().into(),
                id: *id,
                create_revision: *made,
            };
            let leases = due.iter().map(named).collect();
            let (outcome, before) = apply(f, model, Op::LeaseExpire(LeaseExpire { term, leader, leases }));
            if is_deposed((term, leader)) {
                (outcome, Some("deposed"), before)
            } else {
                for (key, made) in due {
                    if model.now.leases.get(&key) == Some(&made) {
                        model.now.leased(&key.0, key.1).iter().for_each(|id| assert!(model.remove(id)));
                        model.now.leases.remove(&key);
                    }
                }
                (outcome, None, before)
            }
        }
        97 => {
            model.compacted = rng.random_range(model.compacted..=model.revision);
            model.past = model.past.split_off(&model.compacted);
            let revision = model.compacted;
            let (outcome, before) = apply(f, model, Op::Compact(Compact { revision }));
            (outcome, None, before)
        }
        _ => {
            let max_rows = rng.random_range(1..200);
            let (outcome, before) = apply(f, model, Op::TrimHistory(TrimHistory { max_rows, max_bytes: 0 }));
            (outcome, None, before)
        }
    };
    assert_eq!(refusal(&outcome), why, "{outcome:?}");
    model.end(&before);
    assert_eq!(outcome.revision, model.revision);
    why.is_some()
}

pub fn refusal(outcome: &Outcome) -> Option<&'static str> {
    if !matches!(outcome.result, Some(outcome::Result::Refused(_))) {
        return None;
    }
    Some(match refused(outcome) {
        Reason::NodeNotFound(_) => "node",
        Reason::InstanceNotFound(_) => "instance",
        Reason::CheckNotFound(_) => "check",
        Reason::CheckNotTtl(_) => "kind",
        Reason::LeaseNotFound(_) => "lease",
        Reason::LeaseExists(_) => "lease there",
        Reason::Deposed(_) => "deposed",
        other => panic!("{other:?}"),
    })
}
