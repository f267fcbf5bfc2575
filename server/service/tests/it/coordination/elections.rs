//! Who leads, and who is told.

use konsul_proto::v1;

use super::{reason, with_duties};
use crate::harness::{refusal, soon};

#[tokio::test]
async fn an_election_is_won_observed_and_resigned() {
    let mut c = with_duties().await;
    let (a, b) = (c.grant(60_000).await, c.grant(60_000).await);
    let campaign = |lease, value: &'static str| v1::CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
        ..Default::default()
    };
    let observe = v1::ObserveRequest { name: "e".into(), ..Default::default() };
    let mut observed = c.election.observe(observe).await.unwrap().into_inner();
    let mut next = async || {
        let told = soon(observed.message()).await.unwrap().unwrap();
        told.leader.map(|leader| String::from_utf8(leader.value.to_vec()).unwrap())
    };
    assert_eq!(next().await, None);
    let won = c.election.campaign(campaign(a, "a:1")).await.unwrap().into_inner();
    assert_eq!(next().await.as_deref(), Some("a:1"));
    let mut client = c.election.clone();
    let second = tokio::spawn(async move { client.campaign(campaign(b, "b:1")).await });
    let proclaim = |lease, token| v1::ProclaimRequest {
        name: "e".into(),
        lease,
        token,
        value: "a:2".into(),
        ..Default::default()
    };
    c.election.proclaim(proclaim(a, won.token)).await.unwrap();
    assert_eq!(next().await.as_deref(), Some("a:2"));
    assert_eq!(reason(c.election.proclaim(proclaim(b, 0)).await), "LOCK_NOT_HELD");
    let leader = v1::LeaderRequest { name: "e".into(), ..Default::default() };
    let leader = c.election.leader(leader).await.unwrap().into_inner().leader.unwrap();
    assert_eq!((leader.lease, leader.token), (a, won.token));
    let resign = v1::ResignRequest { name: "e".into(), lease: a, ..Default::default() };
    c.election.resign(resign.clone()).await.unwrap();
    assert!(soon(second).await.unwrap().unwrap().into_inner().token > won.token);
    assert_eq!(next().await.as_deref(), Some("b:1"));
    assert_eq!(reason(c.election.resign(resign).await), "LOCK_NOT_HELD");
    c.server.readers.stop();
    let end = soon(observed.message()).await.unwrap_err();
    assert_eq!(refusal(&end).reason, "SHUTTING_DOWN");
}
