//! Preconditions, limits and atomicity of one Command.

use konsul_state::command::refusal::Reason;
use konsul_state::command::{
    KeySpan, KvDeleteRange, KvGet, KvList, KvOperation, KvPrecondition, KvPut, MAX_RANGE_KEYS, kv_operation,
    kv_result, outcome,
};

use crate::fixture::{Fixture, delete, delete_range, put, refused};

fn conditional(precondition: KvPrecondition) -> KvOperation {
    let put =
        KvPut { key: "k".into(), value: "new".into(), precondition: Some(precondition), ..KvPut::default() };
    KvOperation { op: Some(kv_operation::Op::Put(put)) }
}

#[test]
fn preconditions_hold_or_the_write_does_not_happen() {
    let p = KvPrecondition::default;
    // (precondition, holds without the key, holds with the key at revision 1 and value "old")
    let table = [
        (KvPrecondition { exists: Some(true), ..p() }, false, true),
        (KvPrecondition { exists: Some(false), ..p() }, true, false),
        (KvPrecondition { mod_revision: Some(0), ..p() }, true, false),
        (KvPrecondition { mod_revision: Some(1), ..p() }, false, true),
        (KvPrecondition { version: Some(0), ..p() }, true, false),
        (KvPrecondition { version: Some(1), ..p() }, false, true),
        (KvPrecondition { value: Some("old".into()), ..p() }, false, true),
        (KvPrecondition { value: Some("other".into()), ..p() }, false, false),
        (KvPrecondition { exists: Some(true), version: Some(2), ..p() }, false, false),
    ];
    for (precondition, absent, present) in table {
        for (exists, expected) in [(false, absent), (true, present)] {
            let mut f = Fixture::new();
            if exists {
                f.put("k", "old");
            }
            let outcome = f.kv(vec![put("other", "x"), conditional(precondition.clone())]);
            let before = u64::from(exists);
            if expected {
                assert_eq!(outcome.revision, before + 1, "{precondition:?}");
                assert_eq!(f.get("k", None).as_deref(), Some("new"));
            } else {
                let Reason::PreconditionFailed(found) = refused(&outcome) else { panic!("{outcome:?}") };
                assert_eq!((found.mod_revision, outcome.revision), (before, before), "{precondition:?}");
                assert_eq!(f.get("other", None), None, "half done: {precondition:?}");
            }
        }
    }
}

#[test]
fn deleting_what_is_not_there_takes_no_revision() {
    let mut f = Fixture::new();
    f.put("a", "1");
    assert_eq!(f.kv(vec![delete("b")]).revision, 1);
    assert_eq!(f.batches.len(), 1);
}

#[test]
fn a_txn_sees_its_own_writes_and_takes_one_revision() {
    let mut f = Fixture::new();
    f.put("a/1", "1");
    let get = KvOperation { op: Some(kv_operation::Op::Get(KvGet { key: "a/2".into() })) };
    let list = KvList { span: Some(KeySpan::prefix("a/")), keys_only: true, limit: 1 };
    let list = KvOperation { op: Some(kv_operation::Op::List(list)) };
    let outcome = f.kv(vec![put("a/2", "2"), delete("a/1"), get, put("a/3", "3"), list]);
    assert_eq!(outcome.revision, 2);
    let Some(outcome::Result::Kv(kv)) = outcome.result else { panic!() };
    let Some(kv_result::Result::Get(got)) = &kv.results[2].result else { panic!() };
    assert_eq!(&got.entry.as_ref().unwrap().record.as_ref().unwrap().value[..], b"2");
    let Some(kv_result::Result::List(listed)) = &kv.results[4].result else { panic!() };
    assert_eq!((listed.entries.len(), listed.entries[0].key.as_str(), listed.truncated), (1, "a/2", true));
    assert_eq!(f.batches[1].changes.len(), 3);
}

#[test]
fn a_range_that_is_too_large_is_refused_whole() {
    let mut f = Fixture::new();
    let keys = MAX_RANGE_KEYS + 1;
    for chunk in 0..keys.div_ceil(1000) {
        let puts =
            (chunk * 1000..((chunk + 1) * 1000).min(keys)).map(|n| put(&format!("k{n:06}"), "")).collect();
        f.kv(puts);
    }
    let outcome = f.kv(vec![delete_range(KeySpan::prefix("k"))]);
    assert!(matches!(refused(&outcome), Reason::RangeTooLarge(_)));
    assert_eq!(f.state.view().unwrap().entries().unwrap(), keys);
    f.kv(vec![delete("k000000")]);
    let Some(outcome::Result::Kv(kv)) = f.kv(vec![delete_range(KeySpan::prefix("k"))]).result else {
        panic!()
    };
    let Some(kv_result::Result::Delete(deleted)) = &kv.results[0].result else { panic!() };
    assert_eq!(deleted.deleted, MAX_RANGE_KEYS);
    assert_eq!(f.state.view().unwrap().entries().unwrap(), 0);
}

#[test]
fn a_range_that_changed_since_is_kept() {
    let mut f = Fixture::new();
    f.put("a", "1");
    f.put("b", "2");
    let range = |since| {
        let range =
            KvDeleteRange { span: Some(KeySpan::prefix("")), unchanged_since: Some(since), previous: true };
        vec![KvOperation { op: Some(kv_operation::Op::DeleteRange(range)) }]
    };
    let outcome = f.kv(range(1));
    let Reason::PreconditionFailed(found) = refused(&outcome) else { panic!() };
    assert_eq!((found.key.as_str(), found.mod_revision), ("b", 2));
    assert_eq!(f.kv(range(2)).revision, 3);
}

#[test]
fn what_a_command_returns_is_bounded_as_a_whole() {
    let mut f = Fixture::new();
    let large = "x".repeat(700 << 10);
    for key in ["a", "b", "c"] {
        f.put(key, &large);
    }
    let get = |key: &str| KvOperation { op: Some(kv_operation::Op::Get(KvGet { key: key.into() })) };
    assert!(matches!(
        refused(&f.kv(vec![get("a"), put("d", "1"), get("b"), get("c")])),
        Reason::RangeTooLarge(_)
    ));
    assert!(matches!(
        refused(&f.kv(vec![put("a", "1"), put("b", "1"), put("c", "1")])),
        Reason::RangeTooLarge(_)
    ));
    assert_eq!(f.get("d", None), None, "half done");
    let list = || {
        let list = KvList { span: Some(KeySpan::prefix("")), keys_only: false, limit: 1_000 };
        KvOperation { op: Some(kv_operation::Op::List(list)) }
    };
    let Some(outcome::Result::Kv(kv)) = f.kv(vec![list(), list()]).result else { panic!() };
    let listed: Vec<_> = kv
        .results
        .iter()
        .map(|result| match &result.result {
            Some(kv_result::Result::List(listed)) => (listed.entries.len(), listed.truncated),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(listed, [(2, true), (0, true)]);
}
