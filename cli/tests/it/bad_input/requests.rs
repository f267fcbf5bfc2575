//! A request of every RPC, good and bad.

use konsul_proto::v1::{
    BatchDeleteRequest, BatchGetRequest, BatchPutRequest, Compare, DeleteOperation, DeleteRangeRequest,
    DeleteRequest, GetOperation, GetRequest, HistoryRequest, KeyRange, ListRequest, Operation, PutOperation,
    PutRequest, TxnRequest, WatchRequest, WatchTarget, compare, delete_range_request, list_request,
    operation, watch_target,
};
use prost::Message;

/// A method and an encoded message for it.
pub(super) type Call = (&'static str, Vec<u8>);

/// All methods.
pub(super) const METHODS: [&str; 13] = [
    "KV/Get",
    "KV/List",
    "KV/Put",
    "KV/Delete",
    "KV/DeleteRange",
    "KV/BatchGet",
    "KV/BatchPut",
    "KV/BatchDelete",
    "KV/Txn",
    "KV/History",
    "KV/Watch",
    "Admin/Status",
    "Admin/Compact",
];

pub(super) fn put(key: &str, value: &[u8]) -> PutOperation {
    PutOperation { key: key.to_owned(), value: value.to_vec().into(), ..PutOperation::default() }
}

pub(super) fn delete(key: &str) -> DeleteOperation {
    DeleteOperation { key: key.to_owned(), ..DeleteOperation::default() }
}

pub(super) fn txn(operations: impl IntoIterator<Item = operation::Operation>) -> TxnRequest {
    let then = operations.into_iter().map(|o| Operation { operation: Some(o) }).collect();
    TxnRequest { then, ..TxnRequest::default() }
}

pub(super) fn compare(key: &str) -> Compare {
    Compare { key: key.to_owned(), operator: 0, target: Some(compare::Target::Exists(false)) }
}

pub(super) fn watch(target: WatchTarget) -> WatchRequest {
    WatchRequest { targets: vec![target], ..WatchRequest::default() }
}

pub(super) fn watch_key(key: &str) -> WatchTarget {
    let selector = Some(watch_target::Selector::Key(key.to_owned()));
    WatchTarget { id: 1, selector, ..WatchTarget::default() }
}

/// Every way to read a key.
pub(super) fn reads(key: &str) -> Vec<Call> {
    let key = || key.to_owned();
    let get = operation::Operation::Get(GetOperation { key: key() });
    vec![
        ("KV/Get", GetRequest { key: key(), ..GetRequest::default() }.encode_to_vec()),
        ("KV/BatchGet", BatchGetRequest { keys: vec![key()], ..BatchGetRequest::default() }.encode_to_vec()),
        ("KV/History", HistoryRequest { key: key(), ..HistoryRequest::default() }.encode_to_vec()),
        ("KV/Txn", txn([get]).encode_to_vec()),
        ("KV/Txn", TxnRequest { compare: vec![compare(&key())], ..TxnRequest::default() }.encode_to_vec()),
    ]
}

/// Every way to put a key.
pub(super) fn puts(key: &str, value: &[u8]) -> Vec<Call> {
    let request = PutRequest { key: key.to_owned(), value: value.to_vec().into(), ..PutRequest::default() };
    let batch = BatchPutRequest { puts: vec![put(key, value)], ..BatchPutRequest::default() };
    vec![
        ("KV/Put", request.encode_to_vec()),
        ("KV/BatchPut", batch.encode_to_vec()),
        ("KV/Txn", txn([operation::Operation::Put(put(key, value))]).encode_to_vec()),
    ]
}

/// Every way to delete a key.
pub(super) fn deletes(key: &str) -> Vec<Call> {
    let request = DeleteRequest { key: key.to_owned(), ..DeleteRequest::default() };
    let batch = BatchDeleteRequest { deletes: vec![delete(key)], ..BatchDeleteRequest::default() };
    vec![
        ("KV/Delete", request.encode_to_vec()),
        ("KV/BatchDelete", batch.encode_to_vec()),
        ("KV/Txn", txn([operation::Operation::Delete(delete(key))]).encode_to_vec()),
    ]
}

/// Every way to name a key, but for those that stream or take it as a prefix.
pub(super) fn with_key(key: &str) -> Vec<Call> {
    let mut all = reads(key);
    all.extend(puts(key, b"value"));
    all.extend(deletes(key));
    all
}

/// Every method that has a namespace, in this one.
pub(super) fn with_namespace(namespace: &str) -> Vec<Call> {
    let namespace = || namespace.to_owned();
    let key = || "key".to_owned();
    let prefix = delete_range_request::Selector::Prefix("none/".to_owned());
    vec![
        (
            "KV/Get",
            GetRequest { namespace: namespace(), key: key(), ..GetRequest::default() }.encode_to_vec(),
        ),
        ("KV/List", ListRequest { namespace: namespace(), ..ListRequest::default() }.encode_to_vec()),
        (
            "KV/Put",
            PutRequest { namespace: namespace(), key: key(), ..PutRequest::default() }.encode_to_vec(),
        ),
        (
            "KV/Delete",
            DeleteRequest { namespace: namespace(), key: key(), ..DeleteRequest::default() }.encode_to_vec(),
        ),
        (
            "KV/DeleteRange",
            DeleteRangeRequest {
                namespace: namespace(),
                selector: Some(prefix),
                ..DeleteRangeRequest::default()
            }
            .encode_to_vec(),
        ),
        (
            "KV/BatchGet",
            BatchGetRequest { namespace: namespace(), keys: vec![key()], ..BatchGetRequest::default() }
                .encode_to_vec(),
        ),
        (
            "KV/BatchPut",
            BatchPutRequest { namespace: namespace(), puts: vec![put("key", b"")] }.encode_to_vec(),
        ),
        (
            "KV/BatchDelete",
            BatchDeleteRequest { namespace: namespace(), deletes: vec![delete("key")] }.encode_to_vec(),
        ),
        ("KV/Txn", TxnRequest { namespace: namespace(), ..TxnRequest::default() }.encode_to_vec()),
        (
            "KV/History",
            HistoryRequest { namespace: namespace(), key: key(), ..HistoryRequest::default() }
                .encode_to_vec(),
        ),
        ("KV/Watch", WatchRequest { namespace: namespace(), ..watch(watch_key("key")) }.encode_to_vec()),
    ]
}

/// Every way to name a range.
pub(super) fn with_range(start: &str, end: &str) -> Vec<Call> {
    let range = || KeyRange { start: start.to_owned(), end: end.to_owned() };
    let delete = Some(delete_range_request::Selector::Range(range()));
    let list = Some(list_request::Selector::Range(range()));
    let target = Some(watch_target::Selector::Range(range()));
    vec![
        ("KV/List", ListRequest { selector: list, ..ListRequest::default() }.encode_to_vec()),
        ("KV/DeleteRange", DeleteRangeRequest { selector: delete, ..Default::default() }.encode_to_vec()),
        ("KV/Watch", watch(WatchTarget { selector: target, ..watch_key("") }).encode_to_vec()),
    ]
}

/// Every way to read at a revision; a watch from it on is among them.
pub(super) fn at_revision(revision: u64) -> Vec<Call> {
    let keys = vec!["key".to_owned()];
    let target = WatchTarget { start_revision: revision, ..watch_key("key") };
    vec![
        ("KV/Get", GetRequest { key: "key".to_owned(), revision, ..GetRequest::default() }.encode_to_vec()),
        ("KV/List", ListRequest { revision, ..ListRequest::default() }.encode_to_vec()),
        ("KV/BatchGet", BatchGetRequest { keys, revision, ..BatchGetRequest::default() }.encode_to_vec()),
        ("KV/Watch", watch(target).encode_to_vec()),
    ]
}
