//! Several members in one process, over loopback: forming, joining, forwarding, snapshots, divergence. What kills or cuts
//! off processes is tested elsewhere, with real ones.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_raft::{PeerSettings, RaftError, Role, Settings};
use konsul_state::cluster::{Change, ChangeError, MemberRole};
use konsul_state::propose::{Propose, ProposeError};
use konsul_state::store::{Entry, Payload, StoreOptions, open};
use konsul_state::{CommandGroup, Durability, LogPosition, Persistence};

use crate::faults::FaultyDisk;
use crate::fixture::{Member, put, settings};
use crate::strangers::{call, pb};

/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(30);

/// Settings of a member that finds others at `join`.
fn peer(dir: &Path, name: &str, expect: u32, join: &[&Member]) -> Settings {
    let addresses = join.iter().map(|member| member.node.peer_address().unwrap().to_string()).collect();
    Settings {
        member_name: Some(name.to_owned()),
        peers: Some(PeerSettings {
            cluster_name: "test".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            client_address: String::new(),
            bootstrap_expect: expect,
            join: addresses,
            token: "secret".to_owned(),
            role: Role::Voter,
            tls: None,
            replace_dead_after: None,
            version: "1".to_owned(),
        }),
        snapshot_min_bytes: 2 << 20,
        log_keep_bytes: 1 << 20,
        ..settings(dir)
    }
}

/// Waits until something is so, looking often; nothing tells when it is.
async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < LIMIT, "{what} has not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn voters(member: &Member) -> usize {
    member.node.members().iter().filter(|m| m.role == MemberRole::Voter).count()
}

fn leads(member: &Member) -> bool {
    let standing = member.node.standing();
    standing.leader_id == Some(standing.member_id)
}

async fn all_voters(members: &[Member], count: usize) {
    until("every member is a voter", || async { members.iter().all(|member| voters(member) == count) }).await;
    until("one leads", || async { members.iter().filter(|member| leads(member)).count() == 1 }).await;
}

/// Three members, made together; the directories live as long as they are kept.
async fn three() -> (Vec<tempfile::TempDir>, Vec<Member>) {
    three_with(Durability::Log).await
}

async fn three_with(durability: Durability) -> (Vec<tempfile::TempDir>, Vec<Member>) {
    three_on([FaultyDisk::new(), FaultyDisk::new(), FaultyDisk::new()], durability).await
}

async fn three_on(
    disks: [Arc<FaultyDisk>; 3],
    durability: Durability,
) -> (Vec<tempfile::TempDir>, Vec<Member>) {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let settings = |n: usize, name, join: &[&Member]| {
        let disk = disks[n].clone();
        Settings { durability, disk, ..peer(dirs[n].path(), name, 3, join) }
    };
    let first = Member::open(settings(0, "a", &[])).await.unwrap();
    let second = Member::open(settings(1, "b", &[&first])).await.unwrap();
    let third = Member::open(settings(2, "c", &[&first])).await.unwrap();
    let members = vec![first, second, third];
    all_voters(&members, 3).await;
    (dirs, members)
}

async fn stop(members: Vec<Member>) {
    for member in &members {
        member.node.shutdown().await;
    }
}

#[tokio::test]
async fn servers_that_see_each_other_make_one_cluster_and_any_takes_any_call() {
    let (_dirs, members) = three().await;
    let cluster = members[0].node.cluster_id();
    assert!(!cluster.is_empty());
    assert!(members.iter().all(|member| member.node.cluster_id() == cluster));
    for (n, member) in members.iter().enumerate() {
        assert_eq!(member.put(&format!("key-{n}"), "value").await, Ok(n as u64 + 1));
        // What was written through a member is there to be read at once, without a barrier.
        assert_eq!(member.get_stale(&format!("key-{n}")), Some("value".to_owned()));
    }
    for member in &members {
        assert_eq!(member.get("key-2").await, Some("value".to_owned()));
        assert_eq!(member.hash(), members[0].hash());
    }
    stop(members).await;
}

