//! Random Commands against a map that is as simple as can be. After each Command the store and the map agree
//! on the present; now and then on a past revision, on versions and on what the Batches replay to; at the end
//! a second store fed the same log has the same hash. KONSUL_TEST_SEED replays a run.

use std::collections::BTreeMap;

use konsul_state::command::{
    KeySpan, KvCompare, KvPrecondition, KvTxn, command::Op, kv_compare, kv_operation, outcome,
};
use konsul_state::view::{Cursor, Direction, Item, ListQuery, VersionsQuery};
use konsul_state::{Change, Key, ReadError, Revision};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::fixture::{Fixture, delete, delete_range, ns, put};

const KEYS: [&str; 12] =
    ["a", "a/", "a/b", "a/b/c", "a/b/d", "a/c", "ab", "b", "b/\u{1}", "b/x", "c\u{10ffff}", "z"];

#[derive(Clone, Debug, PartialEq)]
struct Row {
    value: String,
    create: u64,
    modified: u64,
    version: u64,
}

type Map = BTreeMap<String, Row>;

#[derive(Default)]
struct Model {
    now: Map,
    /// The map after each revision; index 0 is the empty store.
    past: Vec<Map>,
    compacted: u64,
}

impl Model {
    fn revision(&self) -> u64 {
        self.past.len() as u64 - 1
    }

    fn apply(&mut self, txn: &KvTxn) -> bool {
        let holds = txn.compare.iter().all(|c| self.holds(c));
        let operations = if holds { &txn.then } else { &txn.otherwise };
        if !operations.iter().all(|o| self.allowed(o)) {
            return false;
        }
        let revision = self.revision() + 1;
        let mut changed = false;
        for operation in operations {
            match operation.op.as_ref().unwrap() {
                kv_operation::Op::Put(put) => {
                    let old = self.now.get(&put.key);
                    let row = Row {
                        value: String::from_utf8(put.value.to_vec()).unwrap(),
                        create: old.map_or(revision, |o| o.create),
                        modified: revision,
                        version: old.map_or(1, |o| o.version + 1),
                    };
                    self.now.insert(put.key.clone(), row);
                    changed = true;
                }
                kv_operation::Op::Delete(delete) => changed |= self.now.remove(&delete.key).is_some(),
                kv_operation::Op::DeleteRange(range) => {
                    let span = range.span.as_ref().unwrap();
                    let before = self.now.len();
                    self.now.retain(|key, _| !in_span(span, key));
                    changed |= self.now.len() != before;
                }
                other => panic!("{other:?}"),
            }
        }
        if changed {
            self.past.push(self.now.clone());
        }
        true
    }

    fn holds(&self, compare: &KvCompare) -> bool {
        let row = self.now.get(&compare.key);
        match compare.target.as_ref().unwrap() {
            kv_compare::Target::Exists(exists) => row.is_some() == *exists,
            kv_compare::Target::Version(version) => match compare.operator() {
                kv_compare::Operator::Greater => row.map_or(0, |r| r.version) > *version,
                kv_compare::Operator::Less => row.map_or(0, |r| r.version) < *version,
                kv_compare::Operator::Equal => row.map_or(0, |r| r.version) == *version,
                kv_compare::Operator::NotEqual => row.map_or(0, |r| r.version) != *version,
            },
            other => panic!("{other:?}"),
        }
    }

    fn allowed(&self, operation: &konsul_state::command::KvOperation) -> bool {
        let Some(kv_operation::Op::Put(put)) = &operation.op else { return true };
        let Some(wanted) = &put.precondition else { return true };
        wanted.mod_revision.is_none_or(|r| self.now.get(&put.key).map_or(0, |row| row.modified) == r)
    }
}

/// Written apart from the store's own way of doing it.
fn in_span(span: &KeySpan, key: &str) -> bool {
    key.as_bytes() >= span.start.as_bytes() && (span.end.is_empty() || key.as_bytes() < &span.end[..])
}

