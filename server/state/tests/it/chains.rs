//! The past of one key that is written, deleted and made again a great many times, among others that are not, against a
//! list that has the key's value after each revision.

use konsul_state::command::{self, KeySpan, command::Op};
use konsul_state::store;
use konsul_state::view::{Direction, Item, ListQuery, VersionsQuery};
use konsul_state::{Command, Key, Payload, Revision, State, StateWriter};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{Fixture, copy, delete, kv_txn, ns, options, put};

const KEY: &str = "m";

/// What the store should say of the key.
struct Naive {
    /// The value after each revision; index 0 is the empty store.
    values: Vec<Option<String>>,
    /// The revisions that changed it.
    changed: Vec<u64>,
    compacted: u64,
}

impl Naive {
    fn current(&self) -> u64 {
        self.values.len() as u64 - 1
    }

    fn push(&mut self, value: Option<String>) {
        self.values.push(value);
        self.changed.push(self.current());
    }

    fn versions(&self, until: u64) -> Vec<(u64, Option<String>)> {
        let kept = self.changed.iter().filter(|r| **r > self.compacted && **r <= until);
        kept.map(|r| (*r, self.values[*r as usize].clone())).collect()
    }
}

/// A store whose key `m` has more than 1,500 versions; `between` sees it after each step.
fn written(
    rng: &mut StdRng,
    mut between: impl FnMut(&mut StdRng, &Fixture, &Naive),
) -> (Fixture, Naive, Vec<Command>) {
    let mut f = Fixture::new();
    let mut naive = Naive { values: vec![None], changed: Vec::new(), compacted: 0 };
    let mut log: Vec<Command> = Vec::new();
    for step in 0..2_400u64 {
        let op = match rng.random_range(0..100) {
            // A key on each side, one there and one gone now and then, so that the chain is neither first nor alone.
            0..10 => {
                naive.values.push(naive.values.last().unwrap().clone());
                kv_txn(vec![put("a", "x"), put("z", "x")])
            }
            10..15 => {
                naive.values.push(naive.values.last().unwrap().clone());
                kv_txn(vec![put("c", "x"), delete("z"), put("a", "y")])
            }
            15..30 if naive.values.last().unwrap().is_some() => {
                naive.push(None);
                kv_txn(vec![put("a", "z"), delete(KEY)])
            }
            30 => {
                // Compaction follows at a distance, and at times up to the last change.
                let distance = if rng.random_ratio(1, 10) { 0 } else { rng.random_range(300..900) };
                naive.compacted = naive.compacted.max(naive.current().saturating_sub(distance));
                Op::Compact(command::Compact { revision: naive.compacted })
            }
            31..33 => Op::TrimHistory(command::TrimHistory {
                max_rows: rng.random_range(1..200),
                max_bytes: rng.random_range(0..4) * 1_000,
            }),
            _ => {
                naive.push(Some(format!("v{step}")));
                kv_txn(vec![put(KEY, &format!("v{step}"))])
            }
        };
        let command = f.command(op);
        log.push(command.clone());
        assert_eq!(f.apply(command).revision, naive.current());
        between(rng, &f, &naive);
    }
    assert!(naive.changed.len() > 1_500);
    (f, naive, log)
}

fn check_at(f: &State, naive: &Naive, at: u64) {
    let view = f.view().unwrap();
    let want = &naive.values[at as usize];
    let text = |r: konsul_state::command::KvRecord| String::from_utf8(r.value.to_vec()).unwrap();
    let got = view.kv_get(&ns(), &Key::parse(KEY).unwrap(), Some(Revision(at))).unwrap().map(text);
    assert_eq!(&got, want, "at {at}");
    let mut orders = [Direction::Ascending, Direction::Descending].map(|direction| {
        let query = ListQuery {
            namespace: &ns(),
            span: &KeySpan::prefix(""),
            at: Some(Revision(at)),
            direction,
            after: None,
            separator: "",
            keys_only: false,
            limit: 100,
            max_bytes: usize::MAX,
            max_rows: usize::MAX,
        };
        view.kv_list(&query).unwrap().items
    });
    orders[1].reverse();
    assert_eq!(orders[0], orders[1], "at {at}");
    let listed = orders[0].iter().find_map(|item| match item {
        Item::Entry(key, record) if key == KEY => Some(text(record.clone())),
        _ => None,
    });
    assert_eq!(&listed, want, "at {at}");
    let count = view.kv_count(&ns(), &KeySpan::prefix(""), Some(Revision(at)), None, usize::MAX).unwrap();
    assert_eq!(count.keys, orders[0].len() as u64, "at {at}");
}

