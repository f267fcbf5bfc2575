//! Txn: comparisons, branches, what its operations see, and what it refuses.

use konsul_proto::v1::compare::{Operator, Target};
use konsul_proto::v1::operation::Operation as Op;
use konsul_proto::v1::operation_result::Result as Done;
use konsul_proto::v1::{self, Compare, Operation, delete_range_operation, list_operation};
use tonic::Code;

use crate::harness::*;

fn op(operation: Op) -> Operation {
    Operation { operation: Some(operation) }
}

fn put_op(key: &str, value: &str) -> Operation {
    op(Op::Put(v1::PutOperation { key: key.into(), value: value.to_owned().into(), ..Default::default() }))
}

fn delete_op(key: &str) -> Operation {
    op(Op::Delete(v1::DeleteOperation { key: key.into(), ..Default::default() }))
}

fn delete_prefix(prefix: &str) -> Operation {
    let selector = Some(delete_range_operation::Selector::Prefix(prefix.into()));
    op(Op::DeleteRange(v1::DeleteRangeOperation { selector, previous: true }))
}

fn delete_between(start: &str, end: &str) -> Operation {
    let selector = Some(delete_range_operation::Selector::Range(range(start, end)));
    op(Op::DeleteRange(v1::DeleteRangeOperation { selector, previous: false }))
}

fn get_op(key: &str) -> Operation {
    op(Op::Get(v1::GetOperation { key: key.into() }))
}

fn list_op(prefix: &str, limit: u32) -> Operation {
    let selector = Some(list_operation::Selector::Prefix(prefix.into()));
    op(Op::List(v1::ListOperation { selector, keys_only: false, limit }))
}

fn compare(key: &str, operator: Operator, target: Target) -> Compare {
    Compare { key: key.into(), operator: operator.into(), target: Some(target) }
}

fn then(then: Vec<Operation>) -> v1::TxnRequest {
    v1::TxnRequest { then, ..Default::default() }
}

#[tokio::test]
async fn comparisons_choose_the_branch() {
    use Operator::{Equal, Greater, Less, NotEqual, Unspecified};
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "m").await;
    put(&mut kv, "a", "m").await;
    let cases = [
        (compare("a", Equal, Target::Exists(true)), true),
        (compare("a", Unspecified, Target::Exists(false)), false),
        (compare("b", NotEqual, Target::Exists(true)), true),
        (compare("a", Equal, Target::CreateRevision(1)), true),
        (compare("a", Greater, Target::CreateRevision(1)), false),
        (compare("b", Equal, Target::CreateRevision(0)), true),
        (compare("a", Equal, Target::ModRevision(2)), true),
        (compare("a", Less, Target::ModRevision(2)), false),
        (compare("a", Less, Target::ModRevision(3)), true),
        (compare("b", Equal, Target::ModRevision(0)), true),
        (compare("a", Greater, Target::Version(1)), true),
        (compare("b", Equal, Target::Version(0)), true),
        (compare("a", Equal, Target::Value("m".into())), true),
        (compare("a", Less, Target::Value("n".into())), true),
        (compare("a", Greater, Target::Value("n".into())), false),
        (compare("b", Equal, Target::Value("".into())), false),
        (compare("b", NotEqual, Target::Value("".into())), true),
        (compare("b", Less, Target::Value("x".into())), false),
    ];
    for (comparison, expected) in cases {
        let request = v1::TxnRequest {
            compare: vec![comparison.clone()],
            then: vec![get_op("a")],
            otherwise: vec![get_op("b"), get_op("b")],
            ..Default::default()
        };
        let answer = kv.txn(request).await.unwrap().into_inner();
        assert_eq!(answer.succeeded, expected, "{comparison:?}");
        assert_eq!((answer.results.len(), answer.revision), (if expected { 1 } else { 2 }, 2));
    }
    let both = vec![compare("a", Equal, Target::Exists(true)), compare("b", Equal, Target::Exists(true))];
    let request = v1::TxnRequest { compare: both, ..Default::default() };
    assert!(!kv.txn(request).await.unwrap().into_inner().succeeded);
    assert!(kv.txn(v1::TxnRequest::default()).await.unwrap().into_inner().succeeded);
}

#[tokio::test]
async fn operations_see_what_came_before_them_and_share_one_revision() {
    let server = start().await;
    let mut kv = server.kv().await;
    for key in ["d/1", "d/2", "old"] {
        put(&mut kv, key, key).await;
    }
    let operations = vec![
        get_op("new"),
        put_op("new", "1"),
        get_op("new"),
        delete_prefix("d/"),
        delete_op("old"),
        list_op("", 0),
    ];
    let answer = kv.txn(then(operations)).await.unwrap().into_inner();
    assert_eq!((answer.revision, answer.results.len()), (4, 6));
    let mut results = answer.results.into_iter().map(|r| r.result.unwrap());
    assert_eq!(results.next(), Some(Done::Get(v1::GetResult { entry: None })));
    assert_eq!(results.next(), Some(Done::Put(v1::PutResult { previous: None })));
    let Some(Done::Get(v1::GetResult { entry: Some(entry) })) = results.next() else {
        panic!("the put is seen")
    };
    assert_eq!((entry.mod_revision, entry.version), (4, 1));
    let Some(Done::Delete(deleted)) = results.next() else { panic!("a delete") };
    assert_eq!((deleted.deleted, deleted.previous.len()), (2, 2));
    let Some(Done::Delete(deleted)) = results.next() else { panic!("a delete") };
    assert_eq!((deleted.deleted, deleted.previous.len()), (1, 0));
    let Some(Done::List(list)) = results.next() else { panic!("a list") };
    assert_eq!((list.entries.len(), list.truncated), (1, false));
    for i in 0..3 {
        put(&mut kv, &format!("l/{i}"), "").await;
    }
    let answer = kv.txn(then(vec![list_op("l/", 2)])).await.unwrap().into_inner();
    let Some(Done::List(list)) = answer.results[0].result.clone() else { panic!("a list") };
    assert_eq!((list.entries.len(), list.truncated), (2, true));
}

