//! Random Commands on leases, locks and the keys bound to leases, against a model that is as simple as can be: a list of claims
//! for each lock, in the order they were made. KONSUL_TEST_SEED replays a run.

use std::collections::{BTreeMap, BTreeSet};

use konsul_state::command::{
    Fence, KvOperation, KvPrecondition, KvPut, LeaseExpire, LeaseGrant, LeaseRevoke, LockAcquire, LockCancel,
    LockKind, LockName, LockOutcome, LockRelease, LockResume, LockSetValue, MAX_CLAIM_BYTES, MAX_CLAIMS,
    command::Op, kv_operation, kv_result, lease_expire::Due, outcome, refusal::Reason,
};
use konsul_state::{Command, Key, LeaseId, LockId, Outcome};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::fixture::{Fixture, delete, kv_txn, ns, put, refused};
use crate::model::seed;

const TERM: u64 = 1;
const LEADER: u64 = 1;
const NAMES: [&str; 3] = ["a", "a/b", "z"];
const KEYS: [&str; 5] = ["a", "a/b", "b", "c", "zz"];

#[derive(Clone, Debug, PartialEq)]
struct Claim {
    lease: u64,
    token: u64,
    shared: bool,
    granted: bool,
    delay_ms: u64,
    attempt: u64,
    /// Revision of the grant, or since when it waits.
    since: u64,
    value: u8,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    limit: u32,
    claims: Vec<Claim>,
    held_back: u64,
}

#[derive(Default)]
pub struct Model {
    /// Create revision, and whether a key has it to itself.
    leases: BTreeMap<u64, (u64, bool)>,
    keys: BTreeMap<String, u64>,
    lines: BTreeMap<String, Line>,
}

impl Model {
    fn end(&mut self, lease: u64, expired: bool, revision: u64) {
        self.leases.remove(&lease);
        self.keys.retain(|_, bound| *bound != lease);
        for name in NAMES {
            self.give_up(name, |claim| claim.lease == lease, expired, revision);
        }
    }

    fn give_up(&mut self, name: &str, whose: impl Fn(&Claim) -> bool, expired: bool, revision: u64) {
        let Some(line) = self.lines.get_mut(name) else { return };
        let Some(at) = line.claims.iter().position(whose) else { return };
        let gone = line.claims.remove(at);
        // Of what the same Command granted nobody was told.
        if gone.granted && gone.since != revision && expired && gone.delay_ms > 0 {
            line.held_back = revision;
        }
        self.settle(name, revision);
    }

    fn settle(&mut self, name: &str, revision: u64) {
        let Some(line) = self.lines.get_mut(name) else { return };
        for at in 0..line.claims.len() {
            if line.claims[at].granted {
                continue;
            }
            if !line.fits(line.claims[at].shared) {
                break;
            }
            (line.claims[at].granted, line.claims[at].since) = (true, revision);
        }
        if line.claims.is_empty() && line.held_back == 0 {
            self.lines.remove(name);
        }
    }

    /// A key has got another lease, or none.
    fn rebind(&mut self, key: &str, lease: u64) {
        if let Some(old) = self.keys.insert(key.to_owned(), lease)
            && old != lease
            && self.leases.get(&old).is_some_and(|(_, own)| *own)
        {
            self.leases.remove(&old);
        }
    }
}

impl Line {
    fn fits(&self, shared: bool) -> bool {
        let mut holders = self.claims.iter().filter(|claim| claim.granted);
        self.held_back == 0
            && match shared {
                true => holders.all(|holder| holder.shared),
                false => {
                    holders.clone().all(|holder| !holder.shared) && holders.count() < self.limit as usize
                }
            }
    }
}

fn lock(name: &str) -> LockId {
    LockId { namespace: ns(), kind: LockKind::Lock, name: Key::parse(name).unwrap() }
}

fn name(name: &str) -> Option<LockName> {
    Some(lock(name).to_name())
}

fn run(f: &mut Fixture, op: Op, random: u64) -> Outcome {
    let command = f.command(op);
    f.apply(Command { random, ..command })
}

