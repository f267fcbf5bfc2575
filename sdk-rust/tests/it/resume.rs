//! A watch against a server whose streams break at random places, also in the midst of a revision.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use konsul_client::{Client, Code, Error, WatchEvent, WatchOptions};
use konsul_proto::rpc;
use konsul_proto::v1::watch_event::Type;
use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{self, Entry, WatchRequest, WatchResponse};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tonic::{Request, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake::{Fake, Messages};

/// The history that the server has: per revision, from 1 on, the keys that it changed.
type Log = Vec<Vec<String>>;

fn seed() -> u64 {
    let seed = std::env::var("KONSUL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("KONSUL_TEST_SEED={seed}");
    seed
}

fn log(random: &mut StdRng) -> Log {
    (0..random.random_range(5..40))
        .map(|revision| (0..random.random_range(1..7)).map(|key| format!("r{revision}/k{key}")).collect())
        .collect()
}

fn message(target: u64, kind: Kind, revision: u64) -> WatchResponse {
    WatchResponse { target_id: target, kind: kind.into(), revision, ..WatchResponse::default() }
}

fn put(key: &str, revision: u64) -> v1::WatchEvent {
    let entry = Entry { key: key.into(), mod_revision: revision, ..Entry::default() };
    v1::WatchEvent { r#type: Type::Put.into(), entry: Some(entry), previous: None }
}

/// The messages of a target from a revision on: revisions are put together or cut into fragments at random.
fn changes(log: &Log, start: u64, random: &mut StdRng) -> Vec<WatchResponse> {
    let mut messages = Vec::new();
    let mut events: Vec<v1::WatchEvent> = Vec::new();
    for (revision, keys) in (1..).zip(log).filter(|(revision, _)| *revision >= start) {
        for (index, key) in keys.iter().enumerate() {
            events.push(put(key, revision));
            let complete = index + 1 == keys.len();
            if random.random_bool(if complete { 0.6 } else { 0.3 }) {
                let mut message = message(0, Kind::Events, revision);
                message.events = std::mem::take(&mut events);
                message.fragment = !complete;
                messages.push(message);
            }
        }
    }
    if !events.is_empty() {
        let mut last = message(0, Kind::Events, log.len() as u64);
        last.events = events;
        messages.push(last);
    }
    messages
}

fn state(log: &Log, per_message: usize) -> Vec<WatchResponse> {
    let revision = log.len() as u64;
    let entries: Vec<Entry> = (1..)
        .zip(log)
        .flat_map(|(revision, keys)| keys.iter().map(move |key| put(key, revision).entry.unwrap()))
        .collect();
    let mut messages: Vec<WatchResponse> = entries
        .chunks(per_message)
        .map(|chunk| WatchResponse { entries: chunk.to_vec(), ..message(0, Kind::State, revision) })
        .collect();
    messages.push(message(0, Kind::Synced, revision));
    messages
}

/// Ends a stream early, in one of the ways that streams end.
fn break_off(messages: Vec<WatchResponse>, random: &mut StdRng) -> Messages {
    let whole = messages.len();
    let kept = if random.random_bool(0.3) { whole } else { random.random_range(0..whole) };
    let mut broken: Messages = messages.into_iter().take(kept).map(Ok).collect();
    match random.random_range(0..3) {
        0 => broken.push(Err(Status::unavailable("shutting down"))),
        1 => broken.push(Err(Status::aborted("the leader changed"))),
        _ => {}
    }
    broken
}

#[tokio::test]
async fn every_change_arrives_once_and_in_order_however_streams_break() {
    let seed = seed();
    for round in 0..40 {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
        let log = log(&mut random);
        let expected: Vec<(u64, String)> = (1..)
            .zip(&log)
            .flat_map(|(revision, keys)| keys.iter().map(move |key| (revision, key.clone())))
            .collect();
        let served = log.clone();
        let random = Mutex::new(random);
        let watch = move |request: Request<WatchRequest>| {
            let target = &request.get_ref().targets[0];
            let mut random = random.lock().unwrap();
            if random.random_bool(0.2) {
                return Err(Status::unavailable("not now"));
            }
            let mut messages = vec![message(0, Kind::Opened, target.start_revision - 1)];
            messages.extend(changes(&served, target.start_revision, &mut random));
            Ok(break_off(messages, &mut random))
        };
        let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
        let mut watch = fake.client().kv().watch(WatchOptions::prefix("").from_revision(1));
        let mut got = Vec::new();
        while got.len() < expected.len() {
            if let WatchEvent::Put { revision, entry, last_of_revision, .. } =
                watch.next().await.unwrap().unwrap()
            {
                let last = log[revision as usize - 1].last() == Some(&entry.key);
                assert_eq!(last_of_revision, last, "round {round}: {} of {revision}", entry.key);
                got.push((revision, entry.key));
            }
        }
        assert_eq!(got, expected, "round {round}");
        let more = tokio::time::timeout(Duration::from_millis(20), async {
            loop {
                if let Some(Ok(WatchEvent::Put { entry, .. })) = watch.next().await {
                    break entry.key;
                }
            }
        });
        assert!(more.await.is_err(), "round {round}: more came than was changed");
    }
}

#[tokio::test]
async fn a_broken_initial_state_begins_again_and_says_so() {
    let seed = seed();
    for round in 0..40 {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
        let log = log(&mut random);
        let (before, after) = (log.clone(), log.len() as u64 + 1);
        let random = Mutex::new(random);
        let watch = move |request: Request<WatchRequest>| {
            let target = &request.get_ref().targets[0];
            let mut random = random.lock().unwrap();
            let mut messages = vec![message(0, Kind::Opened, after - 1)];
            if target.initial_state {
                let per_message = random.random_range(1..5);
                messages.extend(state(&before, per_message));
                return Ok(break_off(messages, &mut random));
            }
            assert_eq!(target.start_revision, after, "resumes after what was synced");
            let mut changed = message(0, Kind::Events, after);
            changed.events = vec![put("after", after)];
            messages.push(changed);
            Ok(messages.into_iter().map(Ok).collect())
        };
        let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
        let mut watch = fake.client().kv().watch(WatchOptions::prefix("").initial_state());
        let mut copy = Vec::new();
        let mut synced = false;
        loop {
            match watch.next().await.unwrap().unwrap() {
                WatchEvent::Opened { .. } => assert!(copy.is_empty()),
                WatchEvent::Reset { .. } => {
                    assert!(!synced, "round {round}: nothing begins again once it is complete");
                    copy.clear();
                }
                WatchEvent::State { entry, .. } => copy.push(entry.key),
                WatchEvent::Synced { revision, .. } => {
                    assert_eq!(revision, log.len() as u64);
                    synced = true;
                }
                WatchEvent::Put { entry, .. } => {
                    assert_eq!(entry.key, "after");
                    break;
                }
                other => panic!("round {round}: {other:?}"),
            }
        }
        assert!(synced);
        assert_eq!(copy, log.concat(), "round {round}");
    }
}

fn compacted(revision: u64) -> Status {
    let mut details = ErrorDetails::new();
    let metadata = [("compact_revision".to_string(), revision.to_string())];
    details.set_error_info("REVISION_COMPACTED", "konsul", std::collections::HashMap::from(metadata));
    Status::with_error_details(Code::OutOfRange, format!("compacted up to {revision}"), details)
}

fn ended(target: u64, status: &Status) -> WatchResponse {
    use prost::Message;
    let status = match status.details() {
        [] => rpc::Status { code: status.code().into(), message: status.message().into(), details: vec![] },
        details => rpc::Status::decode(details).unwrap(),
    };
    WatchResponse { status: Some(status), ..message(target, Kind::Ended, 0) }
}

#[tokio::test]
async fn a_compacted_start_ends_the_watch() {
    let watch = |_| Ok(vec![Ok(ended(0, &compacted(50))), Err(compacted(50))]);
    let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
    let mut watch = fake.client().kv().watch(WatchOptions::key("k").from_revision(3));
    match watch.next().await {
        Some(Err(Error::Compacted(compacted))) => assert_eq!(compacted.compact_revision, 50),
        other => panic!("{other:?}"),
    }
    assert!(watch.next().await.is_none(), "nothing comes after the error");
}

#[tokio::test]
async fn an_initial_state_compacted_under_way_begins_again() {
    let streams = AtomicU32::new(0);
    let watch = move |request: Request<WatchRequest>| {
        let target = &request.get_ref().targets[0];
        assert_eq!((target.start_revision, target.initial_state), (0, true));
        let state = |key: &str, revision| {
            let entries = vec![put(key, 1).entry.unwrap()];
            Ok(WatchResponse { entries, ..message(0, Kind::State, revision) })
        };
        Ok(match streams.fetch_add(1, Ordering::Relaxed) {
            0 => vec![Ok(message(0, Kind::Opened, 5)), state("old", 5), Ok(ended(0, &compacted(50)))],
            _ => vec![Ok(message(0, Kind::Opened, 60)), state("new", 60), Ok(message(0, Kind::Synced, 60))],
        })
    };
    let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
    let mut watch = fake.client().kv().watch(WatchOptions::prefix("").initial_state());
    let mut copy = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Opened { .. } => {}
            WatchEvent::Reset { .. } => copy.clear(),
            WatchEvent::State { entry, .. } => copy.push(entry.key),
            WatchEvent::Synced { revision: 60, .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(copy, ["new"]);
}

#[tokio::test]
async fn a_compacted_resume_begins_again_if_the_consumer_wants_the_state() {
    let streams = AtomicU32::new(0);
    let watch = move |request: Request<WatchRequest>| {
        let target = &request.get_ref().targets[0];
        Ok(match streams.fetch_add(1, Ordering::Relaxed) {
            0 => vec![Ok(message(0, Kind::Opened, 5)), Ok(message(0, Kind::Synced, 5))],
            1 => {
                assert_eq!((target.start_revision, target.initial_state), (6, false));
                vec![Ok(ended(0, &compacted(50))), Err(compacted(50))]
            }
            _ => {
                assert_eq!((target.start_revision, target.initial_state), (0, true));
                vec![Ok(message(0, Kind::Opened, 60)), Ok(message(0, Kind::Synced, 60))]
            }
        })
    };
    let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
    let options = WatchOptions::key("k").initial_state().reset_when_compacted();
    let mut watch = fake.client().kv().watch(options);
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(match watch.next().await.unwrap().unwrap() {
            WatchEvent::Opened { revision, .. } => ("opened", revision),
            WatchEvent::Reset { revision, .. } => ("reset", revision),
            WatchEvent::Synced { revision, .. } => ("synced", revision),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(seen, [("opened", 5), ("reset", 5), ("synced", 5), ("reset", 60), ("synced", 60)]);
}

#[tokio::test]
async fn one_target_may_end_while_the_others_go_on() {
    let watch = |request: Request<WatchRequest>| {
        let targets: Vec<u64> = request.get_ref().targets.iter().map(|target| target.id).collect();
        if targets == [1] {
            return Ok(vec![Ok(ended(1, &Status::permission_denied("revoked")))]);
        }
        assert_eq!(targets, [0, 1]);
        let denied = Status::permission_denied("not for you");
        Ok(vec![Ok(message(1, Kind::Opened, 4)), Ok(ended(0, &denied)), Ok(message(1, Kind::Progress, 6))])
    };
    let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
    let mut watch = fake.client().kv().watch(WatchOptions::key("secret").and_keys("app/"));
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Opened { target: 1, revision: 4 }))));
    match watch.next().await {
        Some(Ok(WatchEvent::Ended { target: 0, error, .. })) => {
            assert_eq!(error.code(), Code::PermissionDenied)
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Progress { target: 1, revision: 6 }))));
    assert_eq!(watch.next().await.unwrap().unwrap_err().to_string(), "revoked");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_never_opened_gives_up_at_the_deadline() {
    let tries = Arc::new(AtomicU32::new(0));
    let count = tries.clone();
    let watch = move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Err::<Messages, _>(Status::unavailable("starting"))
    };
    let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
    let kv = fake.client().kv().timeout(Duration::from_millis(400));
    let error = kv.watch(WatchOptions::key("k")).next().await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(tries.load(Ordering::Relaxed) > 1, "it was tried more than once");
}

