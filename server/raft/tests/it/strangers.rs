//! Who comes to the peer port and is no member, or is one and sends what no member would: it is refused and told nothing, and
//! nothing changes.

use bytes::Bytes;
use konsul_state::cluster::Change;
use konsul_state::propose::Propose;
use tokio_stream::iter;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::fixture::Member;
use crate::trio::{CLUSTER, NAMES, TOKEN, Trio, until};

/// What members say to each other, compiled once more: it is no part of the crate's API.
#[allow(missing_docs, dead_code, clippy::all, reason = "generated")]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/konsul.peer.rs"));
}

use pb::peer_client::PeerClient;

/// A cluster that is not there.
const OTHER: &str = "6f1c5a1e-0000-4000-8000-000000000001";

pub type Peer = PeerClient<InterceptedService<Channel, Claim>>;

/// Claims to be of a cluster, or of none.
#[derive(Clone)]
pub struct Claim(Option<String>);

impl tonic::service::Interceptor for Claim {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster) = &self.0 {
            request.metadata_mut().insert("konsul-cluster", MetadataValue::try_from(cluster).unwrap());
        }
        Ok(request)
    }
}

pub fn call(member: &Member, cluster: Option<&str>) -> Peer {
    let address = member.node.peer_address().unwrap();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    PeerClient::with_interceptor(channel, Claim(cluster.map(str::to_owned)))
}

/// One that knows the cluster's id, as only a member should.
fn call_as_member(trio: &Trio, member: &Member) -> Peer {
    call(member, Some(&trio.leader().node.cluster_id()))
}

/// The vote by which the present leader leads.
fn leaders_vote(trio: &Trio) -> pb::Vote {
    let standing = trio.leader().node.standing();
    pb::Vote { term: standing.term, member: standing.member_id, committed: true }
}

fn log_id(index: u64) -> pb::LogId {
    pb::LogId { term: 1, leader: 1, index }
}

fn is_refusal(trio: &Trio, status: &Status, code: Code) {
    assert_eq!(status.code(), code, "{status:?}");
    let told = format!("{:?}", (status.message(), status.details(), status.metadata()));
    assert!(!told.contains(&trio.leader().node.cluster_id()), "told the cluster's id: {told}");
    assert!(!NAMES.iter().any(|name| told.contains(name)), "told a member's name: {told}");
    let addresses = trio.members.iter().map(|m| m.node.peer_address().unwrap().to_string());
    assert!(!addresses.into_iter().any(|address| told.contains(&address)), "told an address: {told}");
}

/// Each call that is for members only, and how it ended.
async fn every_call_of_members(trio: &Trio, peer: &mut Peer) -> Vec<Status> {
    let append = || pb::AppendRequest { vote: Some(leaders_vote(trio)), ..Default::default() };
    let vote = pb::Vote { term: 99, member: 1, committed: false };
    let remove = pb::change_request::Change::Remove(NAMES[1].to_owned());
    let offer = offer(leaders_vote(trio), b"x");
    let chunk = pb::SnapshotChunk { offer: Some(offer.clone()), ..chunk(0, b"x") };
    vec![
        ("append", peer.append(iter([append()])).await.err()),
        ("heartbeat", peer.heartbeat(append()).await.err()),
        ("vote", peer.vote(pb::VoteRequest { vote: Some(vote), ..Default::default() }).await.err()),
        (
            "transfer",
            peer.transfer_leader(pb::TransferRequest { from: Some(vote), to: 1, last: None }).await.err(),
        ),
        ("offer", peer.offer_snapshot(offer).await.err()),
        ("snapshot", peer.send_snapshot(iter([chunk])).await.err()),
        ("propose", peer.propose(pb::ProposeRequest { commands: vec![Bytes::new()] }).await.err()),
        ("read index", peer.read_index(pb::ReadIndexRequest {}).await.err()),
        ("change", peer.change(pb::ChangeRequest { change: Some(remove) }).await.err()),
        ("hash", peer.state_hash(pb::StateHashRequest { index: 1 }).await.err()),
        ("fetch", peer.fetch_snapshot(pb::FetchSnapshotRequest {}).await.err()),
    ]
    .into_iter()
    .map(|(name, status)| status.unwrap_or_else(|| panic!("{name} was carried out")))
    .collect()
}