/// Term and leader of the entries, or those of another leader.
fn mostly_the_leader(rng: &mut StdRng) -> (u64, u64) {
    match rng.random_range(0..10) {
        0 => (TERM + 1, LEADER),
        1 => (TERM, LEADER + 1),
        _ => (TERM, LEADER),
    }
}

fn locked(outcome: &Outcome) -> LockOutcome {
    match &outcome.result {
        Some(outcome::Result::Lock(lock)) => *lock,
        other => panic!("{other:?}"),
    }
}

fn acquire(lock: &str, lease: u64) -> LockAcquire {
    let lock = name(lock);
    LockAcquire { lock, lease, limit: 1, wait: true, ..LockAcquire::default() }
}

fn grant(f: &mut Fixture, id: u64) {
    let grant = LeaseGrant { namespace: "default".into(), id, ttl_ms: 1_000, ..LeaseGrant::default() };
    run(f, Op::LeaseGrant(grant), 0);
}

fn due(f: &Fixture, id: u64) -> Due {
    let record = f.state.view().unwrap().lease(&ns(), LeaseId(id)).unwrap().unwrap();
    Due { namespace: "default".into(), id, create_revision: record.create_revision }
}

#[test]
fn random_commands_do_as_the_model() {
    let mut rng = StdRng::seed_from_u64(seed());
    let (mut f, mut model) = (Fixture::new(), Model::default());
    let (mut grants, mut handovers) = (0, 0);
    for _ in 0..3_000 {
        let before = model.lines.clone();
        step(&mut rng, &mut f, &mut model);
        compare(&f, &model);
        for (name, line) in &model.lines {
            let held = |line: &Line| -> BTreeSet<u64> {
                line.claims.iter().filter(|c| c.granted).map(|c| c.token).collect()
            };
            let old = before.get(name).map(held).unwrap_or_default();
            let new: Vec<u64> = held(line).difference(&old).copied().collect();
            // Tokens only grow.
            assert!(new.iter().all(|token| old.iter().all(|old| token > old)), "{name}");
            grants += new.len();
            handovers += usize::from(!new.is_empty() && !old.is_empty());
        }
    }
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
    assert!(grants > 100 && handovers > 10, "{grants} grants, {handovers} hand-overs");
}

/// Random Commands, and what the state must be after each.
pub fn run_random(rng: &mut StdRng, f: &mut Fixture, model: &mut Model, steps: usize) {
    for _ in 0..steps {
        step(rng, f, model);
    }
    compare(f, model);
}

