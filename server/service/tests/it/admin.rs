//! Admin: Status and Compact.

use konsul_proto::v1;
use konsul_state::propose::ProposeError;
use tonic::{Code, Request};

use crate::harness::*;

#[tokio::test]
async fn status_tells_how_the_member_is() {
    let server = start().await;
    let mut kv = server.kv().await;
    let mut admin = server.admin().await;
    put(&mut kv, "a", "1").await;
    put(&mut kv, "b", "1").await;
    delete(&mut kv, "a").await;
    compact(&mut admin, 2).await;
    let _watch = kv.watch(watching(vec![watch_prefix(1, "")])).await.unwrap();
    server.consensus.fail(Some(ProposeError::NoLeader));
    let status = admin.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.revision, status.compact_revision, status.entries), (3, 2, 1));
    assert_eq!((status.version.as_str(), status.cluster_id.as_str()), ("1.2.3", "a cluster"));
    assert_eq!((status.member_id, status.leader_id, status.term, status.applied_index), (1, 1, 1, 4));
    assert!(status.store_used_bytes > 0 && status.store_file_bytes > 0);
    assert_eq!(status.store_max_bytes, 8 << 30);
    assert_eq!((status.watch_streams, status.persistence.as_str()), (1, "memory"));
    assert!(status.start_time.is_some() && status.uptime.is_some());
    assert_eq!(status.state_hash, server.fingerprint().1);
    assert_eq!(status.state_hash.len(), 32);
}

#[tokio::test]
async fn compact_moves_the_line_and_nothing_else() {
    let server = start().await;
    let mut kv = server.kv().await;
    let mut admin = server.admin().await;
    for i in 1..=5 {
        put(&mut kv, "a", &i.to_string()).await;
    }
    let status = admin.compact(v1::CompactRequest { revision: 0 }).await.unwrap_err();
    assert_eq!(refusal(&status), invalid("revision"));
    let status = admin.compact(v1::CompactRequest { revision: 6 }).await.unwrap_err();
    assert_eq!(refusal(&status), refused(Code::OutOfRange, "REVISION_IN_FUTURE"));
    let mut request = Request::new(v1::CompactRequest { revision: 4 });
    request.metadata_mut().insert("idempotency-key", "".parse().unwrap());
    let status = admin.compact(request).await.unwrap_err();
    assert_eq!(refusal(&status), invalid("idempotency-key"));

    let done = admin.compact(v1::CompactRequest { revision: 4 }).await.unwrap().into_inner();
    assert_eq!((done.revision, done.compact_revision), (5, 4));
    soon(server.compacted.notified()).await;
    let again = admin.compact(v1::CompactRequest { revision: 2 }).await.unwrap().into_inner();
    assert_eq!((again.revision, again.compact_revision), (5, 4));
    assert_eq!(kv.get(get("a")).await.unwrap().into_inner().revision, 5);
}