fn offer(vote: pb::Vote, data: &[u8]) -> pb::SnapshotOffer {
    let checksum = xxhash_rust::xxh3::xxh3_128(data).to_be_bytes().to_vec();
    let applied = Some(pb::LogId { term: vote.term, leader: vote.member, index: 1_000_000 });
    pb::SnapshotOffer {
        vote: Some(vote),
        applied,
        checksum: checksum.into(),
        bytes: data.len() as u64,
        ..Default::default()
    }
}

fn chunk(offset: u64, data: &'static [u8]) -> pb::SnapshotChunk {
    pb::SnapshotChunk { offer: None, offset, data: Bytes::from_static(data), crc: crc32fast::hash(data) }
}

#[tokio::test]
async fn whoever_names_no_cluster_or_another_one_is_refused() {
    let trio = Trio::form().await;
    let before = trio.facts().await;
    for member in &trio.members {
        for cluster in [None, Some(""), Some(OTHER), Some("not an id")] {
            for status in every_call_of_members(&trio, &mut call(member, cluster)).await {
                is_refusal(&trio, &status, Code::PermissionDenied);
            }
        }
    }
    assert_eq!(trio.facts().await, before);
    trio.go_on().await;
    trio.shutdown().await;
}

#[tokio::test]
async fn whoever_does_not_know_the_token_or_the_clusters_name_is_refused() {
    let trio = Trio::form().await;
    let before = trio.facts().await;
    let mut told = Vec::new();
    for (token, name) in
        [("", CLUSTER), ("another token", CLUSTER), (&TOKEN[1..], CLUSTER), (TOKEN, "other"), (TOKEN, "")]
    {
        let (token, cluster_name) = (token.to_owned(), name.to_owned());
        let newcomer = Some(pb::Member {
            id: 7,
            name: "new".into(),
            peer_address: "127.0.0.1:1".into(),
            ..Default::default()
        });
        for member in &trio.members {
            let mut peer = call(member, None);
            let (token, cluster_name) = (token.clone(), cluster_name.clone());
            let hello =
                pb::HelloRequest { token: token.clone(), cluster_name: cluster_name.clone(), server: None };
            let adopt = pb::AdoptRequest {
                token: token.clone(),
                cluster_name: cluster_name.clone(),
                cluster_id: OTHER.into(),
            };
            let join = pb::JoinRequest {
                token,
                cluster_name,
                member: newcomer.clone(),
                cluster_id: String::new(),
                hops: 0,
            };
            for status in [
                peer.hello(hello).await.expect_err("hello was answered"),
                peer.adopt(adopt).await.expect_err("adopt was carried out"),
                peer.join(join).await.expect_err("join was carried out"),
            ] {
                is_refusal(&trio, &status, Code::PermissionDenied);
                told.push(status.message().to_owned());
            }
        }
    }
    told.dedup();
    assert_eq!(told.len(), 1, "it can be told which of the two is wrong: {told:?}");
    assert_eq!(trio.facts().await, before);
    trio.go_on().await;
    trio.shutdown().await;
}

#[tokio::test]
async fn a_member_of_another_cluster_is_not_taken_in_and_does_not_take_over() {
    let trio = Trio::form().await;
    let before = trio.facts().await;
    let whole = pb::Member {
        id: 7,
        name: "new".into(),
        peer_address: "127.0.0.1:1".into(),
        format: konsul_state::command::FORMAT,
        ..Default::default()
    };
    let long = "x".repeat(1_000);
    let joins = [
        ("of another cluster", OTHER, Some(whole.clone()), Code::FailedPrecondition),
        (
            "of an older version",
            "",
            Some(pb::Member { format: 0, ..whole.clone() }),
            Code::FailedPrecondition,
        ),
        ("nobody", "", None, Code::InvalidArgument),
        ("no id", "", Some(pb::Member { id: 0, ..whole.clone() }), Code::InvalidArgument),
        ("no name", "", Some(pb::Member { name: String::new(), ..whole.clone() }), Code::InvalidArgument),
        ("long name", "", Some(pb::Member { name: long.clone(), ..whole.clone() }), Code::InvalidArgument),
        (
            "no address",
            "",
            Some(pb::Member { peer_address: "nowhere".into(), ..whole.clone() }),
            Code::InvalidArgument,
        ),
        ("long version", "", Some(pb::Member { version: long, ..whole.clone() }), Code::InvalidArgument),
    ];
    for member in &trio.members {
        let mut peer = call(member, Some(OTHER));
        for (what, cluster, joining, code) in &joins {
            let request = pb::JoinRequest {
                token: TOKEN.into(),
                cluster_name: CLUSTER.into(),
                member: joining.clone(),
                cluster_id: (*cluster).to_owned(),
                hops: 0,
            };
            let status = peer.join(request).await.expect_err(what);
            is_refusal(&trio, &status, *code);
        }
        let adopt =
            pb::AdoptRequest { token: TOKEN.into(), cluster_name: CLUSTER.into(), cluster_id: OTHER.into() };
        let status = peer.adopt(adopt).await.expect_err("it was adopted");
        is_refusal(&trio, &status, Code::FailedPrecondition);
    }
    assert_eq!(trio.facts().await, before);
    trio.go_on().await;
    trio.shutdown().await;
}