pub fn seed() -> u64 {
    let seed =
        std::env::var("KONSUL_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random);
    println!("KONSUL_TEST_SEED={seed}");
    seed
}

fn span(rng: &mut StdRng) -> KeySpan {
    match rng.random_range(0..4) {
        0 => KeySpan::prefix(""),
        1 => KeySpan::prefix(["a", "a/", "a/b/", "b", "nothing"].choose(rng).unwrap()),
        2 => KeySpan::range(KEYS.choose(rng).unwrap(), ""),
        _ => {
            let (a, b) = (KEYS.choose(rng).unwrap(), KEYS.choose(rng).unwrap());
            KeySpan::range(a.min(b), if a == b { "" } else { a.max(b) })
        }
    }
}

fn random_txn(rng: &mut StdRng, model: &Model) -> KvTxn {
    let mut txn = KvTxn { namespace: "default".into(), ..KvTxn::default() };
    for _ in 0..rng.random_range(0..3u32).saturating_sub(1) {
        let target = match rng.random() {
            true => kv_compare::Target::Exists(rng.random()),
            false => kv_compare::Target::Version(rng.random_range(0..4)),
        };
        let operator = match target {
            kv_compare::Target::Exists(_) => 0,
            _ => rng.random_range(0..4),
        };
        let key = (*KEYS.choose(rng).unwrap()).to_owned();
        txn.compare.push(KvCompare { key, operator, target: Some(target) });
    }
    txn.then = operations(rng, model);
    txn.otherwise = operations(rng, model);
    txn
}

fn operations(rng: &mut StdRng, model: &Model) -> Vec<konsul_state::command::KvOperation> {
    if rng.random_ratio(1, 12) {
        return vec![delete_range(span(rng))];
    }
    let count = rng.random_range(1..4);
    let keys: Vec<&str> = KEYS.choose_multiple(rng, count).copied().collect();
    keys.into_iter()
        .map(|key| {
            if rng.random_ratio(1, 3) {
                return delete(key);
            }
            let mut operation = put(key, &format!("v{}", rng.random_range(0..1000)));
            if let (Some(kv_operation::Op::Put(put)), true) = (&mut operation.op, rng.random_ratio(1, 5)) {
                let known = model.now.get(key).map_or(0, |row| row.modified);
                let wanted = if rng.random_ratio(1, 3) { known + 1 } else { known };
                put.precondition = Some(KvPrecondition { mod_revision: Some(wanted), ..Default::default() });
            }
            operation
        })
        .collect()
}

/// Lists in random pages and compares with the map.
fn check_list(rng: &mut StdRng, f: &Fixture, model: &Model, at: u64) {
    let span = span(rng);
    let direction = if rng.random() { Direction::Ascending } else { Direction::Descending };
    let separator = if rng.random() { "" } else { "/" };
    let mut got: Vec<(String, Option<Row>)> = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let view = f.state.view().unwrap();
        let page = view
            .kv_list(&ListQuery {
                namespace: &ns(),
                span: &span,
                at: Some(Revision(at)),
                direction,
                after: after.as_ref(),
                separator,
                keys_only: false,
                limit: rng.random_range(1..5),
                max_bytes: 1 << 20,
                max_rows: rng.random_range(1..10),
            })
            .unwrap();
        got.extend(page.items.into_iter().map(|item| match item {
            Item::Folder(folder) => (folder, None),
            Item::Entry(key, r) => {
                let value = String::from_utf8(r.value.to_vec()).unwrap();
                let row =
                    Row { value, create: r.create_revision, modified: r.mod_revision, version: r.version };
                (key, Some(row))
            }
        }));
        match page.next {
            None => break,
            next => after = next,
        }
    }
    let mut want: Vec<(String, Option<Row>)> = Vec::new();
    for (key, row) in &model.past[at as usize] {
        if !in_span(&span, key) {
            continue;
        }
        let folder =
            key.get(span.start.len()..).filter(|_| !separator.is_empty()).and_then(|rest| rest.find('/'));
        match folder {
            Some(at) => want.push((key[..span.start.len() + at + 1].to_owned(), None)),
            None => want.push((key.clone(), Some(row.clone()))),
        }
    }
    want.dedup();
    if direction == Direction::Descending {
        want.reverse();
    }
    assert_eq!(got, want, "{span:?} {direction:?} {separator:?} at {at}");
    let plain = model.past[at as usize].keys().filter(|key| in_span(&span, key)).count() as u64;
    let (mut counted, mut after) = (0, None);
    loop {
        let view = f.state.view().unwrap();
        let part = view.kv_count(&ns(), &span, Some(Revision(at)), after.as_ref(), 3).unwrap();
        counted += part.keys;
        match part.next {
            None => break,
            next => after = next,
        }
    }
    assert_eq!(counted, plain);
}

