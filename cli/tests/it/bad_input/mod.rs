//! What a server says to requests that are wrong, and that it is none the worse for them. Each RPC is called over the
//! wire, by hand where no client would send such a thing.

mod floods;
mod requests;
mod wire;

use std::collections::BTreeSet;

use bytes::Bytes;
use http::Method;
use konsul_proto::v1::{
    BatchDeleteRequest, BatchGetRequest, BatchPutRequest, CompactRequest, GetRequest, HistoryRequest,
    HistoryResponse, ListRequest, ListResponse, PutRequest, ReadOptions, StatusResponse, TxnRequest,
    list_request, operation,
};
use prost::Message;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use crate::server::Server;
use requests::{
    Call, METHODS, at_revision, compare, delete, deletes, put, puts, reads, txn, with_key, with_namespace,
    with_range,
};
use wire::{Wire, frame};

const MAX_KEY_BYTES: usize = 1024;
const MAX_VALUE_BYTES: usize = 1 << 20;
const MAX_REQUEST_BYTES: usize = 4 << 20;
const COMPACTED: u64 = 3;

type Outcome = (Code, &'static str);
const INVALID: Outcome = (Code::InvalidArgument, "INVALID_FIELD");

/// A server with some keys, whose state must stay what it is.
struct Untouched {
    server: Server,
    wire: Wire,
    before: StatusResponse,
    /// The methods that refused something.
    refused: BTreeSet<&'static str>,
}

impl Untouched {
    async fn start() -> Self {
        let server = Server::start();
        let wire = Wire::connect(&server).await;
        for value in ["1", "2", "3", "4", "5"] {
            for (method, message) in puts("key", value.as_bytes()) {
                let answer = wire.call(method, &[], frame(&message)).await;
                assert_eq!(answer.code, Some(Code::Ok), "{answer:?}");
            }
        }
        let applied = server.status().await.applied_index;
        let compacted = wire.send("Admin/Compact", &CompactRequest { revision: COMPACTED }).await;
        assert_eq!(compacted.code, Some(Code::Ok));
        let mut before = server.status().await;
        // The compaction, and the server's own write that reclaims the rows of what is compacted.
        while before.applied_index < applied + 2 {
            before = server.status().await;
        }
        Self { server, wire, before, refused: BTreeSet::new() }
    }

    async fn refuses(&mut self, what: &str, calls: impl IntoIterator<Item = Call>, expected: Outcome) {
        for (method, message) in calls {
            let answer = self.wire.call(method, &[], frame(&message)).await;
            assert_eq!(answer.outcome(), (Some(expected.0), expected.1), "{method}, {what}: {answer:?}");
            assert!(!answer.message.is_empty(), "{method}, {what}: says nothing");
            self.refused.insert(method);
        }
    }

    async fn is_unchanged(&self) {
        let after = self.server.status().await;
        assert_eq!(
            (after.revision, &after.state_hash, after.entries),
            (self.before.revision, &self.before.state_hash, self.before.entries)
        );
    }
}

#[tokio::test]
async fn keys_values_and_names_are_checked_by_every_method() {
    let mut server = Untouched::start().await;
    let too_long = "k".repeat(MAX_KEY_BYTES + 1);
    server.refuses("empty key", with_key(""), INVALID).await;
    server.refuses("key that is too long", with_key(&too_long), INVALID).await;
    server.refuses("NUL in the key", with_key("a\0b"), INVALID).await;
    for namespace in ["Upper", "-first", "sp ace", &"n".repeat(65), "a\0b", "ä"] {
        server.refuses("namespace", with_namespace(namespace), INVALID).await;
    }
    let too_long = "k".repeat(MAX_KEY_BYTES + 2);
    server.refuses("range that ends before it starts", with_range("b", "a"), INVALID).await;
    server.refuses("empty range", with_range("a", "a"), INVALID).await;
    server.refuses("start that is too long", with_range(&too_long, ""), INVALID).await;
    server.refuses("end that is too long", with_range("", &too_long), INVALID).await;
    let value = vec![7; MAX_VALUE_BYTES + 1];
    let too_large = (Code::ResourceExhausted, "VALUE_TOO_LARGE");
    server.refuses("value that is too large", puts("key", &value), too_large).await;
    server.is_unchanged().await;

    for bytes in [MAX_KEY_BYTES - 1, MAX_KEY_BYTES] {
        let key = "k".repeat(bytes);
        let calls = puts(&key, b"v").into_iter().chain(reads(&key)).chain(deletes(&key));
        for (method, message) in calls {
            let answer = server.wire.call(method, &[], frame(&message)).await;
            assert_eq!(answer.code, Some(Code::Ok), "{method}, key of {bytes} bytes: {answer:?}");
        }
    }
    for bytes in [MAX_VALUE_BYTES - 1, MAX_VALUE_BYTES] {
        for (method, message) in puts("key", &vec![7; bytes]) {
            let answer = server.wire.call(method, &[], frame(&message)).await;
            assert_eq!(answer.code, Some(Code::Ok), "{method}, value of {bytes} bytes: {answer:?}");
        }
    }
}

#[tokio::test]
async fn messages_that_do_not_decode_are_the_callers_mistake() {
    let mut server = Untouched::start().await;
    let malformed = (Code::InvalidArgument, "MALFORMED_MESSAGE");
    for message in [&b"\x0a\xff"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b", b"\x08"] {
        let calls = METHODS.map(|method| (method, message.to_vec()));
        server.refuses("malformed", calls, malformed).await;
    }
    let mark = b"[not UTF-8]";
    let text = std::str::from_utf8(mark).unwrap();
    let calls = with_key(text).into_iter().chain(with_namespace(text)).chain(with_range(text, ""));
    for (method, mut message) in calls.collect::<Vec<_>>() {
        let at = message.windows(mark.len()).position(|bytes| bytes == mark).unwrap();
        message[at..at + mark.len()].fill(0xff);
        server.refuses("a string that is not UTF-8", [(method, message)], malformed).await;
    }
    for method in METHODS {
        // A frame that says less, more, or something else than what comes.
        for body in [&b"\0\0\0\0\x09ab"[..], b"\0\0", b"", b"\x07\0\0\0\0", b"\x01\0\0\0\x02ab"] {
            let answer = server.wire.call(method, &[], Bytes::from_static(body)).await;
            let code = answer.code.unwrap_or(Code::Ok);
            assert!(!matches!(code, Code::Ok | Code::Unavailable), "{method} of {body:?}: {answer:?}");
        }
    }
    server.is_unchanged().await;
}

#[tokio::test]
async fn revisions_and_page_tokens_that_are_not_there_are_refused() {
    let mut server = Untouched::start().await;
    let future = server.before.revision + 2;
    let in_future = (Code::OutOfRange, "REVISION_IN_FUTURE");
    let compacted = (Code::OutOfRange, "REVISION_COMPACTED");
    server.refuses("future", at_revision(future), in_future).await;
    server.refuses("future", at_revision(u64::MAX), in_future).await;
    server.refuses("compacted", at_revision(1), compacted).await;
    let compact = |revision| [("Admin/Compact", CompactRequest { revision }.encode_to_vec())];
    server.refuses("compact nothing", compact(0), INVALID).await;
    server.refuses("compact the future", compact(future), in_future).await;
    let ahead = Some(ReadOptions { min_revision: u64::MAX, ..ReadOptions::default() });
    let get = GetRequest { key: "key".to_owned(), read: ahead, ..GetRequest::default() };
    server.refuses("far ahead", [("KV/Get", get.encode_to_vec())], in_future).await;

    let list = |prefix: &str, page_token: String| ListRequest {
        selector: Some(list_request::Selector::Prefix(prefix.to_owned())),
        page_size: 1,
        page_token,
        ..ListRequest::default()
    };
    let history = |key: &str, page_token: String| HistoryRequest {
        key: key.to_owned(),
        page_size: 1,
        page_token,
        ..HistoryRequest::default()
    };
    for key in ["key-2", "key-3"] {
        server.wire.send("KV/Put", &PutRequest { key: key.to_owned(), ..PutRequest::default() }).await;
    }
    server.before = server.server.status().await;
    let of_list = server.wire.send("KV/List", &list("key", String::new())).await;
    let of_list = ListResponse::decode(&of_list.body[5..]).unwrap().next_page_token;
    let of_history = server.wire.send("KV/History", &history("key", String::new())).await;
    let of_history = HistoryResponse::decode(&of_history.body[5..]).unwrap().next_page_token;
    assert!(!of_list.is_empty() && !of_history.is_empty());
    let tampered = |token: &str| {
        (0..token.len())
            .map(|at| {
                let mut token = token.as_bytes().to_vec();
                token[at] = if token[at] == b'A' { b'B' } else { b'A' };
                String::from_utf8(token).unwrap()
            })
            .collect::<Vec<_>>()
    };
    let garbage = ["x".to_owned(), "\0".to_owned(), "=".repeat(10_000), of_list[1..].to_owned()];
    let lists = tampered(&of_list).into_iter().chain(garbage.clone()).chain([of_history.clone()]);
    let lists = lists.map(|token| list("key", token)).chain([list("ke", of_list)]);
    let histories = tampered(&of_history).into_iter().chain(garbage).map(|token| history("key", token));
    let histories = histories.chain([history("key-2", of_history)]);
    let bad_token = (Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let lists: Vec<_> = lists.map(|list| ("KV/List", list.encode_to_vec())).collect();
    let histories: Vec<_> = histories.map(|history| ("KV/History", history.encode_to_vec())).collect();
    server.refuses("page token", lists, bad_token).await;
    server.refuses("page token", histories, bad_token).await;
    server.is_unchanged().await;
}

#[tokio::test]
async fn lists_of_operations_have_their_limits() {
    let mut server = Untouched::start().await;
    let keys: Vec<String> = (0..257).map(|n| format!("many/{n}")).collect();
    let puts: Vec<_> = keys.iter().map(|key| put(key, b"")).collect();
    let deletes: Vec<_> = keys.iter().map(|key| delete(key)).collect();
    let half = txn(puts[..129].iter().cloned().map(operation::Operation::Put));
    let compares =
        TxnRequest { compare: keys.iter().map(|key| compare(key)).collect(), ..TxnRequest::default() };
    let too_many: Vec<Call> = vec![
        ("KV/BatchGet", BatchGetRequest { keys: keys.clone(), ..BatchGetRequest::default() }.encode_to_vec()),
        ("KV/BatchPut", BatchPutRequest { puts: puts.clone(), ..BatchPutRequest::default() }.encode_to_vec()),
        ("KV/BatchDelete", BatchDeleteRequest { deletes, ..BatchDeleteRequest::default() }.encode_to_vec()),
        ("KV/Txn", txn(puts.iter().cloned().map(operation::Operation::Put)).encode_to_vec()),
        ("KV/Txn", TxnRequest { otherwise: half.then[..128].to_vec(), ..half.clone() }.encode_to_vec()),
        ("KV/Txn", compares.encode_to_vec()),
    ];
    server.refuses("257", too_many, INVALID).await;
    let twice = [put("twice", b"1"), put("twice", b"2")];
    let deleted = [delete("key"), delete("key")];
    let same_key: Vec<Call> = vec![
        (
            "KV/BatchPut",
            BatchPutRequest { puts: twice.to_vec(), ..BatchPutRequest::default() }.encode_to_vec(),
        ),
        (
            "KV/BatchDelete",
            BatchDeleteRequest { deletes: deleted.to_vec(), ..BatchDeleteRequest::default() }.encode_to_vec(),
        ),
        ("KV/Txn", txn(twice.clone().map(operation::Operation::Put)).encode_to_vec()),
        ("KV/Txn", txn(deleted.map(operation::Operation::Delete)).encode_to_vec()),
        (
            "KV/Txn",
            txn([operation::Operation::Put(put("key", b"")), operation::Operation::Delete(delete("key"))])
                .encode_to_vec(),
        ),
    ];
    server.refuses("the same key twice", same_key, INVALID).await;
    let nothing: Vec<Call> = vec![
        ("KV/BatchGet", Vec::new()),
        ("KV/BatchPut", Vec::new()),
        ("KV/BatchDelete", Vec::new()),
        ("KV/DeleteRange", Vec::new()),
        ("KV/Watch", Vec::new()),
        ("KV/Txn", TxnRequest { then: vec![Default::default()], ..TxnRequest::default() }.encode_to_vec()),
    ];
    server.refuses("nothing to do", nothing, INVALID).await;
    server.is_unchanged().await;
}

#[tokio::test]
async fn calls_without_time_and_bodies_without_measure_are_refused() {
    let server = Untouched::start().await;
    let wire = &server.wire;
    let valid = with_namespace("").into_iter().chain([
        ("Admin/Status", Vec::new()),
        ("Admin/Compact", CompactRequest { revision: COMPACTED + 1 }.encode_to_vec()),
    ]);
    for (method, message) in valid {
        let late = wire.call(method, &[("grpc-timeout", "0n")], frame(&message)).await;
        let expected = (Some(Code::DeadlineExceeded), "DEADLINE_EXCEEDED");
        assert_eq!(late.outcome(), expected, "{method}: {late:?}");
        for timeout in ["", "5", "-1S", "123456789S", "1x"] {
            let answer = wire.call(method, &[("grpc-timeout", timeout)], frame(&message)).await;
            assert_eq!(answer.outcome(), (Some(INVALID.0), INVALID.1), "{method}, {timeout:?}: {answer:?}");
        }
    }
    let read = Some(ReadOptions { min_revision: server.before.revision + 1, ..ReadOptions::default() });
    let waits = GetRequest { key: "key".to_owned(), read, ..GetRequest::default() };
    for timeout in ["1n", "1m", "20m"] {
        let body = frame(&waits.encode_to_vec());
        let answer = wire.call("KV/Get", &[("grpc-timeout", timeout)], body).await;
        assert_eq!(answer.outcome(), (Some(Code::DeadlineExceeded), "DEADLINE_EXCEEDED"), "{answer:?}");
    }
    // A field that no method knows, so that it is the size alone that is wrong.
    let mut large = b"\xfa\x7f\x80\x80\x80\x02".to_vec();
    large.resize(MAX_REQUEST_BYTES + 7, 0);
    for method in METHODS {
        let answer = wire.call(method, &[], frame(&large)).await;
        let expected = (Some(Code::ResourceExhausted), "REQUEST_TOO_LARGE");
        assert_eq!(answer.outcome(), expected, "{method}: {answer:?}");
        assert!(answer.message.contains(&MAX_REQUEST_BYTES.to_string()), "{method}: {}", answer.message);
    }
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut kv = server.server.kv().send_compressed(encoding);
        let bomb =
            PutRequest { key: "bomb".to_owned(), value: vec![0; 16 << 20].into(), ..PutRequest::default() };
        let refusal = kv.put(bomb).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted, "{encoding:?}: {refusal:?}");
    }
    server.is_unchanged().await;
}

