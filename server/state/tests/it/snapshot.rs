//! Copies of the state and putting them in place.

use std::path::Path;

use bytes::Bytes;
use konsul_state::command::{KeySpan, outcome};
use konsul_state::snapshot::{DATA, Replacement, inspect};
use konsul_state::store::{self, Origin};
use konsul_state::{CommandGroup, Payload, Revision, StateError};

use crate::fixture::{Fixture, copy, delete_range, kv_txn, options, put};

/// A store made of a copy, that is to take the place of the present one.
fn plan(f: &mut Fixture, copy: &Path) -> Replacement {
    let plan = f.writer.plan().unwrap();
    std::fs::copy(copy.join(DATA), plan.data()).unwrap();
    plan.open().unwrap()
}

#[test]
fn a_copy_is_the_state_and_replaces_another() {
    let mut f = Fixture::new();
    for n in 0..100 {
        f.put(&format!("k{n}"), "v");
    }
    let membership = f.entry(Payload::Membership(Bytes::from_static(b"who is in")));
    let at = membership.position;
    f.writer.apply(vec![membership]).unwrap();
    let to = tempfile::tempdir().unwrap();
    let content = copy(&f.state, &to.path().join("copy"));
    // As long as what it holds, not as the map it was written through.
    let length = std::fs::metadata(to.path().join("copy").join(DATA)).unwrap().len();
    assert!(length < 1 << 20, "{length}");
    assert_eq!((content.revision, content.applied), (Revision(100), at));
    assert_eq!(content.membership, Some((at, Bytes::from_static(b"who is in"))));
    assert_eq!(content.hash, f.writer.hash().unwrap());

    let mut other = Fixture::new();
    other.put("gone", "x");
    let old_view = other.state.view().unwrap();
    other.writer.install(&to.path().join("copy")).unwrap();
    assert_eq!(old_view.revision(), Revision(1));
    drop(old_view);
    assert_eq!(other.writer.hash().unwrap(), content.hash);
    assert_eq!(other.get("gone", None), None);
    assert_eq!(other.get("k7", None).as_deref(), Some("v"));
    assert_eq!(inspect(&to.path().join("copy")).unwrap(), content);

    let Fixture { dir, state, writer, .. } = other;
    drop((state, writer));
    let (_, writer, origin) = store::open(options(dir.path(), "boot")).unwrap();
    assert_eq!((origin, writer.hash().unwrap()), (Origin::Kept, content.hash));
}

#[test]
fn a_retry_is_known_after_an_installation() {
    let mut f = Fixture::new();
    let mut once = f.command(kv_txn(vec![put("k", "once")]));
    once.idempotency_key = "once".into();
    let first = f.apply(once.clone());
    f.put("k", "later");
    let to = tempfile::tempdir().unwrap();
    copy(&f.state, &to.path().join("copy"));

    let mut other = Fixture::new();
    other.writer.install(&to.path().join("copy")).unwrap();
    (other.index, other.time_ms) = (f.index, f.time_ms);
    assert_eq!(other.apply(once), first);
    assert_eq!(other.get("k", None).as_deref(), Some("later"));
}

#[test]
fn a_copy_that_has_caught_up_takes_the_place_of_a_store_full_of_holes() {
    let mut f = Fixture::new();
    for n in 0..300 {
        f.put(&format!("k{n}"), &"x".repeat(20_000));
    }
    f.kv(vec![delete_range(KeySpan::prefix("k1"))]);
    f.compact(301);
    while matches!(f.trim(1_000).result, Some(outcome::Result::TrimHistory(done)) if done.more) {}
    let to = tempfile::tempdir().unwrap();
    copy(&f.state, &to.path().join("copy"));
    let mut replacement = plan(&mut f, &to.path().join("copy"));
    // The present goes on meanwhile, and the copy is refused until it has caught up.
    let mut missed = Vec::new();
    for n in 0..10 {
        let command = f.command(kv_txn(vec![put(&format!("later{n}"), "1")]));
        let entry = f.entry(Payload::Commands(CommandGroup { commands: vec![command] }));
        missed.push(entry.clone());
        f.writer.apply(vec![entry]).unwrap();
    }
    let behind = plan(&mut f, &to.path().join("copy"));
    assert!(matches!(f.writer.replace(behind), Err(StateError::Corrupt { .. })));
    assert_eq!(replacement.applied().unwrap().index + 10, f.state.applied().index);
    replacement.catch_up(missed).unwrap();
    let (hash, (_, before)) = (f.writer.hash().unwrap(), f.state.size_bytes().unwrap());
    let old_view = f.state.view().unwrap();
    f.writer.replace(replacement).unwrap();
    assert_eq!((f.writer.hash().unwrap(), old_view.hash()), (hash, hash));
    drop(old_view);
    let (used, after) = f.state.size_bytes().unwrap();
    // Some MiB are always allocated ahead.
    assert!(after + (20 << 20) < before && used < after, "{used} used, {before} then {after}");
    f.put("last", "1");
    assert_eq!((f.get("later9", None).as_deref(), f.get("k17", None)), (Some("1"), None));
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
    let hash = f.writer.hash().unwrap();
    let Fixture { dir, state, writer, .. } = f;
    drop((state, writer));
    let (_, writer, origin) = store::open(options(dir.path(), "boot")).unwrap();
    assert_eq!((origin, writer.hash().unwrap()), (Origin::Kept, hash));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the marker and one generation");
}