fn check_versions(rng: &mut StdRng, f: &Fixture, model: &Model) {
    let key = KEYS.choose(rng).unwrap();
    let view = f.state.view().unwrap();
    let query = VersionsQuery {
        namespace: &ns(),
        key: &Key::parse(key).unwrap(),
        until: view.revision(),
        direction: Direction::Ascending,
        after: None,
        limit: usize::MAX,
        max_bytes: usize::MAX,
    };
    let got: Vec<_> = view.kv_versions(&query).unwrap().versions;
    let mut want = Vec::new();
    for revision in model.compacted + 1..=model.revision() {
        let (before, after) = (&model.past[revision as usize - 1], &model.past[revision as usize]);
        if before.get(*key) != after.get(*key) {
            want.push((revision, after.get(*key).map(|row| row.value.clone())));
        }
    }
    let got: Vec<_> = got
        .into_iter()
        .map(|v| (v.revision.0, v.record.map(|r| String::from_utf8(r.value.to_vec()).unwrap())))
        .collect();
    assert_eq!(got, want, "{key}");
}

/// The Batches that can still be read lead from the oldest readable state to the present.
fn check_replay(f: &Fixture, model: &Model) {
    let view = f.state.view().unwrap();
    let mut map: BTreeMap<String, String> =
        model.past[model.compacted as usize].iter().map(|(k, r)| (k.clone(), r.value.clone())).collect();
    let mut from = Revision(model.compacted + 1);
    loop {
        let batches = view.batches(from, 200).unwrap();
        let Some(last) = batches.last() else { break };
        for batch in &batches {
            assert_eq!(batch.revision, from);
            from = from.next();
            for change in batch.changes.iter().filter_map(Change::kv) {
                let key = change.key.as_str();
                let value =
                    |r: &konsul_state::command::KvRecord| String::from_utf8(r.value.to_vec()).unwrap();
                assert_eq!(map.get(key), change.before.as_ref().map(value).as_ref());
                match &change.after {
                    Some(record) => map.insert(key.to_owned(), value(record)),
                    None => map.remove(key),
                };
            }
        }
        assert_eq!(last.revision.next(), from);
    }
    assert_eq!(from.0, model.revision() + 1);
    assert_eq!(map, model.now.iter().map(|(k, r)| (k.clone(), r.value.clone())).collect());
    assert!(matches!(view.batches(Revision(model.compacted), 1), Err(ReadError::Compacted { .. })));
}

#[test]
fn random_commands_agree_with_the_model() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut f = Fixture::new();
    let mut model = Model { past: vec![Map::new()], ..Model::default() };
    let mut log = Vec::new();
    for step in 0..1_500 {
        let command = match rng.random_range(0..40) {
            0 => {
                model.compacted = rng.random_range(model.compacted..=model.revision());
                f.command(Op::Compact(konsul_state::command::Compact { revision: model.compacted }))
            }
            1 => f.command(Op::TrimHistory(konsul_state::command::TrimHistory {
                max_rows: rng.random_range(1..50),
                max_bytes: rng.random_range(0..4) * 1_000,
            })),
            _ => {
                let txn = random_txn(&mut rng, &model);
                f.command(Op::Kv(txn))
            }
        };
        log.push(command.clone());
        let expected = match &command.op {
            Some(Op::Kv(txn)) => model.apply(txn),
            _ => true,
        };
        let outcome = f.apply(command);
        assert_eq!(!matches!(outcome.result, Some(outcome::Result::Refused(_))), expected, "step {step}");
        assert_eq!(outcome.revision, model.revision(), "step {step}");
        let (now, past) = (model.revision(), rng.random_range(model.compacted..=model.revision()));
        check_list(&mut rng, &f, &model, now);
        check_list(&mut rng, &f, &model, past);
        if step % 50 == 0 {
            check_versions(&mut rng, &f, &model);
            check_replay(&f, &model);
        }
    }
    let mut other = Fixture::new();
    let mut commands = log.into_iter();
    // The same log in runs of other sizes makes the same state.
    loop {
        let size = rng.random_range(1..20);
        let entries: Vec<_> = commands
            .by_ref()
            .take(size)
            .map(|c| {
                other.entry(konsul_state::Payload::Commands(konsul_state::CommandGroup { commands: vec![c] }))
            })
            .collect();
        if entries.is_empty() {
            break;
        }
        other.writer.apply(entries).unwrap();
    }
    assert_eq!(other.writer.hash().unwrap(), f.writer.hash().unwrap());
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
    assert_ne!(Fixture::new().writer.hash().unwrap(), f.writer.hash().unwrap());
}
