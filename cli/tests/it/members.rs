//! Three servers on loopback that are one cluster, what an outsider can see of them, and changes of the cluster by command.

use std::path::Path;
use std::time::{Duration, Instant};

use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::{ListMembersRequest, ListMembersResponse, MemberRole};

use crate::konsul::{LIMIT, Run, konsul};
use crate::server::{Launch, Server, free_port};

pub(crate) const NAMES: [&str; 3] = ["kestrel", "merlin", "osprey"];
pub(crate) const TOKEN: &str = "a token of this cluster";

/// Three members. Each is killed when this is dropped.
pub(crate) struct Trio {
    pub(crate) servers: Vec<Server>,
    /// Where they are reached by each other.
    pub(crate) peers: Vec<String>,
}

/// What must be the same before and after an attack.
#[derive(Debug, PartialEq)]
pub(crate) struct Facts {
    cluster: ListMembersResponse,
    states: Vec<(String, u64)>,
    terms: Vec<(u64, u64)>,
}

/// A server that looks for the cluster at `join`.
pub(crate) fn member(name: &str, listen: &str, join: &[String]) -> Launch {
    Server::launch()
        .set("KONSUL_CLUSTER_MEMBER_NAME", name)
        .set("KONSUL_CLUSTER_PEER_LISTEN", listen)
        .set("KONSUL_CLUSTER_JOIN", join.join(","))
        .set("KONSUL_CLUSTER_JOIN_TOKEN", TOKEN)
}

/// Its certificate, made by the authority in `pki`, which is made if it is not there.
pub(crate) fn certified(launch: Launch, pki: &Path, name: &str) -> Launch {
    let make =
        |arguments: &[&str]| Run::of(konsul().arg("tls").args(arguments).current_dir(pki), b"").success();
    if !pki.join("ca.pem").exists() {
        make(&["ca"]);
    }
    make(&["cert", "--member", name]);
    let path = |file: String| pki.join(file).display().to_string();
    launch
        .set("KONSUL_CLUSTER_TLS_CA", path("ca.pem".into()))
        .set("KONSUL_CLUSTER_TLS_CERT", path(format!("{name}.pem")))
        .set("KONSUL_CLUSTER_TLS_KEY", path(format!("{name}-key.pem")))
}

impl Facts {
    /// The members' state hashes.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = &str> {
        self.states.iter().map(|(hash, _)| hash.as_str())
    }
}

