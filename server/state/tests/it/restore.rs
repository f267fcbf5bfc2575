//! Backups, and states that are put in the place of another one through the log.

use konsul_state::backup::{BackupError, Maker, Part, Reader, Source};
use konsul_state::command::{
    BackupHeader, BackupTrailer, CheckRecord, Health, InstanceDefinition, InstanceKey, InstanceRecord,
    LeaseGrant, LeaseRevoke, RestoreAbort, RestoreBegin, RestoreCommit, RestoreRows, Row, ServiceSettings,
    check_definition::Kind, command::Op, refusal::Reason,
};
use konsul_state::view::{By, Paging};
use konsul_state::{FLIPS, Key, LeaseId, Outcome, ReadError, Revision, StateHash};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::catalog;
use crate::coordination::{Model, run_random};
use crate::fixture::{Fixture, kv_txn, ns, put, refused};
use crate::model::seed;

const ID: u64 = 7;

pub fn back_up(f: &Fixture) -> Vec<u8> {
    let maker = Maker { cluster_id: "one".into(), version: "test".into(), created_ms: 1 };
    let mut source = Source::new(f.state.view().unwrap(), maker).unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = source.next_piece().unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<(BackupHeader, Vec<Vec<Row>>, BackupTrailer), BackupError> {
    let mut reader = Reader::default();
    let (mut header, mut rows, mut trailer) = (None, Vec::new(), None);
    // In pieces of an odd size, as a network may cut them.
    for piece in bytes.chunks(1_021) {
        reader.push(piece);
        while let Some(part) = reader.next_part()? {
            match part {
                Part::Header(found) => header = Some(found),
                Part::Rows(found) => rows.push(found),
                Part::Trailer(found) => trailer = Some(found),
            }
        }
    }
    reader.end()?;
    Ok((header.unwrap(), rows, trailer.unwrap()))
}

fn apply(f: &mut Fixture, op: Op) -> Outcome {
    let command = f.command(op);
    f.apply(command)
}

fn begin(f: &mut Fixture, id: u64) -> Outcome {
    apply(f, Op::RestoreBegin(RestoreBegin { id }))
}

fn stage(f: &mut Fixture, part: u64, rows: Vec<Row>) -> Outcome {
    apply(f, Op::RestoreRows(RestoreRows { id: ID, part, rows }))
}

fn commit(header: &BackupHeader, trailer: &BackupTrailer) -> Op {
    commit_as(ID, header, trailer)
}

fn commit_as(id: u64, header: &BackupHeader, trailer: &BackupTrailer) -> Op {
    Op::RestoreCommit(RestoreCommit {
        id,
        rows: trailer.rows,
        hash_high: trailer.hash_high,
        hash_low: trailer.hash_low,
        revision: header.revision,
        time_ms: header.time_ms,
        steady_ms: header.steady_ms,
    })
}

fn restore(f: &mut Fixture, bytes: &[u8]) -> Outcome {
    restore_as(f, ID, bytes)
}

/// Restores a backup under an id that no restore of this store has had.
pub fn restore_as(f: &mut Fixture, id: u64, bytes: &[u8]) -> Outcome {
    let (header, parts, trailer) = read(bytes).unwrap();
    begin(f, id);
    for (part, rows) in (0..).zip(parts) {
        apply(f, Op::RestoreRows(RestoreRows { id, part, rows }));
    }
    let staged = f.state.staged(id, Revision(header.revision)).unwrap().unwrap();
    assert_eq!(staged.verify_staged().unwrap(), []);
    drop(staged);
    apply(f, commit_as(id, &header, &trailer))
}

#[test]
fn what_is_backed_up_is_what_is_restored() {
    let mut rng = StdRng::seed_from_u64(seed());
    for _ in 0..10 {
        let (mut from, mut to) = (Fixture::new(), Fixture::new());
        let mut model = Model::default();
        run_random(&mut rng, &mut from, &mut model, 400);
        let mut once = from.command(kv_txn(vec![put("once", "1")]));
        once.idempotency_key = "once".into();
        let first = from.apply(once.clone());
        let steps = rng.random_range(0..600);
        run_random(&mut rng, &mut to, &mut Model::default(), steps);
        let bytes = back_up(&from);
        let (header, _, trailer) = read(&bytes).unwrap();
        let (before, backed_up) =
            (to.state.view().unwrap().revision(), from.state.view().unwrap().revision());
        let restored = restore(&mut to, &bytes);
        let view = to.state.view().unwrap();
        // The revision goes on from the greater one, history begins there, and all of it is in order.
        assert_eq!(view.revision(), before.max(backed_up).next());
        assert_eq!((restored.revision, view.restored_revision()), (view.revision().0, view.revision()));
        assert_eq!(view.hash(), StateHash::from_halves((trailer.hash_high, trailer.hash_low)));
        assert_eq!(view.verify().unwrap(), []);
        assert!(matches!(
            view.kv_get(&ns(), &Key::parse("once").unwrap(), Some(before)),
            Err(ReadError::Compacted { .. })
        ));
        assert!(view.restoring().is_none());
        drop(view);
        // The same bytes come out of it again, but for the head.
        let (again, _, sum) = read(&back_up(&to)).unwrap();
        assert_eq!(sum, trailer);
        assert_eq!((again.entries, again.leases, again.locks), (header.entries, header.leases, header.locks));
        // What was done before the backup is not done again; what comes is recorded as ever.
        assert_eq!(to.apply(once).revision, first.revision);
        assert_eq!(to.put("after", "1"), restored.revision + 1);
        assert_eq!(to.get("after", Some(restored.revision)), None);
        run_random(&mut rng, &mut to, &mut model, 300);
        assert_eq!(to.state.view().unwrap().verify().unwrap(), []);
    }
}

#[test]
fn nothing_but_the_whole_backup_is_read() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut f = Fixture::new();
    run_random(&mut rng, &mut f, &mut Model::default(), 300);
    for n in 0..40 {
        f.put(&format!("big{n}"), &"x".repeat(20_000));
    }
    let bytes = back_up(&f);
    read(&bytes).unwrap();
    for _ in 0..500 {
        let cut = rng.random_range(0..bytes.len());
        let error = read(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, BackupError::CutOff { .. }), "cut at {cut}: {error}");
        let mut flipped = bytes.clone();
        let at = rng.random_range(0..flipped.len());
        flipped[at] ^= 1 << rng.random_range(0..8);
        assert!(read(&flipped).is_err(), "a bit of byte {at} of {} was flipped", bytes.len());
        let mut longer = bytes.clone();
        longer.push(rng.random());
        assert!(read(&longer).is_err());
    }
    // Frames that are left out, doubled or in another order are other backups.
    let frames = frames(&bytes);
    for _ in 0..100 {
        let (a, b) = (rng.random_range(0..frames.len()), rng.random_range(0..frames.len()));
        let mut list = frames.clone();
        match rng.random_range(0..3) {
            0 => drop(list.remove(a)),
            1 => list.insert(a, frames[b].clone()),
            _ if a == b => continue,
            _ => list.swap(a, b),
        }
        let head = &bytes[..12];
        assert!(read(&[head, &list.concat()].concat()).is_err());
    }
    assert_eq!(read(b"SQLite format 3"), Err(BackupError::NotABackup));
    let mut newer = bytes;
    newer[11] = 2;
    assert_eq!(read(&newer), Err(BackupError::Newer { found: 2, known: 1 }));
}

