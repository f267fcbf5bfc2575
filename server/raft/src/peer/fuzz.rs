//! Random and mutated bytes for everything that decodes what another member, or the disk, says. It may refuse, but never
//! panic, and never take more memory than a few times what came in.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

use super::pb;
use crate::log::frame;
use crate::types::{
    Group, LeaderId, LogId, Member, Membership, Payload, RaftEntry, Types, decode_membership,
    encode_membership,
};

/// Inputs of each decoder.
const ROUNDS: usize = 10_000;
/// A decoder may take this many bytes for each byte that comes in: an empty Command has 4 bytes in an entry, and some 32
/// in a vector that grows by doubling, and again in the group that is made of it.
const FACTOR: u64 = 64;
/// And this many for nothing: what an error says.
const LEAST: u64 = 4 << 10;

/// What is fuzzed: a name, bytes that are whole, and what decodes them.
struct Decoder {
    name: &'static str,
    whole: fn(&mut StdRng) -> Bytes,
    decode: fn(Bytes) -> bool,
}

const DECODERS: [Decoder; 6] = [
    Decoder { name: "append", whole: |rng| append(rng).encode_to_vec().into(), decode: decode_append },
    Decoder { name: "entry", whole: |rng| frame::encode(&entry(rng, 7)), decode: decode_entry },
    Decoder {
        name: "membership",
        whole: |rng| encode_membership(&membership(rng)),
        decode: decode_and_check_membership,
    },
    Decoder {
        name: "append's answer",
        whole: |rng| answer(rng).encode_to_vec().into(),
        decode: |bytes| {
            pb::AppendResponse::decode(bytes).is_ok_and(|m| StreamAppendResult::<Types>::try_from(m).is_ok())
        },
    },
    Decoder {
        name: "vote",
        whole: |rng| vote(rng).encode_to_vec().into(),
        decode: |bytes| {
            let request = pb::VoteRequest::decode(bytes.clone());
            let response = pb::VoteResponse::decode(bytes);
            request.is_ok_and(|m| VoteRequest::<Types>::try_from(m).is_ok())
                | response.is_ok_and(|m| VoteResponse::<Types>::try_from(m).is_ok())
        },
    },
    Decoder {
        name: "transfer",
        whole: |rng| {
            let from = Some(pb::Vote { term: rng.random(), member: rng.random(), committed: true });
            pb::TransferRequest { from, to: rng.random(), last: Some(log_id(rng)) }.encode_to_vec().into()
        },
        decode: |bytes| {
            let message = pb::TransferRequest::decode(bytes);
            message.is_ok_and(|m| TransferLeaderRequest::<Types>::try_from(m).is_ok())
        },
    },
];

#[test]
fn no_bytes_make_a_decoder_panic_or_take_more_memory_than_they_are_worth() {
    let seed = match std::env::var("KONSUL_TEST_SEED") {
        Ok(seed) => seed.parse().expect("KONSUL_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("fuzz: KONSUL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for Decoder { name, whole, decode } in DECODERS {
        let mut taken = 0;
        for round in 0..ROUNDS {
            let bytes = whole(&mut rng);
            assert!(decode(bytes.clone()), "{name}, round {round}: what is whole was refused");
            let bytes = if rng.random_ratio(1, 4) { random(&mut rng) } else { mutated(&mut rng, bytes) };
            let (input, mut was_taken) = (bytes.clone(), false);
            let used = allocation_counter::measure(|| was_taken = decode(input));
            let most = LEAST + FACTOR * bytes.len() as u64;
            assert!(used.bytes_max <= most, "{name}, round {round}: {used:?} for {bytes:?}");
            taken += usize::from(was_taken);
        }
        // Otherwise nothing but the first byte is tried.
        assert!(taken > ROUNDS / 100, "{name}: only {taken} of {ROUNDS} mutated inputs got through");
    }
}

fn decode_append(bytes: Bytes) -> bool {
    let Ok(message) = pb::AppendRequest::decode(bytes) else { return false };
    let Ok(request) = AppendEntriesRequest::<Types>::try_from(message) else { return false };
    // What openraft asserts of a request rather than checks.
    if let Some(first) = request.entries.first() {
        assert_eq!(first.log_id.index, request.prev_log_id.map_or(0, |id| id.index + 1));
    }
    let memberships = request.entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some(membership),
        Payload::Blank | Payload::Normal(_) => None,
    });
    memberships.for_each(assert_votes);
    true
}