fn check_everywhere(state: &State, naive: &Naive) {
    for at in naive.compacted..=naive.current() {
        check_at(state, naive, at);
    }
}

/// Reads all versions in pages of random sizes.
fn check_versions(rng: &mut StdRng, state: &State, naive: &Naive, until: u64, direction: Direction) {
    let view = state.view().unwrap();
    let mut want = naive.versions(until);
    if direction == Direction::Descending {
        want.reverse();
    }
    let mut got = Vec::new();
    let mut after = None;
    loop {
        let query = VersionsQuery {
            namespace: &ns(),
            key: &Key::parse(KEY).unwrap(),
            until: Revision(until),
            direction,
            after,
            limit: rng.random_range(1..100),
            max_bytes: rng.random_range(1..400),
        };
        let page = view.kv_versions(&query).unwrap();
        assert!(page.versions.len() <= query.limit);
        // A version has some bytes, so a page that is bounded by them ends, and begins with the next one.
        assert!(page.versions.len() <= query.max_bytes.div_ceil(2));
        after = page.versions.last().map(|v| v.revision);
        got.extend(
            page.versions
                .into_iter()
                .map(|v| (v.revision.0, v.record.map(|r| String::from_utf8(r.value.to_vec()).unwrap()))),
        );
        assert_eq!(page.more, got.len() < want.len(), "{direction:?} until {until}");
        if !page.more {
            break;
        }
    }
    assert_eq!(got, want, "{direction:?} until {until}");
}

fn reopened(f: Fixture) -> (tempfile::TempDir, State, StateWriter) {
    let Fixture { dir, state, writer, .. } = f;
    writer.close().unwrap();
    drop(state);
    let (state, writer, _) = store::open(options(dir.path(), "boot")).unwrap();
    (dir, state, writer)
}

#[test]
fn a_long_chain_agrees_with_a_list_at_every_revision() {
    let mut rng = StdRng::seed_from_u64(7);
    let (f, naive, log) = written(&mut rng, |rng, f, naive| {
        check_at(&f.state, naive, rng.random_range(naive.compacted..=naive.current()));
        if rng.random_ratio(1, 40) {
            let until = rng.random_range(naive.compacted..=naive.current());
            check_versions(rng, &f.state, naive, until, Direction::Ascending);
            check_versions(rng, &f.state, naive, until, Direction::Descending);
        }
    });
    check_everywhere(&f.state, &naive);

    let dir = tempfile::tempdir().unwrap();
    let content = copy(&f.state, &dir.path().join("copy"));
    let mut other = Fixture::new();
    other.put(KEY, "of another store");
    other.writer.install(&dir.path().join("copy")).unwrap();
    check_everywhere(&other.state, &naive);

    let mut replayed = Fixture::new();
    for command in log {
        let entry = replayed.entry(Payload::Commands(command::CommandGroup { commands: vec![command] }));
        replayed.writer.apply(vec![entry]).unwrap();
    }
    assert_eq!(replayed.writer.hash().unwrap(), content.hash);

    let (_dir, state, writer) = reopened(f);
    assert_eq!(writer.hash().unwrap(), content.hash);
    check_everywhere(&state, &naive);
    for direction in [Direction::Ascending, Direction::Descending] {
        check_versions(&mut rng, &state, &naive, naive.current(), direction);
    }
}

#[test]
fn nothing_is_left_of_a_deleted_key_once_it_is_trimmed() {
    let mut f = Fixture::new();
    let empty = f.state.view().unwrap().used_bytes().unwrap();
    let keys = || (0..2_000).map(|n| format!("{n:0>200}"));
    for key in keys() {
        f.kv(vec![put(&key, "")]);
    }
    for key in keys() {
        f.kv(vec![delete(&key)]);
    }
    // Made again and deleted again, so that the first deletion is trimmed long before the row is forgotten.
    f.kv(keys().take(500).map(|key| put(&key, "")).collect());
    f.kv(keys().take(500).map(|key| delete(&key)).collect());
    let current = f.state.view().unwrap().revision().0;
    f.compact(current - 1);
    trim_all(&mut f);
    assert_eq!(f.get(&keys().next().unwrap(), Some(current - 1)).as_deref(), Some(""));
    assert_eq!(f.get(&keys().next().unwrap(), Some(current)), None);
    f.compact(current);
    trim_all(&mut f);
    let left = f.state.view().unwrap().used_bytes().unwrap();
    assert!(left <= empty + 4 * 4096, "{left} bytes of {empty}");
}

/// Trims all that is compacted.
fn trim_all(f: &mut Fixture) {
    loop {
        match f.trim(1_000).result {
            Some(command::outcome::Result::TrimHistory(trimmed)) if trimmed.more => {}
            _ => break,
        }
    }
}
