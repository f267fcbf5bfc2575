//! The past: reading at a revision, compaction, trimming.

use konsul_state::command::outcome::Result::TrimHistory;
use konsul_state::command::refusal::Reason;
use konsul_state::view::{Direction, VersionsQuery};
use konsul_state::{Key, ReadError, Revision};

use crate::fixture::{Fixture, delete, ns, refused};

#[test]
fn a_key_is_read_as_it_was() {
    let mut f = Fixture::new();
    let first = f.put("a", "1");
    let second = f.put("a", "2");
    f.kv(vec![delete("a")]);
    let fourth = f.put("a", "4");
    assert_eq!(f.get("a", Some(first)).as_deref(), Some("1"));
    assert_eq!(f.get("a", Some(second)).as_deref(), Some("2"));
    assert_eq!(f.get("a", Some(second + 1)), None);
    assert_eq!(f.get("a", Some(fourth)).as_deref(), Some("4"));
    assert_eq!(f.get("a", Some(0)), None);
}

#[test]
fn the_future_and_the_compacted_past_are_refused() {
    let mut f = Fixture::new();
    for n in 0..10 {
        f.put("a", &n.to_string());
    }
    f.compact(5);
    let read = |at| f.state.view().unwrap().kv_get(&ns(), &Key::parse("a").unwrap(), Some(Revision(at)));
    assert!(matches!(read(11), Err(ReadError::Future { current: Revision(10), .. })));
    assert!(matches!(read(4), Err(ReadError::Compacted { compact_revision: Revision(5), .. })));
    assert_eq!(f.get("a", Some(5)).as_deref(), Some("4"));
    let mut f = f;
    assert!(matches!(refused(&f.compact(11)), Reason::FutureRevision(_)));
}

#[test]
fn trimming_frees_what_was_compacted_and_nothing_else() {
    let mut f = Fixture::new();
    for n in 0..10 {
        f.put("a", &n.to_string());
    }
    let before = f.state.view().unwrap().history_bytes();
    f.compact(7);
    assert_eq!(f.state.view().unwrap().history_bytes(), before);
    let Some(TrimHistory(first)) = f.trim(4).result else { panic!() };
    assert_eq!((first.rows, first.more), (4, true));
    let Some(TrimHistory(second)) = f.trim(100).result else { panic!() };
    assert_eq!((second.rows, second.more), (3, false));
    assert_eq!(f.get("a", Some(7)).as_deref(), Some("6"));
    assert!(f.state.view().unwrap().history_bytes() < before / 2);
}

#[test]
fn versions_that_were_compacted_between_two_pages_are_left_out() {
    let mut f = Fixture::new();
    for n in 0..10 {
        f.put("a", &n.to_string());
    }
    f.compact(7);
    f.trim(100);
    let view = f.state.view().unwrap();
    let read = |direction, after, until| {
        let (namespace, key) = (ns(), Key::parse("a").unwrap());
        let after = Some(Revision(after));
        let until = Revision(until);
        let (limit, max_bytes) = (10, usize::MAX);
        let query =
            VersionsQuery { namespace: &namespace, key: &key, until, direction, after, limit, max_bytes };
        let page = view.kv_versions(&query).unwrap();
        page.versions.into_iter().map(|version| version.revision.0).collect::<Vec<_>>()
    };
    assert_eq!(read(Direction::Descending, 10, 10), [9, 8]);
    assert_eq!(read(Direction::Ascending, 3, 10), [8, 9, 10]);
    for after in 0..=8 {
        assert_eq!(read(Direction::Descending, after, 10), [], "{after}");
        assert_eq!(read(Direction::Ascending, after, 7), [], "{after}");
        assert_eq!(read(Direction::Ascending, 0, after.min(7)), [], "{after}");
    }
}

#[test]
fn a_time_is_found_as_a_revision() {
    let mut f = Fixture::new();
    for time in [2_000, 2_000, 3_000, 5_000] {
        f.time_ms = time - 1;
        f.put("a", "x");
    }
    let at = |time| f.state.view().unwrap().revision_at(time).unwrap().0;
    assert_eq!([at(1_999), at(2_000), at(4_999), at(5_000), at(9_000)], [0, 2, 3, 4, 4]);
}