impl Trio {
    /// Starts them with certificates, or in the clear, and waits until they are one.
    pub(crate) async fn start(pki: Option<&Path>) -> Self {
        let peers: Vec<String> = NAMES.iter().map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let start = |(name, peer): (&&str, &String)| {
            let launch = member(name, peer, &peers).set("KONSUL_CLUSTER_BOOTSTRAP_EXPECT", NAMES.len());
            match pki {
                Some(pki) => certified(launch, pki, name).start(),
                None => launch.start(),
            }
        };
        let servers = NAMES.iter().zip(&peers).map(start).collect();
        let trio = Self { servers, peers };
        for server in &trio.servers {
            let votes = |m: &&konsul_proto::v1::Member| m.role() == MemberRole::Voter;
            while members(server).await.members.iter().filter(votes).count() < NAMES.len()
                || server.status().await.leader_id == 0
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        trio.go_on();
        trio
    }

    /// Writes at each member.
    pub(crate) fn go_on(&self) {
        for server in &self.servers {
            server.put("going", "on");
            assert_eq!(server.ok(&["kv", "get", "going"]), "on");
        }
    }

    pub(crate) async fn facts(&self) -> Facts {
        let began = Instant::now();
        loop {
            let mut statuses = Vec::new();
            for server in &self.servers {
                statuses.push(server.status().await);
            }
            if statuses.iter().all(|status| status.revision == statuses[0].revision) {
                let mut cluster = members(&self.servers[0]).await;
                for member in &mut cluster.members {
                    (member.last_contact, member.matching_index) = (None, None);
                }
                return Facts {
                    cluster,
                    states: statuses.iter().map(|s| (s.state_hash.clone(), s.revision)).collect(),
                    terms: statuses.iter().map(|s| (s.term, s.leader_id)).collect(),
                };
            }
            assert!(began.elapsed() < LIMIT, "the members do not come to apply the same: {statuses:?}");
        }
    }

    /// What nobody but members and their clients may learn.
    pub(crate) async fn secrets(&self) -> Vec<String> {
        let cluster = members(&self.servers[0]).await.cluster_id;
        let names = NAMES.iter().map(ToString::to_string);
        names.chain([cluster, TOKEN.to_owned()]).collect()
    }

    /// The place of the member that leads.
    pub(crate) async fn leader(&self) -> usize {
        for (place, server) in self.servers.iter().enumerate() {
            let status = server.status().await;
            if status.leader_id == status.member_id {
                return place;
            }
        }
        panic!("nobody leads");
    }
}

async fn members(server: &Server) -> ListMembersResponse {
    AdminClient::new(server.channel()).list_members(ListMembersRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_leader_that_died_is_removed_by_one_command() {
    let mut trio = Trio::start(None).await;
    let leader = trio.leader().await;
    trio.servers[leader].kill();
    let other = &trio.servers[(leader + 1) % NAMES.len()];
    assert_eq!(other.ok(&["cluster", "remove", NAMES[leader]]), format!("removed {}\n", NAMES[leader]));
    let left = members(other).await.members;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|member| member.name != NAMES[leader]));
    other.put("going", "on");
}

#[tokio::test]
async fn one_survivor_is_made_into_a_new_cluster_and_the_lost_are_refused() {
    let mut trio = Trio::start(None).await;
    trio.servers[0].put("kept", "value");
    let survivor = (trio.leader().await + 1) % NAMES.len();
    let old = members(&trio.servers[survivor]).await.cluster_id;
    trio.servers.iter_mut().for_each(Server::kill);

    let data_dir = trio.servers[survivor].data_dir().display().to_string();
    let recover = |more: &[&str]| {
        Run::of(konsul().args(["recover", "--data-dir", &data_dir, "-o", "json"]).args(more), b"").success()
    };
    let plan: serde_json::Value = serde_json::from_str(&recover(&[])).unwrap();
    let lost: Vec<_> = NAMES.iter().filter(|name| **name != NAMES[survivor]).collect();
    assert_eq!(
        (plan["survivor"].as_str(), plan["lost"].as_array().unwrap().len()),
        (Some(NAMES[survivor]), 2)
    );
    assert!(lost.iter().all(|name| plan["lost"].as_array().unwrap().contains(&(**name).into())));
    assert!(plan.get("clusterId").is_none(), "without --yes nothing is done: {plan}");
    let done: serde_json::Value = serde_json::from_str(&recover(&["--yes"])).unwrap();
    let new = done["clusterId"].as_str().unwrap().to_owned();
    assert_ne!(new, old);

    trio.servers[survivor].restart();
    let server = &trio.servers[survivor];
    // It elects itself, because it is alone.
    assert_eq!(server.ok(&["kv", "get", "kept"]), "value");
    server.put("going", "on");
    assert_eq!(members(server).await.members.len(), 1);
    assert_eq!(server.status().await.cluster_id, new);

    // The others come back from the dead. They are members of another cluster.
    let began = Instant::now();
    let back = (survivor + 1) % NAMES.len();
    trio.servers[back].restart();
    let term = trio.servers[survivor].status().await.term;
    while !trio.servers[back].log().contains("not a member") && began.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(members(&trio.servers[survivor]).await.members.len(), 1);
    assert_eq!(trio.servers[survivor].status().await.term, term);
    trio.servers[survivor].put("going", "on");
    let refused = trio.servers[back].run(&["--timeout", "300ms", "kv", "put", "key", "value"]);
    assert_ne!(refused.code, Some(0), "a member without its majority writes nothing");
}
