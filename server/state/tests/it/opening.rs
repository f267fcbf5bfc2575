//! Opening a store: what is trusted, what is set aside, what is refused.

use std::fs;
use std::os::unix::fs::FileExt;

use konsul_state::store::{self, Origin};
use konsul_state::{Command, CommandGroup, Entry, LogPosition, Payload, StateError, command};

use crate::fixture::{Fixture, kv_txn, options, put};

#[test]
fn a_closed_store_is_kept_whatever_the_boot() {
    let mut f = Fixture::new();
    f.put("a", "1");
    let hash = f.writer.hash().unwrap();
    let Fixture { dir, state, writer, .. } = f;
    writer.close().unwrap();
    drop(state);
    let (_, writer, origin) = store::open(options(dir.path(), "another boot")).unwrap();
    assert_eq!((origin, writer.hash().unwrap()), (Origin::Kept, hash));
}

#[test]
fn an_open_store_is_kept_under_the_same_boot_and_set_aside_under_another() {
    for (boot, expected, entries) in [("boot", Origin::Kept, 1), ("another boot", Origin::Discarded, 0)] {
        let mut f = Fixture::new();
        f.put("a", "1");
        let Fixture { dir, state, writer, .. } = f;
        drop((state, writer));
        let (state, _writer, origin) = store::open(options(dir.path(), boot)).unwrap();
        assert_eq!((origin, state.view().unwrap().entries().unwrap()), (expected, entries));
    }
}

#[test]
fn a_store_is_opened_once_at_a_time() {
    let f = Fixture::new();
    assert!(matches!(store::open(options(f.dir.path(), "boot")), Err(StateError::InUse)));
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_was() {
    let mut f = Fixture::new();
    f.put("a", "1");
    let Fixture { dir, state, writer, .. } = f;
    writer.close().unwrap();
    drop(state);
    let data = dir.path().join("gen-000001").join("data.mdb");
    let damage = [0xAB; 4096 * 2];
    let file = fs::OpenOptions::new().read(true).write(true).open(&data).unwrap();
    file.write_all_at(&damage, 0).unwrap();
    let length = file.metadata().unwrap().len();
    let error = store::open(options(dir.path(), "boot")).err().unwrap();
    assert!(matches!(error, StateError::Lmdb(_)), "{error}");
    let mut found = [0; 4096 * 2];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!((found, file.metadata().unwrap().len()), (damage, length));
}

#[test]
fn a_store_from_before_the_first_release_is_refused_and_left_as_it_was() {
    let f = Fixture::new();
    let Fixture { dir, state, writer, .. } = f;
    writer.close().unwrap();
    drop(state);
    let data = dir.path().join("gen-000001").join("data.mdb");
    // The format's row: its key, and its value right behind it.
    let written = fs::read(&data).unwrap();
    let place = written.windows(10).position(|w| w == b"format\0\0\0\x02").unwrap() + 6;
    let file = fs::OpenOptions::new().write(true).open(&data).unwrap();
    file.write_all_at(&1u32.to_be_bytes(), place as u64).unwrap();
    for _ in 0..2 {
        let error = store::open(options(dir.path(), "boot")).err().unwrap();
        assert!(matches!(error, StateError::Unreleased { found: 1 }), "{error}");
    }
}

#[test]
fn a_foreign_marker_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("MARKER"), "something else").unwrap();
    let error = store::open(options(dir.path(), "boot")).err().unwrap();
    assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
}

#[test]
fn entries_come_in_order_or_not_at_all() {
    let mut f = Fixture::new();
    f.put("a", "1");
    for index in [1, 3] {
        let entry = Entry { position: LogPosition { term: 1, leader: 1, index }, payload: Payload::Blank };
        let error = f.writer.apply(vec![entry]).unwrap_err();
        assert!(matches!(error, StateError::OutOfOrder { expected: 2, .. }), "{error}");
    }
}

#[test]
fn a_write_of_a_newer_version_stops_the_member_and_changes_nothing() {
    let mut f = Fixture::new();
    f.put("key", "value");
    let before = f.writer.hash().unwrap();
    let newer = command::FORMAT + 1;
    let command = Command { format: newer, ..f.command(kv_txn(vec![put("key", "other")])) };
    let entry = f.entry(Payload::Commands(CommandGroup { commands: vec![command] }));
    let error = f.writer.apply(vec![entry]).unwrap_err();
    assert!(matches!(error, StateError::NewerCommand { found, .. } if found == newer), "{error}");
    assert!(error.to_string().contains("use a newer konsul"), "{error}");
    assert_eq!((f.writer.hash().unwrap(), f.get("key", None)), (before, Some("value".to_owned())));
}