#[tokio::test]
async fn a_lagging_member_is_waited_for() {
    let streams = AtomicU32::new(0);
    let future = || {
        let mut details = ErrorDetails::new();
        details.set_error_info("REVISION_IN_FUTURE", "konsul", std::collections::HashMap::new());
        Status::with_error_details(Code::OutOfRange, "in the future", details)
    };
    let watch = move |request: Request<WatchRequest>| {
        let start = request.get_ref().targets[0].start_revision;
        match streams.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(vec![Ok(message(0, Kind::Opened, 8)), Err(Status::unavailable("killed"))]),
            1 => Err(future()),
            2 => Ok(vec![Ok(ended(0, &future()))]),
            _ => {
                let mut changed = message(0, Kind::Events, start);
                changed.events = vec![put("k", start)];
                Ok(vec![Ok(message(0, Kind::Opened, 8)), Ok(changed)])
            }
        }
    };
    let fake = Fake { watch: Some(Box::new(watch)), ..Fake::default() }.start().await;
    let mut watch = fake.client().kv().watch(WatchOptions::key("k"));
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Opened { revision: 8, .. }))));
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Put { revision: 9, .. }))));
}

#[tokio::test]
async fn a_watch_goes_on_at_the_next_member_when_this_one_stops() {
    let events = |revision| {
        let mut message = message(0, Kind::Events, revision);
        message.events = vec![put(&format!("at {revision}"), revision)];
        Ok(message)
    };
    let stops = move |_: Request<WatchRequest>| {
        let stopping = crate::calls::refusal(Code::Unavailable, "SHUTTING_DOWN", &[]);
        Ok(vec![Ok(message(0, Kind::Opened, 0)), events(1), Err(stopping)])
    };
    let first = Fake { watch: Some(Box::new(stops)), ..Fake::default() }.start().await;
    let goes_on = move |request: Request<WatchRequest>| {
        let start = request.get_ref().targets[0].start_revision;
        Ok(vec![Ok(message(0, Kind::Opened, start - 1)), events(start)])
    };
    let second = Fake { watch: Some(Box::new(goes_on)), ..Fake::default() }.start().await;
    let addresses = [&first, &second].map(|fake| fake.address.to_string());
    let client = Client::builder().address(&addresses[0]).address(&addresses[1]).build().unwrap();
    let mut watch = client.kv().watch(WatchOptions::prefix("").from_revision(1));
    let mut seen = Vec::new();
    while seen.len() < 4 {
        if let WatchEvent::Put { revision, entry, .. } = watch.next().await.unwrap().unwrap() {
            seen.push((revision, entry.key));
        }
    }
    let expected: Vec<_> = (1..=4).map(|revision| (revision, format!("at {revision}"))).collect();
    assert_eq!(seen, expected);
}