#[tokio::test]
async fn a_failed_precondition_undoes_the_whole_txn() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    let before = server.fingerprint();
    let picky = op(Op::Put(v1::PutOperation {
        key: "a".into(),
        precondition: Some(v1::Precondition { mod_revision: Some(9), ..Default::default() }),
        ..Default::default()
    }));
    let status = kv.txn(then(vec![put_op("b", "1"), picky])).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::FailedPrecondition, "PRECONDITION_FAILED"));
    assert_eq!(metadata(&status, "current_revision").as_deref(), Some("1"));
    assert_eq!(server.fingerprint(), before);
}

#[tokio::test]
async fn malformed_txns_are_refused_by_field_and_change_nothing() {
    let server = start().await;
    let mut kv = server.kv().await;
    put(&mut kv, "a", "1").await;
    let before = server.fingerprint();
    let gets = |n: usize| vec![get_op("a"); n];
    let exists = compare("a", Operator::Equal, Target::Exists(true));
    let comparing = |compare| v1::TxnRequest { compare: vec![compare], ..Default::default() };
    let unset_range = op(Op::DeleteRange(v1::DeleteRangeOperation::default()));
    let cases = [
        (v1::TxnRequest { compare: vec![exists.clone(); 257], ..Default::default() }, invalid("compare")),
        (then(gets(257)), invalid("then")),
        (v1::TxnRequest { then: gets(128), otherwise: gets(129), ..Default::default() }, invalid("then")),
        (comparing(Compare { target: None, ..exists.clone() }), invalid("compare[0].target")),
        (comparing(Compare { operator: 9, ..exists.clone() }), invalid("compare[0].operator")),
        (
            comparing(Compare { operator: Operator::Less.into(), ..exists.clone() }),
            invalid("compare[0].operator"),
        ),
        (comparing(Compare { key: "".into(), ..exists }), invalid("compare[0].key")),
        (then(vec![get_op("a"), Operation { operation: None }]), invalid("then[1].operation")),
        (then(vec![put_op("", "")]), invalid("then[0].put.key")),
        (then(vec![delete_op("")]), invalid("then[0].delete.key")),
        (then(vec![get_op("")]), invalid("then[0].get.key")),
        (then(vec![unset_range]), invalid("then[0].delete_range.selector")),
        (then(vec![delete_between("b", "a")]), invalid("then[0].delete_range.range.end")),
        (then(vec![list_op("", 1001)]), invalid("then[0].list.limit")),
        (then(vec![list_op(&"k".repeat(1026), 1)]), invalid("then[0].list.prefix")),
        (
            then(vec![put_op("x", ""), put_op("a", ""), get_op("a"), put_op("x", "")]),
            invalid("then[3].put.key"),
        ),
        (then(vec![delete_op("a"), put_op("a", "")]), invalid("then[1].put.key")),
        (then(vec![put_op("a", ""), delete_op("a")]), invalid("then[1].delete.key")),
        (then(vec![delete_prefix("a"), put_op("ab", "")]), invalid("then[1].put.key")),
        (then(vec![put_op("ab", ""), delete_prefix("a")]), invalid("then[1].delete_range")),
        (then(vec![delete_prefix(""), delete_between("x", "")]), invalid("then[1].delete_range")),
        (then(vec![delete_between("a", "c"), delete_between("b", "d")]), invalid("then[1].delete_range")),
        (
            v1::TxnRequest { otherwise: vec![put_op("a", ""), put_op("a", "")], ..Default::default() },
            invalid("otherwise[1].put.key"),
        ),
        (v1::TxnRequest { namespace: "/".into(), ..Default::default() }, invalid("namespace")),
    ];
    for (request, expected) in cases {
        let status = kv.txn(request.clone()).await.expect_err(&format!("{expected:?}"));
        assert_eq!(refusal(&status), expected);
    }
    assert_eq!(server.fingerprint(), before);
    let allowed = v1::TxnRequest {
        then: vec![put_op("a", "then"), delete_between("b", "c"), delete_between("c", "d"), get_op("a")],
        otherwise: vec![put_op("a", "otherwise")],
        ..Default::default()
    };
    assert!(kv.txn(allowed).await.unwrap().into_inner().succeeded);
    let most = v1::TxnRequest { then: gets(200), otherwise: gets(56), ..Default::default() };
    kv.txn(most).await.unwrap();
}
