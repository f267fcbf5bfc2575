//! Planted damage: each kind is found and told by its table, and a state that was only used has none.

use std::path::Path;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn};
use konsul_state::command::{
    CheckRecord, Health, InstanceDefinition, InstanceRecord, KvOperation, KvPut, LeaseGrant, LockAcquire,
    LockKind, LockName, NodeRecord, ServiceRecord, ServiceSettings, command::Op, kv_operation,
};
use konsul_state::{Command, store};
use prost::Message;

use crate::catalog;
use crate::fixture::{Fixture, delete, kv_txn, options};

type Db<'e> = Database<'e, Raw, Raw>;
type Change = Box<dyn FnOnce(&Db<'_>, &mut RwTxn<'_>)>;

/// What is done to which table, and what is told of it.
type Planted = (&'static str, &'static str, Change, &'static str);

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
    catalog(&mut f);
    let keyed = f.command(kv_txn(vec![crate::fixture::put("c", "1")]));
    f.apply(Command { idempotency_key: "one".into(), ..keyed });
    f
}

/// A node with two instances, one of which a third follows, which ends with a lease.
fn catalog(f: &mut Fixture) {
    let place = |address: &str| InstanceDefinition {
        address: address.into(),
        tags: vec!["v1".into()],
        metadata: catalog::items(&[("zone", "z")]),
        lease: 2,
        ..InstanceDefinition::default()
    };
    let follower = catalog::instance_with("db/1", place("db.example"), vec![catalog::alias("x", "web/1")]);
    let checked = |checks| catalog::checked(catalog::instance("web/1", "n"), checks);
    let instances =
        vec![checked(vec![catalog::ttl("c", Health::Passing)]), catalog::instance("web/2", "n"), follower];
    let nodes = vec![catalog::checked_node("n", vec![catalog::ttl("c", Health::Passing)])];
    assert!(catalog::done(f, catalog::register(nodes, instances)));
    assert!(catalog::done(f, catalog::report("web/1", "c", Health::Warning, "slow")));
    let settings = ServiceSettings { protect_threshold: 50, ..ServiceSettings::default() };
    assert!(catalog::done(f, catalog::configure("set", settings)));
    assert!(catalog::done(f, catalog::register(vec![], vec![catalog::instance("gone/1", "")])));
    assert!(catalog::done(f, catalog::deregister("gone/1")));
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

/// Changes the record of a row, whose link is of two bytes or more and ends where the record begins.
fn alter<R: Message + Default + PartialEq>(
    part: &'static [u8],
    change: fn(&mut R),
) -> impl FnOnce(&Db<'_>, &mut RwTxn<'_>) {
    move |db: &Db<'_>, txn: &mut RwTxn<'_>| {
        let (key, value) = row(db, txn, part);
        // Position, depth, and for later changes the position before and perhaps another one.
        let is_record =
            |at: &usize| R::decode(&value[*at..]).is_ok_and(|r| r.encode_to_vec() == value[*at..]);
        let at = (3..value.len()).find(is_record).unwrap();
        let mut record = R::decode(&value[at..]).unwrap();
        change(&mut record);
        db.put(txn, &key, &[&value[..at], &record.encode_to_vec()].concat()).unwrap();
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
    let planted: Vec<Planted> = vec![
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
    all_are_found(planted);
}

fn all_are_found(planted: Vec<Planted>) {
    for (what, table, change, told) in planted {
        let found = found(table, change);
        assert!(found.iter().any(|finding| finding.contains(told)), "{what}: {found:#?}");
    }
}

#[test]
fn every_kind_of_damage_of_the_catalog_is_found() {
    let planted: Vec<Planted> = vec![
        ("a lost node", "node", Box::new(drop_row(b"")), "its node is not there"),
        (
            "a node that is worse than its checks",
            "node",
            Box::new(alter::<NodeRecord>(b"", |node| node.set_health(Health::Critical))),
            "its checks say Passing",
        ),
        (
            "a node of the future",
            "node",
            Box::new(alter::<NodeRecord>(b"", |node| node.mod_revision = 999)),
            "changed at 999",
        ),
        ("a node that nobody registered", "node", Box::new(copy_row(b"")), "another row's"),
        ("a lost service", "service", Box::new(drop_row(b"web")), "its service is not there"),
        ("a service of nobody", "service", Box::new(copy_row(b"web")), "neither instances nor settings"),
        (
            "settings that are gone",
            "service",
            Box::new(alter::<ServiceRecord>(b"set", |service| service.settings = None)),
            "neither instances nor settings",
        ),
        ("a lost instance", "instance", Box::new(drop_row(b"web\x001")), "whose check it is is not there"),
        (
            "an instance that nobody registered",
            "instance",
            Box::new(copy_row(b"web\x002")),
            "table found, row default\\x00\\x02n\\x00web\\x002x: it is missing",
        ),
        (
            "an instance that is better than its checks",
            "instance",
            Box::new(alter::<InstanceRecord>(b"web\x001", |web| web.set_health(Health::Passing))),
            "it is Passing, and its checks say Warning",
        ),
        (
            "an instance that others see otherwise",
            "instance",
            Box::new(alter::<InstanceRecord>(b"db\x001", |db| db.set_own_health(Health::Critical))),
            "its checks say",
        ),
        (
            "an instance that is reached elsewhere",
            "instance",
            Box::new(alter::<InstanceRecord>(b"web\x001", |web| web.address = "x".into())),
            "its address is neither",
        ),
        (
            "an instance in another zone",
            "instance",
            Box::new(alter::<InstanceRecord>(b"db\x001", |db| db.zone = "y".into())),
            "its zone is neither",
        ),
        (
            "an instance that its lease forgot",
            "bound",
            Box::new(drop_row(b"\x03db\x001")),
            "table bound, row default\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x03db\\x001: it is missing",
        ),
        ("a lost check", "check", Box::new(drop_row(b"c")), "its checks say Passing"),
        (
            "a check of nobody",
            "check",
            Box::new(|db: &Db<'_>, txn: &mut RwTxn<'_>| {
                let (_, value) = row(db, txn, b"\x02n\0c");
                db.put(txn, b"default\0\x02none\0c", &value).unwrap();
            }),
            "whose check it is is not there",
        ),
        (
            "a check that is other than its last result",
            "check",
            Box::new(alter::<CheckRecord>(b"\x02n\0c", |check| check.set_observed(Health::Critical))),
            "it is not held",
        ),
        (
            "an alias check that says something of its own",
            "check",
            Box::new(alter::<CheckRecord>(b"db", |check| check.set_status(Health::Critical))),
            "the instance that it follows is Warning",
        ),
        ("a tag that is forgotten", "found", Box::new(drop_row(b"\x03v1\0db")), "it is missing"),
        (
            "a follower that is forgotten",
            "found",
            Box::new(drop_row(b"\x05web\x001\0\x01db")),
            "it is missing",
        ),
        (
            "an instance that is found on another node",
            "found",
            Box::new(copy_row(b"\x02n\0web\x001")),
            "nothing that it could be derived from",
        ),
        ("a wrong count", "found", Box::new(flip_last_bit(b"\x01web\0")), "not what it is derived from"),
        ("a lost count", "found", Box::new(drop_row(b"\x02n\0")), "it is missing"),
        (
            "a deletion of an instance",
            "gone",
            Box::new(drop_row(b"gone\x001")),
            "knows nothing of this change",
        ),
    ];
    all_are_found(planted);
}