fn step(rng: &mut StdRng, f: &mut Fixture, model: &mut Model) {
    let revision = f.state.view().unwrap().revision().0 + 1;
    let random = rng.random();
    let lease: u64 = rng.random_range(1..8);
    let lock_name = *NAMES.choose(rng).unwrap();
    let key = *KEYS.choose(rng).unwrap();
    match rng.random_range(0..23) {
        0..4 => {
            let op =
                LeaseGrant { namespace: "default".into(), id: lease, ttl_ms: 1_000, holder: String::new() };
            let outcome = run(f, Op::LeaseGrant(op), random);
            match model.leases.contains_key(&lease) {
                true => assert!(matches!(refused(&outcome), Reason::LeaseExists(_))),
                false => drop(model.leases.insert(lease, (revision, false))),
            }
        }
        4 => {
            let outcome =
                run(f, Op::LeaseRevoke(LeaseRevoke { namespace: "default".into(), id: lease }), random);
            match model.leases.contains_key(&lease) {
                true => model.end(lease, false, revision),
                false => assert!(matches!(refused(&outcome), Reason::LeaseNotFound(_))),
            }
        }
        5 => {
            let (term, leader) = mostly_the_leader(rng);
            let ids: Vec<u64> = model.leases.keys().copied().filter(|_| rng.random_bool(0.3)).collect();
            let mut leases: Vec<Due> = ids.iter().map(|id| due(f, *id)).collect();
            // One of these is another lease by now.
            let stale = (rng.random_bool(0.3) && !leases.is_empty()).then(|| {
                leases[0].create_revision -= 1;
                ids[0]
            });
            let outcome = run(f, Op::LeaseExpire(LeaseExpire { term, leader, leases }), random);
            if (term, leader) == (TERM, LEADER) {
                for id in ids.into_iter().filter(|id| Some(*id) != stale) {
                    model.end(id, true, revision);
                }
            } else {
                assert!(matches!(refused(&outcome), Reason::Deposed(_)));
            }
        }
        6..9 => {
            let own = rng.random_bool(0.3);
            let put = KvPut {
                key: key.into(),
                value: vec![b'x'; rng.random_range(0..100)].into(),
                lease: if own || rng.random_bool(0.3) { 0 } else { lease },
                ttl_ms: if own { 5_000 } else { 0 },
                ..KvPut::default()
            };
            let bound = put.lease;
            let op = KvOperation { op: Some(kv_operation::Op::Put(put)) };
            let outcome = run(f, kv_txn(vec![op]), random);
            if bound != 0 && model.leases.get(&bound).is_none_or(|(_, own)| *own) {
                assert!(matches!(refused(&outcome), Reason::LeaseNotFound(_)));
            } else if own {
                let view = f.state.view().unwrap();
                let id = view.kv_get(&ns(), &Key::parse(key).unwrap(), None).unwrap().unwrap().lease;
                assert!(id > 8 && id <= LeaseId::MAX, "{id}");
                model.leases.insert(id, (revision, true));
                model.rebind(key, id);
            } else {
                model.rebind(key, bound);
            }
        }
        9 => {
            f.kv(vec![delete(key)]);
            model.rebind(key, 0);
            model.keys.remove(key);
        }
        10..15 => {
            let (shared, wait) = (rng.random_bool(0.3), rng.random_bool(0.8));
            let limit = if lock_name == "z" { 2 } else { 1 };
            let delay_ms = if rng.random_bool(0.3) { 1_000 } else { 0 };
            let value = rng.random();
            let op = LockAcquire {
                shared,
                limit,
                delay_ms,
                wait,
                value: vec![value].into(),
                ..acquire(lock_name, lease)
            };
            let outcome = run(f, Op::LockAcquire(op), random);
            if model.leases.get(&lease).is_none_or(|(_, own)| *own) {
                assert!(matches!(refused(&outcome), Reason::LeaseNotFound(_)));
                return;
            }
            let line = model.lines.entry(lock_name.to_owned()).or_insert(Line { limit, ..Line::default() });
            if let Some(claim) = line.claims.iter_mut().find(|claim| claim.lease == lease) {
                if claim.shared != shared {
                    assert!(matches!(refused(&outcome), Reason::LockModeDiffers(_)));
                } else if !claim.granted && !wait {
                    // It goes on waiting for whoever waits for it.
                    let tried = LockOutcome { token: 0, granted: false, attempt: random };
                    assert_eq!(locked(&outcome), tried);
                } else {
                    claim.attempt = if claim.granted { 0 } else { random };
                    let LockOutcome { token, granted, attempt } = locked(&outcome);
                    assert_eq!((token, granted, attempt), (claim.token, claim.granted, claim.attempt));
                }
                return;
            }
            let granted = line.claims.iter().all(|claim| claim.granted) && line.fits(shared);
            if granted || wait {
                assert_eq!(locked(&outcome), LockOutcome { token: revision, granted, attempt: random });
                line.claims.push(Claim {
                    lease,
                    token: revision,
                    shared,
                    granted,
                    delay_ms,
                    attempt: random,
                    since: revision,
                    value,
                });
            } else {
                assert_eq!(locked(&outcome), LockOutcome { token: 0, granted: false, attempt: random });
            }
            model.settle(lock_name, revision);
        }
        15..18 => {
            let found = model.lines.get(lock_name).and_then(|line| line.claims.choose(rng)).cloned();
            let (lease, token, attempt) =
                found.as_ref().map_or((lease, 0, 0), |claim| (claim.lease, claim.token, claim.attempt));
            let lock = name(lock_name);
            if rng.random_bool(0.7) {
                let token = if rng.random_bool(0.5) { 0 } else { token };
                run(f, Op::LockRelease(LockRelease { lock, lease, token }), random);
                model.give_up(lock_name, |claim| claim.lease == lease, false, revision);
            } else {
                let attempt = if rng.random_bool(0.5) { attempt } else { attempt ^ 1 };
                run(f, Op::LockCancel(LockCancel { lock, lease, attempt }), random);
                let whose = |c: &Claim| c.lease == lease && c.attempt == attempt && attempt != 0;
                model.give_up(lock_name, whose, false, revision);
            }
        }
        18 => {
            let since = model.lines.get(lock_name).map_or(0, |line| line.held_back);
            let (term, leader) = mostly_the_leader(rng);
            let since = if rng.random_bool(0.8) { since } else { since + 1 };
            let op = LockResume { term, leader, lock: name(lock_name), held_back_since: since };
            run(f, Op::LockResume(op), random);
            if let Some(line) = model.lines.get_mut(lock_name)
                && line.held_back == since
                && (term, leader) == (TERM, LEADER)
            {
                line.held_back = 0;
                model.settle(lock_name, revision);
            }
        }
        20.. => exchange(rng, f, model, random),
        _ => {
            let found = model.lines.get_mut(lock_name).and_then(|line| line.claims.iter_mut().next());
            let Some(claim) = found else { return };
            let value = rng.random();
            let op = LockSetValue {
                lock: name(lock_name),
                lease: claim.lease,
                token: claim.token,
                value: vec![value].into(),
            };
            let outcome = run(f, Op::LockSetValue(op), random);
            if claim.granted {
                claim.value = value;
            } else {
                assert!(matches!(refused(&outcome), Reason::LockNotHeld(_)));
            }
        }
    }
}