#[test]
fn a_frame_is_no_longer_and_has_no_more_than_it_may() {
    let bytes = back_up(&Fixture::new());
    let head = &bytes[..12];
    let header = frames(&bytes).remove(0);
    let damaged = |frame: &[u8]| match read(&[head, &header, frame].concat()) {
        Err(BackupError::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(damaged(&[0xff; 12]), "a frame is longer than any can be");
    // Rows of two bytes each, which take forty times as much in memory.
    let frame = |rows: usize, each: &[u8]| {
        let mut payload = Vec::new();
        encode_key(2, WireType::LengthDelimited, &mut payload);
        encode_varint((rows * each.len()) as u64, &mut payload);
        payload.extend(each.repeat(rows));
        let (length, checksum) = (payload.len() as u32, xxh3_64_with_seed(&payload, 1));
        [&length.to_be_bytes()[..], &checksum.to_be_bytes(), &payload].concat()
    };
    assert_eq!(damaged(&frame(300_000, &[0x0a, 0])), "a frame has more than it may");
    // One great row is what long frames are for: this one is only no row of a table.
    let great = Row { table: 2, key: vec![b'k'; 5].into(), row: vec![0; 600_000].into() };
    let mut row = Vec::new();
    encode_key(1, WireType::LengthDelimited, &mut row);
    great.encode_length_delimited(&mut row).unwrap();
    let mut reader = Reader::default();
    reader.push(&[head, &header, &frame(1, &row)].concat());
    assert!(matches!(reader.next_part(), Ok(Some(Part::Header(_)))));
    assert_eq!(reader.next_part(), Ok(Some(Part::Rows(vec![great]))));
}

/// The frames of a backup, with their heads.
fn frames(bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut at, mut frames) = (12, Vec::new());
    while at < bytes.len() {
        let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        frames.push(bytes[at..at + 12 + length].to_vec());
        at += 12 + length;
    }
    frames
}

#[test]
fn a_restore_that_is_not_what_it_says_changes_nothing() {
    let (mut from, mut f) = (Fixture::new(), Fixture::new());
    let grant = LeaseGrant { namespace: "default".into(), id: 5, ttl_ms: 1_000, ..LeaseGrant::default() };
    apply(&mut from, Op::LeaseGrant(grant));
    for n in 0..50 {
        from.put(&format!("k{n:02}"), "v");
    }
    f.put("mine", "1");
    let hash = f.writer.hash().unwrap();
    let (header, parts, trailer) = read(&back_up(&from)).unwrap();
    let rows = parts.concat();
    let why = |outcome: &Outcome| match refused(outcome) {
        Reason::RestoreRefused(refused) => refused.what.clone(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(&stage(&mut f, 0, rows.clone())), Reason::RestoreGone(_)), "none was begun");
    begin(&mut f, ID);
    assert!(why(&stage(&mut f, 1, rows.clone())).contains("part 1 came where 0 was due"));
    let bad = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = rows.clone();
        change(&mut rows);
        rows
    };
    let doubled = bad(&|rows| rows.insert(1, rows[0].clone()));
    assert!(why(&stage(&mut f, 0, doubled)).contains("not after the one before"));
    let unknown = bad(&|rows| rows[0].table = 3);
    assert!(why(&stage(&mut f, 0, unknown)).contains("unknown table 3"));
    let broken = bad(&|rows| rows[0].row = vec![0xff; 3].into());
    stage(&mut f, 0, broken.clone());
    assert_ne!(why(&stage(&mut f, 0, broken)), "");
    // A part that comes again is the same; rows that come again are not.
    stage(&mut f, 0, rows[..20].to_vec());
    stage(&mut f, 0, rows[..20].to_vec());
    assert!(why(&stage(&mut f, 1, rows[19..].to_vec())).contains("there already"));
    // Not all, or not these.
    assert!(why(&apply(&mut f, commit(&header, &trailer))).contains("20 of 51 rows"));
    stage(&mut f, 1, rows[20..].to_vec());
    let other = BackupTrailer { hash_low: trailer.hash_low ^ 1, ..trailer };
    assert!(why(&apply(&mut f, commit(&header, &other))).contains("51 of 51 rows"));
    assert_eq!((f.writer.hash().unwrap(), f.get("k07", None)), (hash, None));
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
    // Given up, or begun anew by somebody else.
    apply(&mut f, Op::RestoreAbort(RestoreAbort { id: ID }));
    assert!(matches!(refused(&apply(&mut f, commit(&header, &trailer))), Reason::RestoreGone(_)));
    begin(&mut f, ID);
    begin(&mut f, ID + 1);
    assert!(matches!(refused(&stage(&mut f, 0, rows)), Reason::RestoreGone(_)));
    assert_eq!(f.state.view().unwrap().restoring().unwrap().0, ID + 1);
    assert_eq!((f.writer.hash().unwrap(), f.get("mine", None).as_deref()), (hash, Some("1")));
    // A retry of what was decided gets the same answer.
    let restored = restore(&mut f, &back_up(&from));
    let again = apply(&mut f, commit(&header, &trailer));
    assert_eq!(again.revision, restored.revision);
    assert_eq!((f.get("mine", None), f.get("k07", None).as_deref()), (None, Some("v")));
}