/// What no leader sends, in the name of the present one.
fn malformed(trio: &Trio) -> Vec<(&'static str, pb::AppendRequest)> {
    let append = |previous: Option<u64>, entries: &[&[u8]]| pb::AppendRequest {
        vote: Some(leaders_vote(trio)),
        previous: previous.map(log_id),
        entries: entries.iter().map(|entry| Bytes::copy_from_slice(entry)).collect(),
        committed: Some(log_id(1_000_000)),
    };
    let nameless = pb::membership::Config { voters: vec![1] };
    let membership =
        |configs| prost::Message::encode_to_vec(&pb::Membership { configs, members: Vec::new() });
    vec![
        ("no vote", pb::AppendRequest { vote: None, ..append(None, &[]) }),
        ("an empty entry", append(Some(7), &[b""])),
        ("half a head", append(Some(7), &[&entry(0, 8, b"")[..20]])),
        ("an unknown kind", append(Some(7), &[&entry(9, 8, b"")])),
        ("a Command that is cut off", append(Some(7), &[&entry(2, 8, &[200, 0, 0, 0, 1])])),
        ("a Command of 4 GiB", append(Some(7), &[&entry(2, 8, &[255; 8])])),
        ("a membership of nothing", append(Some(7), &[&entry(1, 8, &membership(vec![]))])),
        (
            "a membership without voters",
            append(Some(7), &[&entry(1, 8, &membership(vec![Default::default()]))]),
        ),
        ("a voter that is no member", append(Some(7), &[&entry(1, 8, &membership(vec![nameless]))])),
        ("an entry that is left out", append(Some(7), &[&entry(0, 8, b""), &entry(0, 10, b"")])),
        ("an entry twice", append(Some(7), &[&entry(0, 8, b""), &entry(0, 8, b"")])),
        ("no first entry", append(None, &[&entry(0, 8, b"")])),
        ("an entry after the last there can be", append(Some(u64::MAX), &[&entry(0, 0, b"")])),
    ]
}

/// An entry's bytes (`log/frame.rs`).
fn entry(kind: u8, index: u64, body: &[u8]) -> Vec<u8> {
    let numbers = [1u64, 1, index].map(u64::to_le_bytes).concat();
    [&[kind], &numbers[..], body].concat()
}

#[tokio::test]
async fn a_malformed_append_is_refused_and_the_stream_ends_with_it() {
    let trio = Trio::form().await;
    let before = trio.facts().await;
    for (what, request) in malformed(&trio) {
        let mut peer = call_as_member(&trio, trio.follower());
        let status = peer.heartbeat(request.clone()).await.expect_err(what);
        is_refusal(&trio, &status, Code::InvalidArgument);

        let mut answers = peer.append(iter([request.clone(), request])).await.unwrap().into_inner();
        let status = answers.message().await.expect_err(what);
        is_refusal(&trio, &status, Code::InvalidArgument);
    }
    assert_eq!(trio.facts().await, before);
    trio.go_on().await;
    trio.shutdown().await;
}

