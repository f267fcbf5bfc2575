//! Deadlines, retries, idempotency keys, addresses, and what is read from an error.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use konsul_client::{Client, Code, Error};
use konsul_proto::v1::{Entry, GetResponse, ListResponse, PutResponse};
use tokio::net::TcpListener;
use tonic::{Request, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake::Fake;

pub(crate) fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: Vec<(String, String)> =
        metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(
        reason,
        "konsul",
        metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
    );
    Status::with_error_details(code, format!("refused: {reason}"), details)
}

/// The idempotency key and the deadline that came with a request.
fn seen<T>(request: &Request<T>) -> (Option<String>, bool) {
    let text = |name| request.metadata().get(name).map(|value| value.to_str().unwrap().to_string());
    (text("idempotency-key"), text("grpc-timeout").is_some())
}

#[tokio::test]
async fn a_write_is_repeated_with_the_same_key_until_it_succeeds() {
    let keys = Arc::new(Mutex::new(Vec::new()));
    let attempts = keys.clone();
    let put = move |request: Request<_>| {
        let mut attempts = attempts.lock().unwrap();
        attempts.push(seen(&request));
        match attempts.len() {
            1 => Err(Status::unavailable("no leader")),
            2 => Err(Status::aborted("lost a race")),
            _ => Ok(PutResponse { revision: 7, previous: None }),
        }
    };
    let fake = Fake { put: Some(Box::new(put)), ..Fake::default() }.start().await;
    let kv = fake.client().kv();
    assert_eq!(kv.put("k", "v").await.unwrap().revision, 7);
    assert_eq!(kv.put("k", "v").await.unwrap().revision, 7);
    assert_eq!(kv.put("k", "v").idempotency_key("mine").await.unwrap().revision, 7);

    let seen = keys.lock().unwrap().clone();
    assert_eq!(seen.len(), 5);
    assert!(seen.iter().all(|(_, deadline)| *deadline), "every attempt carries a deadline");
    let keys: Vec<&str> = seen.iter().map(|(key, _)| key.as_deref().unwrap()).collect();
    assert_eq!((keys[0], keys[1]), (keys[1], keys[2]), "the attempts of one call share their key");
    assert_ne!(keys[2], keys[3], "another call has another key");
    assert_eq!(keys[4], "mine");
}

#[tokio::test]
async fn what_cannot_pass_is_not_repeated() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let put = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err(refusal(Code::FailedPrecondition, "PRECONDITION_FAILED", &[("current_revision", "41")]))
    };
    let fake = Fake { put: Some(Box::new(put)), ..Fake::default() }.start().await;
    let error = fake.client().kv().put("k", "v").if_absent().await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(matches!(error, Error::PreconditionFailed(_)), "{error:?}");
    assert_eq!(error.current_revision(), Some(41));
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("PRECONDITION_FAILED")));
    assert_eq!(error.to_string(), "refused: PRECONDITION_FAILED");
}

#[tokio::test]
async fn a_missing_key_is_none_and_a_compacted_revision_is_typed() {
    let get = |request: Request<konsul_proto::v1::GetRequest>| match request.get_ref().revision {
        0 => Err(refusal(Code::NotFound, "KEY_NOT_FOUND", &[])),
        _ => Err(refusal(Code::OutOfRange, "REVISION_COMPACTED", &[("compact_revision", "90")])),
    };
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let kv = fake.client().kv();
    assert_eq!(kv.get("k").await.unwrap(), None);
    assert_eq!(kv.get("k").response().await.unwrap_err().code(), Code::NotFound);
    let error = kv.get("k").at_revision(5).await.unwrap_err();
    assert!(matches!(&error, Error::Compacted(compacted) if compacted.compact_revision == 90), "{error:?}");
    assert_eq!(error.compact_revision(), Some(90));
}

#[tokio::test]
async fn the_deadline_bounds_all_attempts() {
    let get = |_| Err::<GetResponse, _>(Status::unavailable("no leader"));
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let started = Instant::now();
    let error = fake.client().kv().timeout(Duration::from_millis(300)).get("k").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    // Whether the last attempt was answered or cut off, the error tells what the server said.
    assert!(matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded), "{error:?}");
    assert!(error.to_string().contains("no leader"), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_deadline_exceeded() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let client = Client::builder().address(address).timeout(Duration::from_millis(200)).build().unwrap();
    let error = client.kv().get("k").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
}

#[tokio::test]
async fn a_deadline_may_be_as_long_as_one_likes() {
    let get = |_| Ok(GetResponse { revision: 3, entry: Some(Entry::default()) });
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let client = fake.builder().timeout(Duration::MAX).connect_timeout(Duration::MAX).build().unwrap();
    assert!(client.kv().get("k").await.unwrap().is_some());
    assert!(client.kv().timeout(Duration::MAX).get("k").await.unwrap().is_some());
}

