//! The leader's duties: history stays within its bounds, and its rows are reclaimed.

use std::time::Duration;

use konsul_proto::v1;
use konsul_service::Limits;
use konsul_state::propose::Standing;

use crate::harness::*;

async fn fill(kv: &mut Kv, writes: usize) {
    for i in 0..writes {
        let request =
            v1::PutRequest { key: format!("k{}", i % 10), value: vec![0; 1000].into(), ..Default::default() };
        kv.put(request).await.unwrap();
    }
}

async fn until(server: &Server, holds: impl Fn(u64, u64) -> bool) {
    soon(async {
        loop {
            let view = server.state.view().unwrap();
            if holds(view.compact_revision().0, view.history_bytes()) {
                return;
            }
            drop(view);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_compaction_reclaims_its_rows() {
    let server = start().await;
    let mut kv = server.kv().await;
    let duties = start_duties(&server, &Limits::default());
    fill(&mut kv, 3000).await;
    let before = server.state.view().unwrap().history_bytes();
    compact(&mut server.admin().await, 2990).await;
    until(&server, |_, bytes| bytes < before / 100).await;
    duties.stop().await;
}

#[tokio::test]
async fn history_at_its_greatest_size_loses_its_older_half() {
    let server = start().await;
    let mut kv = server.kv().await;
    fill(&mut kv, 1000).await;
    let bytes = server.state.view().unwrap().history_bytes();
    let limits = Limits { history_max_bytes: bytes - 1, ..Limits::default() };
    let duties = start_duties(&server, &limits);
    until(&server, |compacted, left| compacted == 500 && left < bytes * 6 / 10).await;
    duties.stop().await;
}

#[tokio::test]
async fn history_from_half_its_size_on_loses_only_what_is_old() {
    let server = start().await;
    let mut kv = server.kv().await;
    fill(&mut kv, 1000).await;
    let bytes = server.state.view().unwrap().history_bytes();
    let limits = Limits { history_max_bytes: bytes + 1, ..Limits::default() };
    let duties = start_duties(&server, &limits);
    // It compacts nothing, as nothing is old; a compaction by hand shows that it was there.
    compact(&mut server.admin().await, 1).await;
    until(&server, |compacted, left| compacted == 1 && left < bytes).await;
    duties.stop().await;
    let limits = Limits { history_min_age: Duration::ZERO, ..limits };
    let duties = start_duties(&server, &limits);
    until(&server, |compacted, left| compacted > 400 && left <= limits.history_max_bytes / 2).await;
    duties.stop().await;
}

#[tokio::test]
async fn a_follower_rests() {
    let server = start().await;
    let mut kv = server.kv().await;
    fill(&mut kv, 10).await;
    server.consensus.stand(Standing { member_id: 1, leader_id: Some(2), ..Default::default() });
    let before = server.fingerprint();
    let applied = server.state.applied();
    let duties = start_duties(&server, &Limits { history_max_bytes: 0, ..Limits::default() });
    server.compacted.notify_one();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    duties.stop().await;
    assert_eq!((server.fingerprint(), server.state.applied()), (before, applied));
}
