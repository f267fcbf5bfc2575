//! The watch model test: random writes against watchers that start, stall, disconnect and resume at random. What
//! each was sent has to replay to the exact state, each change once and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{self, WatchTarget, operation, watch_event, watch_target};
use konsul_service::Limits;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tonic::Code;

use crate::harness::*;

const WATCHERS: usize = 120;
const WRITES: usize = 500;

type Entries = BTreeMap<String, (Vec<u8>, u64)>;

/// The state after each revision, as the writer knows it.
#[derive(Default)]
struct Truth {
    states: Vec<Entries>,
}

fn key(rng: &mut StdRng) -> String {
    format!("{}/{}", ["a", "b", "ab"][rng.random_range(0..3)], rng.random_range(0..8))
}

fn selector(rng: &mut StdRng) -> watch_target::Selector {
    use watch_target::Selector;
    match rng.random_range(0..4) {
        0 => Selector::Key(key(rng)),
        1 => Selector::Prefix(["", "a", "a/", "b/", "ab/1"][rng.random_range(0..5)].into()),
        2 => Selector::Range(range("a/3", "b/5")),
        _ => Selector::Range(range("ab", "")),
    }
}

fn selects(selector: &watch_target::Selector, key: &str) -> bool {
    use watch_target::Selector;
    match selector {
        Selector::Key(k) => k == key,
        Selector::Prefix(p) => key.starts_with(p.as_str()),
        Selector::Range(r) => key >= r.start.as_str() && (r.end.is_empty() || key < r.end.as_str()),
    }
}

fn value(rng: &mut StdRng) -> Vec<u8> {
    let len = if rng.random_ratio(1, 20) { 3_000 } else { rng.random_range(0..20) };
    (0..len).map(|_| rng.random()).collect()
}

fn put_op(key: String, value: Vec<u8>) -> v1::Operation {
    let put = v1::PutOperation { key, value: value.into(), ..Default::default() };
    v1::Operation { operation: Some(operation::Operation::Put(put)) }
}

fn delete_prefix_op(prefix: &str) -> v1::Operation {
    let selector = Some(v1::delete_range_operation::Selector::Prefix(prefix.into()));
    let delete = v1::DeleteRangeOperation { selector, previous: false };
    v1::Operation { operation: Some(operation::Operation::DeleteRange(delete)) }
}

/// Writes at random, and keeps what is true after each revision.
async fn write(server: &Server, mut rng: StdRng, head: &watch::Sender<u64>) -> Truth {
    let mut kv = server.kv().await;
    let mut admin = server.admin().await;
    let mut truth = Truth { states: vec![Entries::new()] };
    for _ in 0..WRITES {
        let mut state = truth.states.last().unwrap().clone();
        let next = truth.states.len() as u64;
        match rng.random_range(0..20) {
            0..=9 => {
                let (key, value) = (key(&mut rng), value(&mut rng));
                let request =
                    v1::PutRequest { key: key.clone(), value: value.clone().into(), ..Default::default() };
                assert_eq!(kv.put(request).await.unwrap().into_inner().revision, next);
                state.insert(key, (value, next));
                truth.states.push(state);
            }
            10..=14 => {
                let key = key(&mut rng);
                let revision = delete(&mut kv, &key).await;
                if state.remove(&key).is_some() {
                    assert_eq!(revision, next);
                    truth.states.push(state);
                }
            }
            15..=18 => {
                let prefix = ["a/", "b/"][rng.random_range(0..2)];
                let mut then = vec![delete_prefix_op(prefix)];
                state.retain(|key, _| !key.starts_with(prefix));
                for i in 0..rng.random_range(1..6) {
                    let (key, value) = (format!("ab/{i}"), value(&mut rng));
                    state.insert(key.clone(), (value.clone(), next));
                    then.push(put_op(key, value));
                }
                let request = v1::TxnRequest { then, ..Default::default() };
                assert_eq!(kv.txn(request).await.unwrap().into_inner().revision, next);
                truth.states.push(state);
            }
            _ => {
                let back = rng.random_range(0..60);
                if next > back + 1 {
                    compact(&mut admin, next - 1 - back).await;
                }
            }
        }
        head.send_replace(truth.states.len() as u64 - 1);
    }
    truth
}

