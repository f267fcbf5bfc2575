//! Watching in numbers: many watchers, slow ones, and what they cost.

use konsul_proto::v1::watch_response::Kind;
use konsul_proto::v1::{self, WatchTarget};
use konsul_service::Limits;
use tonic::Code;

use crate::harness::*;

#[tokio::test]
async fn ten_thousand_watchers_each_hear_of_their_own_key() {
    let server = start().await;
    let mut kv = server.kv().await;
    let mut streams = vec![];
    for i in 0..10_000 {
        if i % 500 == 0 {
            kv = server.kv().await;
        }
        let mut stream = kv.watch(watching(vec![watch_key(1, &format!("k{i}"))])).await.unwrap().into_inner();
        assert_eq!(soon(stream.message()).await.unwrap().unwrap().kind(), Kind::Opened);
        streams.push(stream);
    }
    let stats = server.hub.stats();
    assert_eq!((stats.streams, stats.targets), (10_000, 10_000));
    for from in (0..10_000).step_by(250) {
        let put = |i: usize| v1::PutOperation {
            key: format!("k{}", from + i),
            value: format!("v{}", from + i).into(),
            ..Default::default()
        };
        kv.batch_put(v1::BatchPutRequest { puts: (0..250).map(put).collect(), ..Default::default() })
            .await
            .unwrap();
    }
    for (i, stream) in streams.iter_mut().enumerate() {
        let message = soon(stream.message()).await.unwrap().unwrap();
        assert_eq!(message.events.len(), 1);
        assert_eq!(message.events[0].entry.as_ref().unwrap().value, format!("v{i}"));
    }
    assert_eq!(server.hub.stats().events_sent, 10_000);
    drop(streams);
    soon(async {
        while server.hub.stats().streams > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.hub.stats().targets, 0);
}

/// A reader that takes nothing while 100,000 writes happen.
async fn stalled_reader(compacting: bool) {
    let limits = Limits { watch_ring_bytes: 100_000, watch_ring_batches: 1_000, ..Limits::default() };
    let server = start_with(limits).await;
    let mut kv = server.kv().await;
    let mut reader = server.kv().await;
    let target = WatchTarget { start_revision: 1, ..watch_prefix(1, "") };
    let mut stream = reader.watch(watching(vec![target])).await.unwrap().into_inner();
    let value = "v".repeat(100);
    let writes: u64 = 100_000;
    // Straight to consensus: this is about the hub.
    for i in 1..=writes {
        use konsul_state::command::{Command, FORMAT, KvOperation, KvPut, KvTxn, command, kv_operation};
        use konsul_state::propose::Propose;
        let put = KvPut { key: format!("k{}", i % 1000), value: value.clone().into(), ..Default::default() };
        let then = vec![KvOperation { op: Some(kv_operation::Op::Put(put)) }];
        let op = Some(command::Op::Kv(KvTxn { namespace: "default".into(), then, ..Default::default() }));
        server.consensus.propose(Command { format: FORMAT, op, ..Default::default() }).await.unwrap();
        if i % 1000 == 0 {
            let stats = server.hub.stats();
            assert!(stats.ring_bytes <= 100_000 && stats.ring_batches <= 1_000, "{stats:?}");
            assert!(
                server.hub.stats().events_sent < writes / 2,
                "the reader holds nothing up and is sent nothing"
            );
            tokio::task::yield_now().await;
        }
    }
    put(&mut kv, "last", "").await;
    if compacting {
        compact(&mut server.admin().await, writes).await;
    }
    let mut seen = 0;
    loop {
        match soon(stream.message()).await {
            Ok(Some(message)) => {
                for event in &message.events {
                    seen += 1;
                    assert_eq!(
                        event.entry.as_ref().unwrap().mod_revision,
                        seen,
                        "each change once, in order"
                    );
                }
            }
            Ok(None) => panic!("the stream ended without saying why"),
            Err(status) => {
                assert!(compacting && seen < writes);
                assert_eq!(refusal(&status), refused(Code::OutOfRange, "REVISION_COMPACTED"));
                return;
            }
        }
        if seen == writes + 1 {
            assert!(!compacting);
            return;
        }
    }
}

#[tokio::test]
async fn a_stalled_reader_costs_no_memory_and_misses_nothing() {
    stalled_reader(false).await;
}

#[tokio::test]
async fn a_stalled_reader_behind_compaction_is_told() {
    stalled_reader(true).await;
}