#[tokio::test]
async fn the_number_of_attempts_can_be_bounded() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let get = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err::<GetResponse, _>(Status::unavailable("no leader"))
    };
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let client = fake.builder().max_attempts(3).build().unwrap();
    assert_eq!(client.kv().get("k").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn the_server_is_given_the_pause_it_asks_for() {
    let pause = Duration::from_millis(400);
    let calls = AtomicU32::new(0);
    let get = move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Err(Status::with_error_details(
            Code::ResourceExhausted,
            "slow down",
            ErrorDetails::with_retry_info(Some(pause)),
        )),
        _ => Ok(GetResponse::default()),
    };
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let started = Instant::now();
    fake.client().kv().get("k").await.unwrap();
    assert!(started.elapsed() >= pause, "came back after {:?}", started.elapsed());
}

#[tokio::test]
async fn addresses_are_tried_in_turn() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let get = |_| Ok(GetResponse { revision: 3, entry: Some(Entry::default()) });
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let client = Client::builder().address(&closed).address(fake.address.to_string()).build().unwrap();
    assert!(client.kv().get("k").await.unwrap().is_some());

    let alone = Client::builder().address(&closed).max_attempts(1).build().unwrap();
    let error = alone.kv().get("k").await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot reach http://{closed}: connection refused"));
    assert!(matches!(error, Error::Unreachable(_)));
}

#[tokio::test]
async fn a_member_that_cannot_serve_is_left_for_the_next_one() {
    let asked = Arc::new(AtomicU32::new(0));
    let first = {
        let asked = asked.clone();
        let get = move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            Err(refusal(Code::Unavailable, "NO_LEADER", &[]))
        };
        Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await
    };
    let get = |_| Ok(GetResponse { revision: 3, entry: Some(Entry::default()) });
    let second = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let addresses = [first.address.to_string(), second.address.to_string()];
    let both = Client::builder().address(&addresses[0]).address(&addresses[1]).build().unwrap();
    for _ in 0..5 {
        assert!(both.kv().get("k").await.unwrap().is_some());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it stays where it was served");

    // Many that are turned away together leave once, and not back to where they came from.
    asked.store(0, Ordering::Relaxed);
    let both = Client::builder().address(&addresses[0]).address(&addresses[1]).build().unwrap();
    let kv = both.kv();
    let gets = (0..20).map(|_| async { kv.get("k").await.map(|entry| entry.is_some()) });
    for found in futures_util::future::join_all(gets).await {
        assert!(found.unwrap());
    }
    assert!(asked.load(Ordering::Relaxed) <= 20);

    // Alone it is asked again.
    asked.store(0, Ordering::Relaxed);
    let alone = Client::builder().address(&addresses[0]).max_attempts(3).build().unwrap();
    assert_eq!(alone.kv().get("k").await.unwrap_err().reason(), Some("NO_LEADER"));
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

/// A server that accepts connections and says nothing, how many there were, and what keeps it going.
async fn silent() -> (String, Arc<AtomicU32>, tokio::task::JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicU32::new(0));
    let count = connections.clone();
    let mut accepting = tokio::task::JoinSet::new();
    accepting.spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            open.push(connection);
        }
    });
    (address, connections, accepting)
}

#[tokio::test]
async fn a_member_that_keeps_silent_is_left_for_one_that_answers_in_the_end() {
    let (silent, connections, _accepting) = silent().await;
    let asked = AtomicU32::new(0);
    let get = move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0..3 => Err(refusal(Code::Unavailable, "NO_LEADER", &[])),
        _ => Ok(GetResponse::default()),
    };
    let electing = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let client = Client::builder()
        .address(&silent)
        .address(electing.address.to_string())
        .attempt_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    client.kv().get("k").await.unwrap();
    // Each refusal sent it back to the other, but never for all the time that was left.
    assert_eq!(connections.load(Ordering::Relaxed), 4);
    client.kv().get("k").await.unwrap();
    assert_eq!(connections.load(Ordering::Relaxed), 4, "it stays where it was answered");
}

#[tokio::test]
async fn every_address_has_its_turn_before_the_deadline() {
    let (first, first_connections, _first) = silent().await;
    let (second, second_connections, _second) = silent().await;
    let get = |_| Ok(GetResponse::default());
    let third = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let addresses = [first, second, third.address.to_string()];
    let client = Client::builder().addresses(addresses).attempt_timeout(Duration::MAX).build().unwrap();
    client.kv().timeout(Duration::from_secs(3)).get("k").await.unwrap();
    let connections = [first_connections, second_connections].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(connections, [1, 1]);
}

