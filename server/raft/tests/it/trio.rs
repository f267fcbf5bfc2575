//! Three members on loopback, in one process, and what an outsider can see of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use konsul_raft::{PeerSettings, Role, Settings};
use konsul_state::cluster::MemberRole;
use konsul_state::propose::Propose;
use tempfile::TempDir;

use crate::fixture::{Member, settings};

pub const CLUSTER: &str = "trio";
pub const TOKEN: &str = "a token of this cluster";
pub const NAMES: [&str; 3] = ["kestrel", "merlin", "osprey"];
const LIMIT: Duration = Duration::from_secs(30);

/// Three members.
pub struct Trio {
    pub members: Vec<Member>,
    _dirs: Vec<TempDir>,
}

/// What must be the same before and after an attack.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    members: Vec<konsul_state::cluster::Member>,
    states: Vec<(String, u64)>,
    terms: Vec<u64>,
    leaders: Vec<Option<u64>>,
}

/// How a member is opened that finds others at `join`, or makes a cluster of its own.
pub fn member_settings(dir: &Path, name: &str, join: &[SocketAddr]) -> Settings {
    let peers = PeerSettings {
        cluster_name: CLUSTER.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        client_address: String::new(),
        bootstrap_expect: u32::from(join.is_empty()),
        join: join.iter().map(ToString::to_string).collect(),
        token: TOKEN.to_owned(),
        role: Role::Voter,
        tls: None,
        replace_dead_after: None,
        version: "test".to_owned(),
    };
    Settings { member_name: Some(name.to_owned()), peers: Some(peers), ..settings(dir) }
}

impl Trio {
    /// Opens them, and waits until all three vote. The first leads.
    pub async fn form() -> Self {
        let (mut members, mut dirs, mut known) = (Vec::<Member>::new(), Vec::new(), Vec::new());
        for name in NAMES {
            let dir = tempfile::tempdir().unwrap();
            let member = Member::open(member_settings(dir.path(), name, &known)).await.unwrap();
            known.truncate(1);
            known.push(member.node.peer_address().unwrap());
            members.push(member);
            dirs.push(dir);
        }
        let trio = Self { members, _dirs: dirs };
        for member in &trio.members {
            let votes = |m: &&konsul_state::cluster::Member| m.role == MemberRole::Voter;
            until(|| member.node.members().iter().filter(votes).count() == 3).await;
            until(|| member.node.standing().leader_id.is_some()).await;
        }
        trio.go_on().await;
        trio
    }

    pub fn leader(&self) -> &Member {
        let leads = |m: &&Member| m.node.standing().leader_id == Some(m.node.standing().member_id);
        self.members.iter().find(leads).unwrap()
    }

    pub fn follower(&self) -> &Member {
        let leader = self.leader().node.standing().member_id;
        self.members.iter().find(|m| m.node.standing().member_id != leader).unwrap()
    }

    /// Writes at each member, and sees that all have it.
    pub async fn go_on(&self) {
        for member in &self.members {
            let revision = member.put("going", "on").await.unwrap();
            for other in &self.members {
                other.node.read_barrier().await.unwrap();
                assert!(other.revision() >= revision);
            }
        }
    }

    /// What the members say of themselves, once all have applied the same.
    pub async fn facts(&self) -> Facts {
        let state = |m: &Member| (m.hash(), m.revision());
        until(|| self.members.iter().all(|m| m.revision() == self.members[0].revision())).await;
        let standings: Vec<_> = self.members.iter().map(|m| m.node.standing()).collect();
        let mut members = self.leader().node.members();
        for member in &mut members {
            // It goes on with time, and with what a leader appends for itself.
            (member.last_contact_ms, member.matching_index) = (None, None);
        }
        Facts {
            members,
            states: self.members.iter().map(state).collect(),
            terms: standings.iter().map(|standing| standing.term).collect(),
            leaders: standings.iter().map(|standing| standing.leader_id).collect(),
        }
    }

    pub async fn shutdown(self) {
        for member in &self.members {
            member.node.shutdown().await;
        }
    }
}

/// Waits until it is so.
pub async fn until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "it does not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