/// What a watcher was sent: the state at some revision, and every change after it.
struct Run {
    selector: watch_target::Selector,
    base: Option<(u64, Entries)>,
    /// Without a base: everything after this revision was asked for.
    after: u64,
    /// (revision, key, value; `None` for a delete), in the order they came.
    changes: Vec<(u64, String, Option<Vec<u8>>)>,
    /// Everything up to here was delivered.
    until: u64,
}

/// Watches one selection until `stop` is set and all is seen; begins anew whenever it falls behind compaction.
async fn follow(
    server: Arc<Server>,
    mut rng: StdRng,
    mut head: watch::Receiver<u64>,
    mut done: watch::Receiver<bool>,
    compactions: Arc<AtomicU64>,
) -> Vec<Run> {
    let selector = selector(&mut rng);
    let mut runs = vec![];
    'anew: loop {
        let mut run = Run { selector: selector.clone(), base: None, after: 0, changes: vec![], until: 0 };
        let with_state = rng.random_bool(0.5);
        let mut resume =
            if with_state { 0 } else { head.borrow().saturating_sub(rng.random_range(0..50)) + 1 };
        if !with_state {
            run.after = resume - 1;
            run.until = run.after;
        }
        loop {
            let mut kv = server.kv().await;
            let target = WatchTarget {
                id: rng.random(),
                selector: Some(selector.clone()),
                start_revision: resume,
                initial_state: resume == 0,
                previous: rng.random(),
                ..Default::default()
            };
            let mut request = watching(vec![target]);
            request.progress_interval = Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 });
            let mut stream = kv.watch(request).await.unwrap().into_inner();
            let mut messages_left = rng.random_range(1..60);
            let mut fragments = vec![];
            let mut entries = Entries::new();
            loop {
                let message = match soon(stream.message()).await {
                    Ok(message) => message.unwrap(),
                    Err(status) => {
                        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
                        compactions.fetch_add(1, Ordering::Relaxed);
                        runs.push(run);
                        continue 'anew;
                    }
                };
                let revision = message.revision;
                match message.kind() {
                    Kind::Opened => assert!(resume == 0 || revision == resume - 1),
                    Kind::State => {
                        let entry = |e: v1::Entry| (e.key, (e.value.to_vec(), e.mod_revision));
                        entries.extend(message.entries.into_iter().map(entry));
                    }
                    Kind::Synced => {
                        assert!(run.base.is_none() && run.changes.is_empty());
                        run.base = Some((revision, std::mem::take(&mut entries)));
                        run.until = revision;
                    }
                    Kind::Events => {
                        for event in message.events {
                            let is_put = event.r#type() == watch_event::Type::Put;
                            let entry = event.entry.unwrap();
                            assert!(entry.mod_revision > run.until && entry.mod_revision <= revision);
                            fragments.push((
                                entry.mod_revision,
                                entry.key,
                                is_put.then(|| entry.value.to_vec()),
                            ));
                        }
                        if !message.fragment {
                            run.changes.append(&mut fragments);
                            run.until = revision;
                        }
                    }
                    Kind::Progress => {
                        assert!(revision >= run.until && fragments.is_empty());
                        run.until = revision;
                    }
                    Kind::Resync => panic!("nothing was restored"),
                    Kind::Ended | Kind::Unspecified => {}
                }
                if *done.borrow() && run.until >= *head.borrow() {
                    runs.push(run);
                    return runs;
                }
                if rng.random_ratio(1, 10) {
                    // Stalls, but not past the end.
                    let stall = Duration::from_millis(rng.random_range(1..40));
                    let _ = tokio::time::timeout(stall, done.wait_for(|done| *done)).await;
                }
                messages_left -= 1;
                if messages_left == 0 && (resume > 0 || run.base.is_some()) {
                    resume = run.until + 1;
                    drop(stream);
                    if rng.random_ratio(1, 2) {
                        let back = run.until + rng.random_range(1..60);
                        tokio::select! {
                            _ = done.wait_for(|done| *done) => {}
                            _ = head.wait_for(|head| *head >= back) => {}
                        }
                    }
                    break;
                }
                messages_left = messages_left.max(1);
            }
        }
    }
}