/// One Command that gives one lock up, takes another and writes a key; all or nothing.
fn exchange(rng: &mut StdRng, f: &mut Fixture, model: &mut Model, random: u64) {
    let revision = f.state.view().unwrap().revision().0 + 1;
    let names: Vec<&str> = NAMES.choose_multiple(rng, 2).copied().collect();
    let [from, to] = names[..] else { unreachable!() };
    let holder = model.lines.get(from).and_then(|line| line.claims.choose(rng)).map(|claim| claim.lease);
    let (holder, taker) = (holder.unwrap_or(1), rng.random_range(1..8));
    let (shared, limit, value) = (rng.random_bool(0.3), if to == "z" { 2 } else { 1 }, rng.random());
    let unlock = LockRelease { lock: name(from), lease: holder, token: 0 };
    let lock = LockAcquire { shared, limit, wait: false, value: vec![value].into(), ..acquire(to, taker) };
    let key = *KEYS.choose(rng).unwrap();
    let mut operations = vec![
        KvOperation { op: Some(kv_operation::Op::Unlock(unlock)) },
        KvOperation { op: Some(kv_operation::Op::Lock(lock)) },
        put(key, "x"),
    ];
    let (unlock_at, lock_at) = if rng.random() { (0, 1) } else { (1, 0) };
    operations.swap(0, unlock_at);
    let outcome = run(f, kv_txn(operations), random);
    let has = |name: &str, lease: u64| {
        let line = model.lines.get(name)?;
        line.claims.iter().find(|claim| claim.lease == lease).cloned()
    };
    let refusal = |at: usize| match at == unlock_at {
        true => has(from, holder).is_none().then_some("not held"),
        false => match has(to, taker) {
            Some(claim) if claim.shared != shared => Some("mode"),
            Some(claim) => (!claim.granted).then_some("taken"),
            None if model.leases.get(&taker).is_none_or(|(_, own)| *own) => Some("lease"),
            None => {
                let empty = Line { limit, ..Line::default() };
                let line = model.lines.get(to).unwrap_or(&empty);
                let is_free = line.claims.iter().all(|claim| claim.granted) && line.fits(shared);
                (!is_free).then_some("taken")
            }
        },
    };
    if let Some(why) = refusal(0).or(refusal(1)) {
        let found = match refused(&outcome) {
            Reason::LockNotHeld(_) => "not held",
            Reason::LockModeDiffers(_) => "mode",
            Reason::LockTaken(_) => "taken",
            Reason::LeaseNotFound(_) => "lease",
            other => panic!("{other:?}"),
        };
        return assert_eq!(found, why);
    }
    let Some(outcome::Result::Kv(done)) = &outcome.result else { panic!("{outcome:?}") };
    let Some(kv_result::Result::Lock(taken)) = done.results[lock_at].result else { panic!("{done:?}") };
    let held = has(to, taker);
    assert_eq!((taken.granted, taken.token), (true, held.as_ref().map_or(revision, |claim| claim.token)));
    model.give_up(from, |claim| claim.lease == holder, false, revision);
    let line = model.lines.entry(to.to_owned()).or_insert(Line { limit, ..Line::default() });
    match line.claims.iter_mut().find(|claim| claim.lease == taker) {
        Some(claim) => claim.attempt = 0,
        None => line.claims.push(Claim {
            lease: taker,
            token: revision,
            shared,
            granted: true,
            delay_ms: 0,
            attempt: 0,
            since: revision,
            value,
        }),
    }
    model.rebind(key, 0);
}