async fn nobody_is_answered_too_early(leader: &Member, follower: &Member) {
    let (short, long) = (Duration::from_millis(300), Duration::from_secs(10));

    // A majority has it and the leader answers, but this follower has not got so far.
    follower.sink.hold(true);
    leader.put("key", "new").await.unwrap();
    let mut read = std::pin::pin!(follower.get("key"));
    let mut write = std::pin::pin!(follower.put("other", "value"));
    assert!(
        tokio::time::timeout(short, &mut read).await.is_err(),
        "a read did not wait for what was acknowledged before"
    );
    assert!(
        tokio::time::timeout(short, &mut write).await.is_err(),
        "a write was answered before it was published here"
    );
    follower.sink.hold(false);
    assert_eq!(tokio::time::timeout(long, read).await.unwrap(), Some("new".to_owned()));
    assert_eq!(tokio::time::timeout(long, write).await.unwrap(), Ok(3));

    leader.sink.hold(true);
    let mut write = std::pin::pin!(leader.put("other", "more"));
    assert!(
        tokio::time::timeout(short, &mut write).await.is_err(),
        "a write was answered before it was published"
    );
    leader.sink.hold(false);
    assert_eq!(tokio::time::timeout(long, write).await.unwrap(), Ok(4));
}

#[tokio::test]
async fn nobody_is_answered_before_it_is_published_where_he_asked() {
    let (_dirs, members) = three_with(Durability::Synced).await;
    members[0].put("key", "old").await.unwrap();
    let find = |is_leader| members.iter().find(|member| leads(member) == is_leader).unwrap();
    nobody_is_answered_too_early(find(true), find(false)).await;
    stop(members).await;
}

#[tokio::test]
async fn a_member_applies_nothing_that_its_own_log_has_not_on_disk() {
    let disk = FaultyDisk::new();
    let disks = [FaultyDisk::new(), FaultyDisk::new(), disk.clone()];
    let (_dirs, members) = three_on(disks, Durability::Log).await;
    members[0].node.change(Change::Transfer(Some("a".to_owned()))).await.unwrap();
    members[2].put("key", "old").await.unwrap();
    disk.hold_syncs(true);
    // The two others are a majority.
    members[0].put("key", "new").await.unwrap();
    let mut read = Box::pin(members[2].get("key"));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut read).await;
    assert_eq!((early.ok(), members[2].get_stale("key")), (None, Some("old".to_owned())));
    disk.hold_syncs(false);
    assert_eq!((&mut read).await, Some("new".to_owned()));
    drop(read);
    stop(members).await;
}

#[tokio::test]
async fn a_member_that_has_a_leader_and_no_entry_yet_serves_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(peer(dir.path(), "a", 0, &[])).await.unwrap();
    let cluster = "6f1c5a1e-0000-4000-8000-000000000001".to_owned();
    let adopt = pb::AdoptRequest {
        token: "secret".to_owned(),
        cluster_name: "test".to_owned(),
        cluster_id: cluster.clone(),
    };
    call(&member, None).adopt(adopt).await.unwrap();
    let vote = Some(pb::Vote { term: 1, member: 7, committed: true });
    let heartbeat = pb::AppendRequest { vote, ..pb::AppendRequest::default() };
    call(&member, Some(&cluster)).heartbeat(heartbeat).await.unwrap();
    stop(vec![member]).await;
    let opening = Member::open(peer(dir.path(), "a", 0, &[]));
    let member = tokio::time::timeout(LIMIT, opening).await.expect("it does not open").unwrap();
    assert_eq!(member.node.standing().term, 1);
    stop(vec![member]).await;
}

#[tokio::test]
async fn a_server_joins_becomes_a_voter_and_is_removed() {
    let (_dirs, mut members) = three().await;
    members[1].put("before", "value").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let fourth = Member::open(peer(dir.path(), "d", 0, &[&members[2]])).await.unwrap();
    members.push(fourth);
    all_voters(&members, 4).await;
    assert_eq!(members[3].get("before").await, Some("value".to_owned()));
    assert_eq!(members[3].put("after", "value").await, Ok(2));

    members[0].node.change(Change::Demote("d".to_owned())).await.unwrap();
    until("it does not vote", || async { voters(&members[1]) == 3 }).await;
    members[2].node.change(Change::Promote("d".to_owned())).await.unwrap();
    until("it votes", || async { voters(&members[1]) == 4 }).await;
    members[3].node.change(Change::Remove("d".to_owned())).await.unwrap();
    until("it is gone", || async { members[0].node.members().len() == 3 }).await;
    until("it knows", || async { members[3].node.unfit() == Some(ProposeError::Removed) }).await;
    assert_eq!(members[3].put("key", "value").await, Err(ProposeError::Removed));
    let refused = members[0].node.change(Change::Remove("d".to_owned())).await;
    assert!(matches!(refused, Err(ChangeError::NoSuchMember(_))), "{refused:?}");
    stop(members).await;
}