#[tokio::test]
async fn what_is_no_call_of_ours_is_told_so() {
    let server = Untouched::start().await;
    let wire = &server.wire;
    let unknown =
        ["/konsul.v1.KV/Nope", "/konsul.v1.Nope/Get", "/konsul.v2.KV/Get", "/", "/konsul.v1.KV/Get/x"];
    for path in unknown {
        let answer = wire.request(Method::POST, path, &[], frame(b"")).await.unwrap();
        assert_eq!(answer.code, Some(Code::Unimplemented), "{path}: {answer:?}");
    }
    for (method, message) in puts("key", b"changed") {
        for content_type in ["application/json", "text/plain", "application/grpc-web", "grpc", ""] {
            let answer = wire.call(method, &[("content-type", content_type)], frame(&message)).await;
            assert_eq!((answer.http_status, answer.code), (404, None), "{method} as {content_type:?}");
        }
        for name in ["idempotency-key", "grpc-encoding"] {
            let long = "x".repeat(129);
            let answer = wire.call(method, &[(name, &long)], frame(&message)).await;
            assert!(!matches!(answer.code, None | Some(Code::Ok)), "{method}, {name}: {answer:?}");
        }
        let path = format!("/konsul.v1.{method}");
        for verb in [Method::GET, Method::PUT, Method::DELETE] {
            let answer = wire.request(verb.clone(), &path, &[], frame(&message)).await.unwrap();
            assert_eq!((answer.http_status, answer.code), (404, None), "{verb} {method}");
        }
    }
    server.is_unchanged().await;
}