#[tokio::test]
async fn a_slow_call_is_not_cut_short_everywhere() {
    let (first, first_connections, _first) = silent().await;
    let (second, second_connections, _second) = silent().await;
    let client = Client::builder()
        .addresses([&first, &second])
        .attempt_timeout(Duration::from_millis(20))
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let error = client.kv().get("k").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.to_string().contains(&format!("no answer from http://{first}")), "{error}");
    let connections = [first_connections, second_connections].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(connections, [1, 1], "the second had all the time that was left");
}

#[tokio::test]
async fn a_connection_that_breaks_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let client = Client::builder().address(address).max_attempts(2).build().unwrap();
    let error = client.kv().get("k").await.unwrap_err();
    accepting.abort();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

#[tokio::test]
async fn the_token_goes_with_each_call_and_into_no_debug_output() {
    let get = |request: Request<_>| {
        let sent = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_string());
        assert_eq!(sent.as_deref(), Some("Bearer s3cret"));
        Ok(GetResponse::default())
    };
    let fake = Fake { get: Some(Box::new(get)), ..Fake::default() }.start().await;
    let client = fake.builder().token("s3cret").build().unwrap();
    client.kv().get("k").await.unwrap();
    assert!(!format!("{client:?}").contains("s3cret"));
    let error = fake.builder().token("line\nbreak").build().unwrap_err();
    assert!(matches!(error, Error::InvalidToken));
}

#[tokio::test]
async fn a_listing_follows_its_pages() {
    let list = |request: Request<konsul_proto::v1::ListRequest>| {
        let request = request.into_inner();
        let page: u64 = request.page_token.parse().unwrap_or(0);
        assert!(page == 0 || request.revision == 0, "a page token comes without a revision");
        let entry = |number| Entry { key: format!("k{number}"), ..Entry::default() };
        Ok(ListResponse {
            revision: 9,
            entries: vec![entry(2 * page), entry(2 * page + 1)],
            next_page_token: if page < 2 { (page + 1).to_string() } else { String::new() },
            ..ListResponse::default()
        })
    };
    let fake = Fake { list: Some(Box::new(list)), ..Fake::default() }.start().await;
    let kv = fake.client().kv();
    let keys: Vec<String> =
        kv.list("k").at_revision(9).all().await.unwrap().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["k0", "k1", "k2", "k3", "k4", "k5"]);
    let pages: Vec<ListResponse> = kv.list("k").pages().try_collect().await.unwrap();
    assert_eq!(pages.len(), 3);
}

#[test]
fn a_client_is_built_within_a_runtime_from_addresses() {
    assert!(matches!(Client::builder().address("localhost").build(), Err(Error::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert!(matches!(Client::builder().build(), Err(Error::NoAddress)));
        let error = Client::builder().address("localhost").address("https://b").build().unwrap_err();
        assert!(matches!(error, Error::InvalidAddress { address, .. } if address == "https://b"));
        assert_eq!(Client::connect("a b").await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[tokio::test]
async fn an_idempotency_key_must_be_sendable() {
    let fake = Fake::default().start().await;
    for key in [String::new(), "ü".into(), "a\nb".into(), "x".repeat(129)] {
        let error = fake.client().kv().put("k", "v").idempotency_key(&key).await.unwrap_err();
        assert!(matches!(error, Error::InvalidIdempotencyKey), "{key:?}: {error}");
    }
}

#[tokio::test]
async fn a_call_that_a_draining_server_turned_away_is_made_again() {
    let put = |_: Request<_>| Ok(PutResponse { revision: 7, previous: None });
    let fake = Fake { put: Some(Box::new(put)), ..Fake::default() }.start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let behind = fake.address;
    let serving = tokio::spawn(async move {
        turn_away(listener.accept().await.unwrap().0).await;
        let (mut caller, _) = listener.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(behind).await.unwrap();
        // Ends with the client.
        let _ = tokio::io::copy_bidirectional(&mut caller, &mut server).await;
    });
    let client = Client::builder().address(address.to_string()).build().unwrap();
    assert_eq!(client.kv().put("k", "v").await.unwrap().revision, 7);
    drop(client);
    serving.await.unwrap();
}

/// What a server that drains its connections says to the first call on this one: GOAWAY, and no stream was taken (RFC 9113
/// §6.8).
async fn turn_away(mut connection: tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const PREFACE_BYTES: usize = 24;
    const HEADERS: u8 = 1;
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    connection.write_all(&SETTINGS).await.unwrap();
    connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
    loop {
        let mut frame = [0; 9];
        connection.read_exact(&mut frame).await.unwrap();
        let bytes = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        connection.read_exact(&mut vec![0; bytes as usize]).await.unwrap();
        if frame[3] == HEADERS {
            connection.write_all(&GOAWAY).await.unwrap();
            // Until the client closes it too.
            connection.read_to_end(&mut Vec::new()).await.unwrap();
            return;
        }
    }
}
