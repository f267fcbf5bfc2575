//! Retries with an idempotency key.

use konsul_state::command::refusal::Reason;
use konsul_state::{Command, Outcome};

use crate::fixture::{Fixture, kv_txn, put, refused};

fn write(f: &mut Fixture, caller: &str, idempotency_key: &str, value: &str) -> Outcome {
    let mut command = f.command(kv_txn(vec![put("k", value)]));
    command.caller = caller.into();
    command.idempotency_key = idempotency_key.into();
    f.apply(command)
}

#[test]
fn a_retry_changes_nothing_and_gets_the_first_outcome() {
    let mut f = Fixture::new();
    let first = write(&mut f, "", "one", "1");
    f.put("k", "2");
    assert_eq!(write(&mut f, "", "one", "1"), first);
    assert_eq!(f.get("k", None).as_deref(), Some("2"));
    assert_eq!(f.batches.len(), 2);
}

#[test]
fn a_key_belongs_to_its_caller_and_request() {
    let mut f = Fixture::new();
    write(&mut f, "ann", "one", "1");
    let other = write(&mut f, "bob", "one", "2");
    assert_eq!(other.revision, 2);
    assert!(matches!(refused(&write(&mut f, "ann", "one", "other")), Reason::IdempotencyKeyReused(_)));
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut f = Fixture::new();
    let mut command = f.command(kv_txn(vec![put("k", "1")]));
    command.idempotency_key = "cas".into();
    let Some(konsul_state::command::command::Op::Kv(txn)) = &mut command.op else { panic!() };
    let Some(konsul_state::command::kv_operation::Op::Put(put)) = &mut txn.then[0].op else { panic!() };
    put.precondition =
        Some(konsul_state::command::KvPrecondition { exists: Some(true), ..Default::default() });
    let first = f.apply(command.clone());
    assert!(matches!(refused(&first), Reason::PreconditionFailed(_)));
    f.put("k", "now it is there");
    assert_eq!(f.apply(Command { time_ms: f.time_ms + 5, ..command }), first);
}

#[test]
fn outcomes_are_forgotten_after_ten_minutes() {
    let mut f = Fixture::new();
    for n in 0..10 {
        write(&mut f, "", &n.to_string(), "x");
    }
    // A clock that jumps ahead makes no time pass: a retry is still one.
    f.time_ms += 60 * 60 * 1000;
    f.put("later", "value");
    assert_eq!(write(&mut f, "", "3", "x").revision, 4);
    pass(&mut f, konsul_state::tables::idempotency::MAX_AGE_MS + 2_000);
    assert_eq!(f.state.view().unwrap().outcomes().unwrap(), 10);
    // Over age, so this is a new write; each such write takes up to four old ones out.
    assert_eq!(write(&mut f, "", "3", "y").revision, 12);
    assert_eq!(f.state.view().unwrap().outcomes().unwrap(), 6);
    write(&mut f, "", "new", "z");
    assert_eq!(f.state.view().unwrap().outcomes().unwrap(), 3);
}

/// Lets time pass, second by second, in Commands that change nothing.
fn pass(f: &mut Fixture, ms: u64) {
    for _ in 0..ms / 1_000 {
        f.time_ms += 999;
        f.compact(0);
    }
}