fn compare(f: &Fixture, model: &Model) {
    let view = f.state.view().unwrap();
    let leases = view.leases(Some(&ns()), None, 100).unwrap();
    let found: BTreeMap<u64, (u64, bool)> =
        leases.iter().map(|l| (l.id.0, (l.record.create_revision, l.record.implicit))).collect();
    assert_eq!(found, model.leases);
    let mut keys: BTreeMap<String, u64> = BTreeMap::new();
    for key in KEYS {
        if let Some(record) = view.kv_get(&ns(), &Key::parse(key).unwrap(), None).unwrap() {
            keys.insert(key.to_owned(), record.lease);
        }
    }
    assert_eq!(keys, model.keys);
    for id in model.leases.keys().copied() {
        let bound: Vec<String> =
            model.keys.iter().filter(|(_, lease)| **lease == id).map(|(key, _)| key.clone()).collect();
        assert_eq!(view.lease_keys(&ns(), LeaseId(id), 100).unwrap(), bound);
        let claims = model.lines.values().flat_map(|line| &line.claims).filter(|c| c.lease == id).count();
        let load = view.lease_load(&ns(), LeaseId(id)).unwrap();
        assert_eq!(load.count as usize, bound.len() + claims);
    }
    let locks = view.locks(Some((&ns(), LockKind::Lock)), None, 100).unwrap();
    let names: Vec<&str> = locks.iter().map(|held| held.lock.name.as_str()).collect();
    assert_eq!(names, model.lines.keys().collect::<Vec<_>>());
    for held in locks {
        let line = &model.lines[held.lock.name.as_str()];
        let claims = view.claims(&held.lock, 0, 100).unwrap().into_iter();
        let found: Vec<Claim> = claims
            .map(|(token, c)| {
                let (lease, shared, granted, delay_ms) = (c.lease, c.shared, c.granted, c.delay_ms);
                let (attempt, since, value) = (c.attempt, c.since_revision, c.value[0]);
                Claim { lease, token, shared, granted, delay_ms, attempt, since, value }
            })
            .collect();
        assert_eq!(found, line.claims);
        let count = |of: &dyn Fn(&Claim) -> bool| found.iter().filter(|claim| of(claim)).count() as u64;
        let record = held.record;
        assert_eq!(record.shared, count(&|c| c.granted && c.shared));
        assert_eq!(record.exclusive, count(&|c| c.granted && !c.shared));
        assert_eq!(record.waiting, count(&|c| !c.granted));
        assert_eq!(record.held_back_since, line.held_back);
    }
}

