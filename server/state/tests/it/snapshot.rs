//! Copies of the state and putting them in place.

use bytes::Bytes;
use konsul_state::snapshot::{DATA, inspect};
use konsul_state::store::{self, Origin};
use konsul_state::{Payload, Revision};

use crate::fixture::{Fixture, copy, kv_txn, options, put};

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
    assert_eq!(inspect(&to.path().join("copy"), 1 << 30).unwrap(), content);

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
