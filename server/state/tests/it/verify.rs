//! Planted damage: each kind is found and told by its table, and a state that was only used has none.

use std::path::Path;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn};
use konsul_state::command::{
    KvOperation, KvPut, LeaseGrant, LockAcquire, LockKind, LockName, command::Op, kv_operation,
};
use konsul_state::{Command, store};

use crate::fixture::{Fixture, delete, kv_txn, options};

type Db<'e> = Database<'e, Raw, Raw>;

/// A state with something in every table.
fn filled() -> Fixture {
    let mut f = Fixture::new();
    for id in [1, 2] {
        let grant = LeaseGrant { namespace: "default".into(), id, ttl_ms: 1_000, ..LeaseGrant::default() };
        let command = f.command(Op::LeaseGrant(grant));
        f.apply(command);
        let lock =
            Some(LockName { namespace: "default".into(), kind: LockKind::Lock.into(), name: "l".into() });
        let acquire = LockAcquire { lock, lease: id, limit: 1, wait: true, ..LockAcquire::default() };
        let command = f.command(Op::LockAcquire(acquire));
        f.apply(command);
    }
    let leased = KvPut { key: "leased".into(), lease: 1, ..KvPut::default() };
    f.kv(vec![KvOperation { op: Some(kv_operation::Op::Put(leased)) }]);
    for n in 0..5 {
        f.put("a", &n.to_string());
        f.put("b", &n.to_string());
    }
    f.kv(vec![delete("b")]);
    let keyed = f.command(kv_txn(vec![crate::fixture::put("c", "1")]));
    f.apply(Command { idempotency_key: "one".into(), ..keyed });
    f
}

/// Changes a table behind the state's back.
#[allow(unsafe_code)]
fn damage(dir: &Path, table: &str, change: impl FnOnce(&Db<'_>, &mut RwTxn<'_>)) {
    let generation = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let generation = generation.filter(|path| path.join("data.mdb").exists()).max().unwrap();
    let mut open = EnvOpenOptions::new();
    open.map_size(1 << 30).max_dbs(64);
    // SAFETY: the state is closed, and nobody else knows its directory.
    let env = unsafe { open.open(generation) }.unwrap();
    let txn = env.write_txn().unwrap();
    let changed = env.create_databases_and_commit(txn, |opener, txn| {
        let db = opener.create_database::<Raw, Raw>(txn, Some(table))?;
        change(&db, txn);
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(()))
    });
    changed.unwrap().commit().unwrap();
}

/// What is found after a table was damaged.
fn found(table: &str, change: impl FnOnce(&Db<'_>, &mut RwTxn<'_>)) -> Vec<String> {
    let Fixture { dir, state, writer, .. } = filled();
    drop(state);
    writer.close().unwrap();
    damage(dir.path(), table, change);
    let (state, _writer, _) = store::open(options(dir.path(), "boot")).unwrap();
    let findings = state.view().unwrap().verify().unwrap();
    findings.into_iter().map(|finding| finding.to_string()).collect()
}

/// A row of a table: the first whose key has this in it.
fn row(db: &Db<'_>, txn: &RwTxn<'_>, part: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let has = |key: &[u8]| part.is_empty() || key.windows(part.len()).any(|window| window == part);
    let rows = db.iter(txn).unwrap().map(Result::unwrap);
    let (key, value) = rows.into_iter().find(|(key, _)| has(key)).unwrap();
    (key.to_vec(), value.to_vec())
}

fn drop_row(part: &'static [u8]) -> impl FnOnce(&Db<'_>, &mut RwTxn<'_>) {
    move |db: &Db<'_>, txn: &mut RwTxn<'_>| {
        let (key, _) = row(db, txn, part);
        assert!(db.delete(txn, &key).unwrap());
    }
}

fn flip_last_bit(part: &'static [u8]) -> impl FnOnce(&Db<'_>, &mut RwTxn<'_>) {
    move |db: &Db<'_>, txn: &mut RwTxn<'_>| {
        let (key, mut value) = row(db, txn, part);
        *value.last_mut().unwrap() ^= 1;
        db.put(txn, &key, &value).unwrap();
    }
}

fn copy_row(part: &'static [u8]) -> impl FnOnce(&Db<'_>, &mut RwTxn<'_>) {
    move |db: &Db<'_>, txn: &mut RwTxn<'_>| {
        let (mut key, value) = row(db, txn, part);
        key.push(b'x');
        db.put(txn, &key, &value).unwrap();
    }
}

#[test]
fn a_state_that_was_only_used_is_sound() {
    let f = filled();
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
    assert_eq!(Fixture::new().state.view().unwrap().verify().unwrap(), []);
}

#[test]
fn every_kind_of_damage_is_found() {
    type Change = Box<dyn FnOnce(&Db<'_>, &mut RwTxn<'_>)>;
    let planted: Vec<(&str, &str, Change, &str)> = vec![
        ("a flipped bit of an entry", "kv", Box::new(flip_last_bit(b"\0a")), "table kv"),
        ("a lost entry", "kv", Box::new(drop_row(b"\0a")), "table history"),
        ("an entry that nobody wrote", "kv", Box::new(copy_row(b"\0a")), "table kv"),
        ("a lost change", "history", Box::new(drop_row(b"\x07\0\0\0\0")), "does not follow"),
        (
            "a flipped bit of a change",
            "history",
            Box::new(flip_last_bit(b"\x0e\0\0\0\0")),
            "the rows' hash is",
        ),
        ("a lost first change", "history", Box::new(drop_row(b"\x01\0\0\0\0")), "does not follow"),
        ("a deletion that is forgotten", "gone", Box::new(drop_row(b"\0b")), "knows nothing of this change"),
        ("a deletion that never was", "gone", Box::new(copy_row(b"\0b")), "table gone"),
        ("a lost outcome", "idempotency", Box::new(drop_row(b"")), "table idempotency_by_age"),
        ("a flipped bit of an outcome", "idempotency", Box::new(flip_last_bit(b"")), "idempotency"),
        ("a lost place in the queue", "idempotency_by_age", Box::new(drop_row(b"")), "queue of expiry"),
        ("a key that its lease forgot", "bound", Box::new(drop_row(b"leased")), "it is missing"),
        (
            "a key that no lease has",
            "bound",
            Box::new(copy_row(b"leased")),
            "there is nothing that it could be derived from",
        ),
        ("a wrong sum of a lease", "bound", Box::new(flip_last_bit(b"")), "not what it is derived from"),
        ("a lost lease", "lease", Box::new(drop_row(b"")), "its lease 1 is not there"),
        ("a lost claim", "claim", Box::new(drop_row(b"l\0")), "does not count its claims"),
        ("a lost lock", "lock", Box::new(drop_row(b"l")), "its lock is not there"),
    ];
    assert!(planted.len() >= 12);
    for (what, table, change, told) in planted {
        let found = found(table, change);
        assert!(found.iter().any(|finding| finding.contains(told)), "{what}: {found:#?}");
    }
}