#[test]
fn a_write_is_fenced_by_the_lock() {
    let mut f = Fixture::new();
    grant(&mut f, 1);
    grant(&mut f, 2);
    let first = locked(&run(&mut f, Op::LockAcquire(acquire("a", 1)), 1)).token;
    let second = locked(&run(&mut f, Op::LockAcquire(acquire("a", 2)), 2)).token;
    let write = |f: &mut Fixture, token: u64| {
        let fence = Some(Fence { kind: LockKind::Lock.into(), name: "a".into(), token });
        let precondition = Some(KvPrecondition { fence, ..KvPrecondition::default() });
        let put = KvPut { key: "k".into(), precondition, ..KvPut::default() };
        run(f, kv_txn(vec![KvOperation { op: Some(kv_operation::Op::Put(put)) }]), 0)
    };
    assert!(matches!(write(&mut f, first).result, Some(outcome::Result::Kv(_))));
    assert!(matches!(refused(&write(&mut f, second)), Reason::LockNotHeld(_)), "it waits");
    let leases = vec![due(&f, 1)];
    run(&mut f, Op::LeaseExpire(LeaseExpire { term: TERM, leader: LEADER, leases }), 0);
    assert!(matches!(refused(&write(&mut f, first)), Reason::LockNotHeld(_)), "it was lost");
    assert!(matches!(write(&mut f, second).result, Some(outcome::Result::Kv(_))));
    run(&mut f, Op::LockRelease(LockRelease { lock: name("a"), lease: 2, token: second }), 0);
    for token in [first, second, 0] {
        assert!(matches!(refused(&write(&mut f, token)), Reason::LockNotHeld(_)), "nobody holds it");
    }
}

#[test]
fn a_lock_has_a_limit_of_claims_and_a_lease_of_keys() {
    let mut f = Fixture::new();
    for id in 1..=MAX_CLAIMS + 1 {
        grant(&mut f, id);
        let outcome = run(&mut f, Op::LockAcquire(acquire("a", id)), id);
        match id <= MAX_CLAIMS {
            true => assert_eq!(locked(&outcome).granted, id == 1),
            false => assert!(matches!(refused(&outcome), Reason::LockFull(_))),
        }
    }
    // What the claims on a lock say of themselves is bounded too, and leaves with them.
    let says = |id: u64| LockAcquire { value: vec![0; 4_096].into(), ..acquire("b", id) };
    let fit = MAX_CLAIM_BYTES / 4_096;
    for id in 1..=fit + 1 {
        let outcome = run(&mut f, Op::LockAcquire(says(id)), id);
        match id <= fit {
            true => assert_eq!(locked(&outcome).granted, id == 1),
            false => assert!(matches!(refused(&outcome), Reason::LockFull(_))),
        }
    }
    run(&mut f, Op::LockRelease(LockRelease { lock: name("b"), lease: 7, token: 0 }), 0);
    assert_ne!(locked(&run(&mut f, Op::LockAcquire(says(fit + 1)), 0)).token, 0);
    let differs = LockAcquire { limit: 3, ..acquire("a", MAX_CLAIMS + 1) };
    let outcome = run(&mut f, Op::LockAcquire(differs), 0);
    assert!(matches!(refused(&outcome), Reason::LockLimitDiffers(found) if found.limit == 1));
    // The bytes of a lease's keys are bounded.
    let mut puts = 0;
    loop {
        let put =
            KvPut { key: format!("k{puts}"), value: vec![0; 8 << 20].into(), lease: 1, ..KvPut::default() };
        let outcome = run(&mut f, kv_txn(vec![KvOperation { op: Some(kv_operation::Op::Put(put)) }]), 0);
        let Some(outcome::Result::Kv(_)) = outcome.result else {
            assert!(matches!(refused(&outcome), Reason::LeaseFull(_)));
            break;
        };
        puts += 1;
    }
    assert_eq!(puts, 8);
    // All of it ends at once, and the next in line has the lock.
    run(&mut f, Op::LeaseRevoke(LeaseRevoke { namespace: "default".into(), id: 1 }), 0);
    assert_eq!(f.get("k0", None), None);
    let claims = f.state.view().unwrap().claims(&lock("a"), 0, 2).unwrap();
    assert_eq!(
        claims.iter().map(|(_, claim)| (claim.lease, claim.granted)).collect::<Vec<_>>(),
        [(2, true), (3, false)]
    );
}