fn check(run: &Run, truth: &Truth) {
    let selected = |state: &Entries| -> Entries {
        state.iter().filter(|(k, _)| selects(&run.selector, k)).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let mut from = run.after.min(run.until);
    if let Some((revision, entries)) = &run.base {
        assert_eq!(*entries, selected(&truth.states[*revision as usize]), "the initial state at {revision}");
        from = *revision;
    }
    if run.until == 0 && run.base.is_none() {
        return;
    }
    let mut changes = run.changes.iter().peekable();
    let mut state = selected(&truth.states[from as usize]);
    for revision in from + 1..=run.until {
        let mut seen = std::collections::BTreeSet::new();
        while let Some((_, key, value)) = changes.next_if(|(r, ..)| *r == revision) {
            assert!(seen.insert(key), "{key} came twice at {revision}");
            match value {
                Some(value) => drop(state.insert(key.clone(), (value.clone(), revision))),
                None => assert!(state.remove(key).is_some(), "{key} was deleted at {revision} but not there"),
            }
        }
        assert_eq!(state, selected(&truth.states[revision as usize]), "at revision {revision}");
    }
    assert!(changes.next().is_none(), "a change came out of order");
}

async fn model(seed: u64, limits: Limits) {
    let mut seeds = StdRng::seed_from_u64(seed);
    let server = Arc::new(start_with(limits).await);
    let (head, heads) = watch::channel(0);
    let compactions = Arc::new(AtomicU64::new(0));
    let (finish, done) = watch::channel(false);
    let watchers: Vec<_> = (0..WATCHERS)
        .map(|_| {
            let rng = StdRng::seed_from_u64(seeds.random());
            tokio::spawn(follow(server.clone(), rng, heads.clone(), done.clone(), compactions.clone()))
        })
        .collect();
    let truth = write(&server, StdRng::seed_from_u64(seeds.random()), &head).await;
    finish.send_replace(true);
    let (mut runs, mut changes) = (0, 0);
    for watcher in watchers {
        for run in soon(watcher).await.unwrap() {
            check(&run, &truth);
            runs += 1;
            changes += run.changes.len();
        }
    }
    println!(
        "{runs} runs, {changes} changes, {} fell behind compaction",
        compactions.load(Ordering::Relaxed)
    );
    assert!(runs >= WATCHERS && changes > WATCHERS * 20);
    assert!(compactions.load(Ordering::Relaxed) > 0, "nobody fell behind compaction: the test lost its edge");
}

fn tight() -> Limits {
    Limits {
        watch_ring_batches: 16,
        watch_ring_bytes: 20_000,
        watch_batch_bytes: 500,
        watch_fragment_bytes: 4_000,
        ..Limits::default()
    }
}

#[tokio::test]
async fn on_one_runtime() {
    model(seed(), Limits::default()).await;
}

#[tokio::test]
async fn on_one_runtime_with_tight_bounds() {
    model(seed(), tight()).await;
}

/// Writers and watchers on different threads: what is published races with who registers.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn on_several_threads_with_tight_bounds() {
    model(seed(), tight()).await;
}

/// Watchers that open while writes go on miss nothing: each sees the revisions from its start on, one by one.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn opening_races_with_publishing() {
    let server = Arc::new(start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let (writing, stopped) = (server.clone(), stop.clone());
    let writer = tokio::spawn(async move {
        let mut kv = writing.kv().await;
        while !stopped.load(Ordering::Relaxed) {
            put(&mut kv, "k", "").await;
        }
    });
    let mut kv = server.kv().await;
    for round in 0..500 {
        let target = if round % 2 == 0 { watch_key(1, "k") } else { watch_prefix(1, "k") };
        let mut stream = kv.watch(watching(vec![target])).await.unwrap().into_inner();
        let mut last = soon(stream.message()).await.unwrap().unwrap().revision;
        for _ in 0..3 {
            for event in soon(stream.message()).await.unwrap().unwrap().events {
                last += 1;
                assert_eq!(event.entry.unwrap().mod_revision, last);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    soon(writer).await.unwrap();
}