#[test]
fn what_does_not_hang_together_is_found_before_it_counts() {
    let mut from = Fixture::new();
    let grant = LeaseGrant { namespace: "default".into(), id: 5, ttl_ms: 1_000, ..LeaseGrant::default() };
    apply(&mut from, Op::LeaseGrant(grant));
    let bound = konsul_state::command::KvPut { key: "k".into(), lease: 5, ..Default::default() };
    let op = konsul_state::command::kv_operation::Op::Put(bound);
    from.kv(vec![konsul_state::command::KvOperation { op: Some(op) }]);
    let (header, parts, _) = read(&back_up(&from)).unwrap();
    // Somebody took the lease out, and summed up what is left.
    let rows: Vec<Row> = parts.concat().into_iter().filter(|row| row.table != 8).collect();
    let mut f = Fixture::new();
    begin(&mut f, ID);
    stage(&mut f, 0, rows);
    let staged = f.state.staged(ID, Revision(header.revision)).unwrap().unwrap();
    let findings = staged.verify_staged().unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].what, "its lease 5 is not there");
}

#[test]
fn a_catalog_is_restored_exactly() {
    let place = |node: &str, lease: u64| InstanceDefinition {
        node: node.into(),
        tags: vec!["v1".into(), "v2".into()],
        metadata: catalog::items(&[("k", "v"), ("zone", "z")]),
        lease,
        ..InstanceDefinition::default()
    };
    let mut from = Fixture::new();
    catalog::grant(&mut from, 5);
    let nodes =
        vec![catalog::checked_node("a", vec![catalog::ttl("n", Health::Warning)]), catalog::node("b")];
    let web = |id: u32, node: &str, lease: u64| {
        let checks = vec![catalog::ttl("c", Health::Critical), catalog::alias("x", "db/1")];
        catalog::instance_with(&format!("web/{id}"), place(node, lease), checks)
    };
    let instances = vec![web(1, "a", 0), web(2, "b", 5), web(3, "b", 5), catalog::instance("db/1", "a")];
    assert!(catalog::done(&mut from, catalog::register(nodes, instances)));
    let settings = ServiceSettings { protect_threshold: 30, ..ServiceSettings::default() };
    assert!(catalog::done(&mut from, catalog::configure("set", settings)));
    assert!(catalog::done(&mut from, catalog::maintain("web/3", "disk")));
    // One that is held.
    for n in 0..FLIPS + 1 {
        let status = if n % 2 == 0 { Health::Passing } else { Health::Critical };
        assert!(catalog::done(&mut from, catalog::report("web/2", "c", status, "turns")));
    }
    let mut to = Fixture::new();
    assert!(catalog::done(
        &mut to,
        catalog::register(vec![catalog::node("a")], vec![catalog::instance("web/9", "a")])
    ));
    let bytes = back_up(&from);
    let revision = restore(&mut to, &bytes).revision;
    let (_, _, trailer) = read(&bytes).unwrap();
    let (was, is) = (from.state.view().unwrap(), to.state.view().unwrap());
    let meant = StateHash::from_halves((trailer.hash_high, trailer.hash_low));
    assert_eq!((is.hash(), is.verify().unwrap()), (meant, vec![]));
    assert_eq!(read(&back_up(&to)).unwrap().2, trailer);
    let paging = Paging { at: None, after: None, limit: 100, max_bytes: 1 << 20, max_rows: 100 };
    assert_eq!(is.nodes(None, &paging).unwrap(), was.nodes(None, &paging).unwrap());
    assert_eq!(is.services(None, &paging).unwrap(), was.services(None, &paging).unwrap());
    assert_eq!(is.instances(None, &paging).unwrap(), was.instances(None, &paging).unwrap());
    assert_eq!(is.checks(None, &paging).unwrap(), was.checks(None, &paging).unwrap());
    assert_eq!(is.checks(None, &paging).unwrap().rows.len(), 7);
    for (by, count) in [
        (By::Node("a"), 2),
        (By::Node("b"), 2),
        (By::Service(&catalog::service_id("web").name), 3),
        (By::Followed(&catalog::instance_id("db/1")), 3),
    ] {
        assert_eq!(is.count_instances(&ns(), &by).unwrap(), count, "{by:?}");
    }
    for (by, found) in [(By::Node("b"), 2), (By::Tag("v2"), 3), (By::Metadata("k", "v"), 3)] {
        assert_eq!(
            is.instances_by(&ns(), &by, None, 9).unwrap(),
            was.instances_by(&ns(), &by, None, 9).unwrap()
        );
        assert_eq!(is.instances_by(&ns(), &by, None, 9).unwrap().len(), found, "{by:?}");
    }
    assert_eq!(is.lease_load(&ns(), LeaseId(5)).unwrap(), was.lease_load(&ns(), LeaseId(5)).unwrap());
    assert_eq!(is.lease_instances(&ns(), LeaseId(5)).unwrap(), 2);
    drop((was, is));
    // It goes on as it was: what is held is held, what follows follows, what is bound ends.
    assert!(!catalog::done(&mut to, catalog::report("web/2", "c", Health::Critical, "turns")));
    assert!(catalog::done(&mut to, catalog::report("a", "n", Health::Critical, "down")));
    let web = |f: &Fixture| f.state.view().unwrap().instance(&catalog::instance_id("web/2")).unwrap();
    assert_eq!(web(&to).unwrap().health(), Health::Critical);
    let revoke = LeaseRevoke { namespace: "default".into(), id: 5 };
    assert!(catalog::done(&mut to, Op::LeaseRevoke(revoke)));
    assert_eq!((web(&to), to.state.view().unwrap().revision().0), (None, revision + 2));
    assert_eq!(to.state.view().unwrap().verify().unwrap(), []);
}