#[tokio::test]
async fn leadership_is_handed_over_to_whom_one_names() {
    let (_dirs, members) = three().await;
    for name in ["b", "c", "a"] {
        members[0].node.change(Change::Transfer(Some(name.to_owned()))).await.unwrap();
        let index = (name.as_bytes()[0] - b'a') as usize;
        until("it leads", || async { leads(&members[index]) }).await;
        members[1].put("key", name).await.unwrap();
    }
    stop(members).await;
}

#[tokio::test]
async fn a_member_that_stops_is_not_waited_for_and_comes_back_elsewhere() {
    let (dirs, mut members) = three().await;
    let at = members.iter().position(leads).unwrap();
    let leader = members.remove(at);
    let name = ["a", "b", "c"][at];
    let began = Instant::now();
    leader.node.shutdown().await;
    drop(leader);
    members[0].put("key", "while it was away").await.unwrap();
    assert!(began.elapsed() < LIMIT);
    // Its port is another one now.
    let back = Member::open(peer(dirs[at].path(), name, 3, &[])).await.unwrap();
    assert_eq!(back.get("key").await, Some("while it was away".to_owned()));
    let address = back.node.peer_address().unwrap().to_string();
    let knows = |member: &Member| member.node.members().iter().any(|m| m.peer_address == address);
    until("the others know where it is", || async { members.iter().all(knows) }).await;
    members.push(back);
    stop(members).await;
}

#[tokio::test]
async fn a_member_far_behind_gets_a_snapshot() {
    let (_dirs, mut members) = three().await;
    let dir = tempfile::tempdir().unwrap();
    for member in &members {
        assert!(voters(member) == 3);
    }
    let value = "x".repeat(200_000);
    // More than the log keeps behind a snapshot.
    for n in 0..60 {
        members[n % 3].put(&format!("key-{}", n % 7), &value).await.unwrap();
    }
    until("a snapshot was made and the log purged", || async {
        members.iter().all(|m| m.node.stats().snapshots.load(std::sync::atomic::Ordering::Relaxed) > 0)
    })
    .await;
    let fourth = Member::open(peer(dir.path(), "d", 0, &[&members[0]])).await.unwrap();
    members.push(fourth);
    all_voters(&members, 4).await;
    assert_eq!(members[3].get("key-3").await, Some(value));
    until("all are equal", || async { members.iter().all(|m| m.hash() == members[0].hash()) }).await;
    stop(members).await;
}

#[tokio::test]
async fn a_member_whose_state_differs_stops_serving_and_takes_the_others() {
    let (dirs, mut members) = three().await;
    for n in 0..5 {
        members[0].put("key", &format!("value-{n}")).await.unwrap();
    }
    let at = members.iter().position(|member| !leads(member)).unwrap();
    let name = ["a", "b", "c"][at];
    until("all have applied all", || async {
        members.iter().all(|m| m.state.applied() == members[0].state.applied())
    })
    .await;
    let follower = members.remove(at);
    let position = follower.state.applied();
    follower.node.shutdown().await;
    drop(follower);
    forge(dirs[at].path(), position);

    let settings = peer(dirs[at].path(), name, 3, &[&members[0]]);
    let wrong = Member::open(settings).await.unwrap();
    let divergences = || wrong.node.stats().divergences.load(std::sync::atomic::Ordering::Relaxed);
    // Entries make hashes, and these are compared. What is written while it takes the others' state is in that state, and comes to
    // it as entries too.
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let node = members[0].node.clone();
            tokio::spawn(async move { while node.propose(put("key", "another")).await.is_ok() {} })
        })
        .collect();
    until("it is found out", || async { divergences() > 0 }).await;
    until("it serves again", || async {
        wrong.node.unfit().is_none() && wrong.node.read_barrier().await.is_ok()
    })
    .await;
    for writer in writers {
        writer.abort();
        assert!(writer.await.unwrap_err().is_cancelled(), "a write was refused");
    }
    assert_eq!(wrong.get("key").await, Some("another".to_owned()));
    assert_eq!(wrong.get("forged").await, None);
    members[0].put("key", "last").await.unwrap();
    assert_eq!(wrong.get("key").await, Some("last".to_owned()));
    assert_eq!(wrong.hash(), members[0].hash());
    assert_eq!(divergences(), 1);
    members.push(wrong);
    stop(members).await;
}