#[tokio::test]
async fn an_append_of_a_leader_that_was_is_refused() {
    let trio = Trio::form().await;
    let old = leaders_vote(&trio);
    let was = trio.leader().node.clone();
    was.change(Change::Transfer(None)).await.unwrap();
    let leads = |m: &Member| m.node.standing().leader_id.is_some_and(|id| id != old.member);
    until(|| trio.members.iter().all(leads)).await;
    trio.go_on().await;
    let before = trio.facts().await;
    let replayed = pb::AppendRequest {
        vote: Some(old),
        previous: None,
        entries: vec![entry(0, 0, b"").into(), entry(0, 1, b"").into()],
        committed: Some(log_id(1)),
    };
    for member in &trio.members {
        let mut peer = call_as_member(&trio, member);
        let answer = peer.heartbeat(replayed.clone()).await.unwrap().into_inner();
        let mut answers = peer.append(iter([replayed.clone()])).await.unwrap().into_inner();
        for answer in [Some(answer), answers.message().await.unwrap()] {
            let higher = answer.unwrap().result.unwrap();
            assert!(
                matches!(higher, pb::append_response::Result::HigherVote(vote) if vote.term > old.term),
                "{higher:?}"
            );
        }
        let asked =
            pb::VoteRequest { vote: Some(pb::Vote { committed: false, ..old }), ..Default::default() };
        assert!(!peer.vote(asked).await.unwrap().into_inner().granted);
    }
    assert_eq!(trio.facts().await, before);
    trio.go_on().await;
    trio.shutdown().await;
}

#[tokio::test]
async fn what_is_no_snapshot_is_not_installed() {
    let trio = Trio::form().await;
    let before = trio.facts().await;
    let mut peer = call_as_member(&trio, trio.follower());
    let vote = leaders_vote(&trio);
    let good = offer(vote, b"abcdef");

    let oversized = pb::SnapshotOffer { bytes: 1 << 40, ..good.clone() };
    for bytes in [1 << 40, u64::MAX] {
        let oversized = pb::SnapshotOffer { bytes, ..good.clone() };
        is_refusal(&trio, &peer.offer_snapshot(oversized).await.unwrap_err(), Code::ResourceExhausted);
    }
    for (what, malformed) in [
        ("no vote", pb::SnapshotOffer { vote: None, ..good.clone() }),
        ("no position", pb::SnapshotOffer { applied: None, ..good.clone() }),
        ("half a checksum", pb::SnapshotOffer { checksum: Bytes::from_static(b"half"), ..good.clone() }),
        (
            "nobody votes",
            pb::SnapshotOffer {
                membership_at: Some(log_id(1)),
                membership: Some(Default::default()),
                ..good.clone()
            },
        ),
    ] {
        let status = peer.offer_snapshot(malformed).await.expect_err(what);
        is_refusal(&trio, &status, Code::InvalidArgument);
    }

    let begin = |chunk| pb::SnapshotChunk { offer: Some(good.clone()), ..chunk };
    let damaged = pb::SnapshotChunk { crc: 7, ..chunk(0, b"abcdef") };
    let other = pb::SnapshotChunk { offer: Some(offer(vote, b"ghijkl")), ..chunk(0, b"abcdef") };
    let sent = [
        ("nothing", vec![], Code::InvalidArgument),
        ("no offer", vec![chunk(0, b"abcdef")], Code::InvalidArgument),
        (
            "oversized",
            vec![pb::SnapshotChunk { offer: Some(oversized), ..chunk(0, b"a") }],
            Code::ResourceExhausted,
        ),
        ("a wrong CRC", vec![begin(damaged.clone())], Code::DataLoss),
        ("a wrong offset", vec![begin(chunk(3, b"def"))], Code::OutOfRange),
        ("an offset that wraps", vec![begin(chunk(u64::MAX, b"abcdef"))], Code::OutOfRange),
        (
            "a wrong CRC later",
            vec![begin(chunk(0, b"abc")), pb::SnapshotChunk { offset: 3, ..damaged }],
            Code::DataLoss,
        ),
        ("the same piece twice", vec![begin(chunk(3, b"d")), chunk(3, b"d")], Code::OutOfRange),
        ("too much", vec![begin(chunk(4, b"efgh"))], Code::Internal),
        ("too little", vec![begin(chunk(4, b"e"))], Code::DataLoss),
        ("another checksum", vec![other], Code::DataLoss),
    ];
    for (what, chunks, code) in sent {
        let status = peer.send_snapshot(iter(chunks)).await.expect_err(what);
        is_refusal(&trio, &status, code);
    }

    // It is whole, but whoever sends it does not lead any more.
    let late = pb::Vote { term: vote.term - 1, ..vote };
    let whole = pb::SnapshotChunk { offer: Some(offer(late, b"abcdef")), ..chunk(0, b"abcdef") };
    let answer = peer.send_snapshot(iter([whole])).await.unwrap().into_inner();
    assert_eq!(answer.vote.unwrap().term, vote.term);

    assert_eq!(trio.facts().await, before);
    trio.go_on().await;
    trio.shutdown().await;
}