fn decode_entry(bytes: Bytes) -> bool {
    let Ok(entry) = frame::decode(&bytes) else { return false };
    let again = frame::encode(&entry);
    assert_eq!(frame::encode(&frame::decode(&again).unwrap()), again, "an entry is what it is written as");
    true
}

fn decode_and_check_membership(bytes: Bytes) -> bool {
    decode_membership(&bytes).inspect(assert_votes).is_ok()
}

/// Without a quorum openraft would take any number of votes for one.
fn assert_votes(membership: &Membership) {
    let configs = membership.get_joint_config();
    assert!(!configs.is_empty() && configs.iter().all(|voters| !voters.is_empty()));
    assert!(membership.voter_ids().all(|id| membership.get_node(&id).is_some()));
}

fn random(rng: &mut StdRng) -> Bytes {
    let mut bytes = vec![0; rng.random_range(0..300)];
    rng.fill_bytes(&mut bytes);
    bytes.into()
}

/// The same with some of its bytes changed, cut off, doubled or put in.
fn mutated(rng: &mut StdRng, bytes: Bytes) -> Bytes {
    let mut bytes = Vec::from(bytes);
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 => bytes.extend_from_within(at..),
            3 if at + 8 <= bytes.len() => {
                let number = [0, 1, u64::MAX, u64::MAX - 1, rng.random()].choose(rng).copied().unwrap();
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ => {}
        }
    }
    bytes.into()
}

fn log_id(rng: &mut StdRng) -> pb::LogId {
    pb::LogId { term: rng.random_range(1..9), leader: rng.random(), index: number(rng) }
}

/// Numbers as they are, and those at the end.
fn number(rng: &mut StdRng) -> u64 {
    match rng.random_range(0..4) {
        0 => u64::MAX - rng.random_range(0..5),
        _ => rng.random_range(0..100),
    }
}

fn append(rng: &mut StdRng) -> pb::AppendRequest {
    let previous = rng.random_bool(0.8).then(|| pb::LogId { index: rng.random_range(0..99), ..log_id(rng) });
    let first = previous.map_or(0, |id| id.index + 1);
    let entries = (first..first + rng.random_range(0..4)).map(|index| frame::encode(&entry(rng, index)));
    let entries = entries.collect();
    pb::AppendRequest {
        vote: Some(pb::Vote { term: 9, member: rng.random(), committed: true }),
        previous,
        entries,
        committed: rng.random_bool(0.5).then(|| log_id(rng)),
    }
}

fn entry(rng: &mut StdRng, index: u64) -> RaftEntry {
    let payload = match rng.random_range(0..4) {
        0 => Payload::Blank,
        1 => Payload::Membership(membership(rng)),
        _ => {
            let commands = rng.random_range(1..5);
            Payload::Normal(Group::new((0..commands).map(|_| random(rng)).collect()))
        }
    };
    let leader_id = LeaderId { term: rng.random_range(1..9), node_id: rng.random() };
    RaftEntry { log_id: LogId { leader_id, index }, payload }
}

fn membership(rng: &mut StdRng) -> Membership {
    let member = |id| Member { id, name: format!("member-{id}"), ..Member::default() };
    let members: BTreeMap<u64, Member> = (1..=rng.random_range(1..6)).map(|id| (id, member(id))).collect();
    let voters = |rng: &mut StdRng| {
        let kept = members.keys().copied().filter(|id| *id == 1 || rng.random_bool(0.7));
        kept.collect()
    };
    let configs = (0..rng.random_range(1..3)).map(|_| voters(rng)).collect();
    Membership::new(configs, members.clone()).unwrap()
}

fn answer(rng: &mut StdRng) -> pb::AppendResponse {
    use pb::append_response::{Matching, Result};
    let result = match rng.random_range(0..3) {
        0 => Result::Matching(Matching { last: rng.random_bool(0.5).then(|| log_id(rng)) }),
        1 => Result::Conflict(log_id(rng)),
        _ => Result::HigherVote(pb::Vote { term: number(rng), member: rng.random(), committed: false }),
    };
    pb::AppendResponse { result: Some(result) }
}

fn vote(rng: &mut StdRng) -> pb::VoteRequest {
    let vote = Some(pb::Vote { term: number(rng), member: rng.random(), committed: false });
    pb::VoteRequest { vote, last: Some(log_id(rng)), is_transfer: rng.random(), is_pre_vote: rng.random() }
}