/// Puts a state into a data directory that was never agreed on, up to the same position of the log.
fn forge(dir: &Path, position: LogPosition) {
    let options = StoreOptions {
        dir: dir.join("state"),
        map_bytes: 1 << 30,
        persistence: Persistence::Lmdb,
        durability: Durability::Log,
        boot_id: "this boot".to_owned(),
    };
    let (_, real, _) = open(options.clone()).unwrap();
    let (at, membership) = real.membership().unwrap().unwrap();
    real.close().unwrap();
    std::fs::remove_dir_all(&options.dir).unwrap();
    let (_, mut writer, _) = open(options).unwrap();
    let mut apply = |position, payload| drop(writer.apply(vec![Entry { position, payload }]).unwrap());
    apply(at, Payload::Membership(membership));
    for index in at.index + 1..position.index {
        apply(LogPosition { index, ..position }, Payload::Blank);
    }
    apply(position, Payload::Commands(CommandGroup { commands: vec![put("forged", "value")] }));
    writer.close().unwrap();
}

#[tokio::test]
async fn a_server_that_was_alone_grows_into_a_cluster() {
    let (one, two, three) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let alone = Member::open(settings(one.path())).await.unwrap();
    let name = alone.node.members()[0].name.clone();
    alone.put("key", "from before").await.unwrap();
    alone.node.shutdown().await;
    drop(alone);

    let first = Member::open(peer(one.path(), &name, 1, &[])).await.unwrap();
    assert_eq!(first.get("key").await, Some("from before".to_owned()));
    // One is told to join by a command, the other by its settings.
    let second = Member::open(peer(two.path(), "b", 2, &[])).await.unwrap();
    let address = first.node.peer_address().unwrap().to_string();
    second.node.change(Change::Join(vec![address.clone()])).await.unwrap();
    let third = Member::open(peer(three.path(), "c", 0, &[&first])).await.unwrap();
    let members = vec![first, second, third];
    all_voters(&members, 3).await;
    assert_eq!(members[2].get("key").await, Some("from before".to_owned()));
    assert!(members.iter().all(|member| member.node.cluster_id() == members[0].node.cluster_id()));
    let refused = members[1].node.change(Change::Join(vec![address])).await;
    assert!(matches!(refused, Err(ChangeError::Refused(_))), "{refused:?}");
    stop(members).await;
}

#[tokio::test]
async fn who_must_not_join_is_refused() {
    let (dirs, members) = three().await;
    let before = members[0].node.members();
    let waits =
        |member: &Member| member.node.standing().leader_id.is_none() && member.node.members().is_empty();

    // A wrong token, and another cluster's name.
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = peer(one.path(), "x", 0, &[&members[0]]);
    settings.peers.as_mut().unwrap().token = "guess".to_owned();
    let guesser = Member::open(settings).await.unwrap();
    let mut settings = peer(two.path(), "y", 0, &[&members[0]]);
    settings.peers.as_mut().unwrap().cluster_name = "other".to_owned();
    let stranger = Member::open(settings).await.unwrap();
    // A name that is taken, with another data directory.
    let three = tempfile::tempdir().unwrap();
    let wiped = Member::open(peer(three.path(), "b", 0, &[&members[0]])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(waits(&guesser) && waits(&stranger) && waits(&wiped));
    assert_eq!(members[0].node.members().len(), before.len());

    // A copy of a data directory whose owner runs.
    let copy = tempfile::tempdir().unwrap();
    let leader = members.iter().position(leads).unwrap();
    std::fs::copy(dirs[leader].path().join("VERSION"), copy.path().join("VERSION")).unwrap();
    let status = std::process::Command::new("cp")
        .arg("-r")
        .args(["log", "state"].map(|name| dirs[leader].path().join(name)))
        .arg(copy.path())
        .status();
    assert!(status.unwrap().success());
    let name = ["a", "b", "c"][leader];
    let refused = Member::open(peer(copy.path(), name, 0, &[&members[0]])).await.err().unwrap();
    assert!(matches!(refused, RaftError::RunsElsewhere { .. }), "{refused}");
    stop(vec![guesser, stranger, wiped]).await;
    stop(members).await;
}