#[test]
fn rows_that_could_not_be_indexed_are_refused_one_by_one() {
    let mut from = Fixture::new();
    let checks = vec![catalog::alias("x", "db/1")];
    assert!(catalog::done(
        &mut from,
        catalog::register(vec![], vec![catalog::checked(catalog::instance("web/1", ""), checks)])
    ));
    let (_, parts, _) = read(&back_up(&from)).unwrap();
    let rows = parts.concat();
    let at = |table: u32| rows.iter().position(|row| row.table == table).unwrap();
    let long = || "x".repeat(3_000);
    type Damage = Box<dyn Fn(&mut InstanceDefinition)>;
    let definitions: Vec<Damage> = vec![
        Box::new(move |definition| definition.tags = vec![long()]),
        Box::new(|definition| definition.tags = vec!["a\0b".into()]),
        Box::new(move |definition| definition.metadata = catalog::items(&[(&long(), "v")])),
        Box::new(move |definition| definition.metadata = catalog::items(&[("k", &long())])),
        Box::new(move |definition| definition.node = long()),
    ];
    // A link of revision, place and depth, one byte each.
    let link = |row: &Row| row.row.slice(..3);
    let with =
        |row: &Row, record: Vec<u8>| Row { row: [&link(row)[..], &record].concat().into(), ..row.clone() };
    let mut bad = Vec::new();
    for damage in definitions {
        let row = &rows[at(14)];
        let mut record = InstanceRecord::decode(row.row.slice(3..)).unwrap();
        damage(record.definition.as_mut().unwrap());
        bad.push(with(row, record.encode_to_vec()));
    }
    let row = &rows[at(15)];
    for (service, id) in [("web", long()), ("no label", "1".into()), ("web", String::new())] {
        let mut record = CheckRecord::decode(row.row.slice(3..)).unwrap();
        let key = InstanceKey { service: service.into(), id };
        record.definition.as_mut().unwrap().kind = Some(Kind::Alias(key));
        bad.push(with(row, record.encode_to_vec()));
    }
    let mut f = Fixture::new();
    begin(&mut f, ID);
    for row in bad {
        let outcome = stage(&mut f, 0, vec![row]);
        let Reason::RestoreRefused(refused) = refused(&outcome) else { panic!("{outcome:?}") };
        assert!(refused.what.contains("found by") || refused.what.contains("follows"), "{}", refused.what);
    }
    assert!(matches!(
        stage(&mut f, 0, rows).result,
        Some(konsul_state::command::outcome::Result::Restore(_))
    ));
}
