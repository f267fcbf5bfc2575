//! How servers find each other. One that has no cluster asks at the addresses it was given: where there is a cluster it
//! joins it; where as many others wait as are expected, the one whose name comes first makes one of them all. Each has the
//! cluster's id on its disk before the log begins, and takes part in no other for the rest of its life.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use konsul_state::cluster::ChangeError;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Code, Status};
use uuid::Uuid;

use super::manager::Manager;
use crate::error::RaftError;
use crate::identity::Identity;
use crate::peer::pb::hello_response::Seen;
use crate::peer::{Lane, Links, pb};
use crate::proposer::Raft;
use crate::settings::PeerSettings;
use crate::types::Membership;

/// How often to ask around.
const EVERY: Duration = Duration::from_millis(250);
/// How long a server may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// A server that has not asked for so long is gone.
const FORGET: Duration = Duration::from_secs(3);
/// Most addresses that are remembered, and their greatest length.
const MAX_HINTS: usize = 256;
const MAX_ADDRESS: usize = 260;
/// How often to say in the log what is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Makes this server a member.
pub(crate) struct Forming {
    pub(crate) identity: Arc<Identity>,
    pub(crate) settings: PeerSettings,
    pub(crate) me: pb::Member,
    pub(crate) raft: Raft,
    pub(crate) links: Arc<Links>,
    pub(crate) manager: Arc<Manager>,
    /// The servers without a cluster that answered, and when.
    pub(crate) seen: Mutex<BTreeMap<u64, (pb::HelloResponse, Instant)>>,
    /// Where others are, by what they asked and by what others know, and when that was said last.
    pub(crate) hints: Mutex<BTreeMap<String, Instant>>,
}

/// What asking around came to.
enum Next {
    Done,
    Wait(String),
}

/// Where a member with our id answers that is not this process, if anywhere: our data directory was copied.
pub(crate) async fn runs_elsewhere(
    links: &Links,
    identity: &Identity,
    settings: &PeerSettings,
    recorded: &Membership,
    my_address: &str,
) -> Option<RaftError> {
    let address = recorded.get_node(&identity.member_id)?.peer_address.clone();
    if address.is_empty() || address == my_address {
        return None;
    }
    let mut peer = links.to(&address, Lane::Control).ok()?;
    let hello = pb::HelloRequest {
        token: settings.token.clone(),
        cluster_name: settings.cluster_name.clone(),
        server: None,
    };
    let answered = tokio::time::timeout(LIMIT, peer.hello(hello)).await.ok()?.ok()?.into_inner();
    let server = answered.server?;
    let is_another = server.member?.id == identity.member_id && server.run != identity.run.to_string();
    is_another.then(|| RaftError::RunsElsewhere { name: identity.name.clone(), address })
}

impl Forming {
    /// Works until this server is a member and the others know where it is, or until `stop`.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut reminded: Option<Instant> = None;
        loop {
            let next = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                next = self.try_once() => next,
            };
            match next {
                Ok(Next::Done) => return,
                Ok(Next::Wait(what)) => {
                    if reminded.is_none_or(|at| at.elapsed() > REMIND) {
                        tracing::info!("{what}");
                        reminded = Some(Instant::now());
                    }
                }
                Err(error) => {
                    if reminded.is_none_or(|at| at.elapsed() > REMIND) {
                        tracing::warn!(%error, "not a member yet; trying again");
                        reminded = Some(Instant::now());
                    }
                }
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn try_once(&self) -> Result<Next, RaftError> {
        if self.is_initialized().await? {
            return self.announce().await;
        }
        let found = self.ask_around().await?;
        if let Some((address, _)) = found.iter().find(|(_, answer)| answer.is_initialized) {
            return self.join_at(address).await;
        }
        let waiting = self.waiting(found.into_iter().map(|(_, answer)| answer));
        let expected = self.settings.bootstrap_expect as usize;
        if expected == 0 {
            let addresses = self.settings.join.join(", ");
            return Ok(Next::Wait(format!("waiting for a cluster to join at {addresses}")));
        }
        if waiting.len() < expected {
            let there = waiting.len();
            return Ok(Next::Wait(format!(
                "waiting for {expected} servers to make a cluster: {there} are there"
            )));
        }
        // Everybody counts the same way, so one of them begins; the others wait to be adopted.
        let sees_all = |(id, answer): (&u64, &pb::HelloResponse)| {
            let sees = |other: &u64| answer.sees.iter().any(|seen| seen.id == *other);
            *id == self.identity.member_id || waiting.keys().all(sees)
        };
        if first(&waiting) != Some(self.identity.member_id) || !waiting.iter().all(sees_all) {
            return Ok(Next::Wait("waiting for another server to make the cluster".to_owned()));
        }
        self.bootstrap(&waiting).await
    }

    async fn is_initialized(&self) -> Result<bool, RaftError> {
        self.raft.is_initialized().await.map_err(|e| RaftError::Consensus(e.to_string()))
    }

    /// Those that answer, at the addresses that were given and those that became known; an error if all of them refuse.
    async fn ask_around(&self) -> Result<Vec<(String, pb::HelloResponse)>, RaftError> {
        let addresses = self.addresses();
        let asked = addresses.iter().map(|address| async move {
            let mut peer = self.links.to(address, Lane::Control).ok()?;
            let hello = pb::HelloRequest {
                token: self.settings.token.clone(),
                cluster_name: self.settings.cluster_name.clone(),
                server: Some(self.server()),
            };
            match tokio::time::timeout(LIMIT, peer.hello(hello)).await {
                Ok(Ok(answer)) => Some(Ok((address.clone(), answer.into_inner()))),
                Ok(Err(status)) if status.code() == Code::PermissionDenied => {
                    let error = status.message().to_owned();
                    Some(Err(RaftError::Join { address: address.clone(), error }))
                }
                Ok(Err(status)) => {
                    tracing::debug!(address, %status, "no answer from a server to join");
                    None
                }
                Err(_) => None,
            }
        });
        let is_other = |answer: &pb::HelloResponse| {
            let server = answer.server.as_ref();
            server.is_some_and(|server| server.run != self.identity.run.to_string())
        };
        let (mut found, mut refusal) = (Vec::new(), None);
        for answer in join_all(asked).await.into_iter().flatten() {
            match answer {
                Ok(answer) if is_other(&answer.1) => found.push(answer),
                Ok(_) => {}
                Err(error) => refusal = Some(error),
            }
        }
        let seen = found.iter().flat_map(|(_, answer)| &answer.sees);
        seen.for_each(|seen| self.hint(&seen.peer_address));
        match refusal {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn addresses(&self) -> BTreeSet<String> {
        let mut hints = self.hints.lock();
        hints.retain(|_, at| at.elapsed() < FORGET);
        let known = self.settings.join.iter().chain(hints.keys());
        known.filter(|address| **address != self.me.peer_address).cloned().collect()
    }

    /// Remembers where a server may be.
    fn hint(&self, address: &str) {
        let mut hints = self.hints.lock();
        if address.len() <= MAX_ADDRESS && hints.len() < MAX_HINTS {
            hints.insert(address.to_owned(), Instant::now());
        }
    }

    fn server(&self) -> pb::Server {
        pb::Server {
            member: Some(self.me.clone()),
            run: self.identity.run.to_string(),
            bootstrap_expect: self.settings.bootstrap_expect,
        }
    }

    fn myself(&self) -> pb::HelloResponse {
        pb::HelloResponse {
            server: Some(self.server()),
            cluster_id: self.identity.cluster_id().map_or_else(String::new, |id| id.to_string()),
            is_initialized: false,
            sees: self.sees(),
        }
    }

    fn sees(&self) -> Vec<Seen> {
        let seen = self.seen.lock();
        let members = seen.values().filter_map(|(answer, _)| answer.server.as_ref()?.member.as_ref());
        let known = |member: &pb::Member| Seen { id: member.id, peer_address: member.peer_address.clone() };
        members.map(known).chain([known(&self.me)]).collect()
    }

    /// The servers that would make a cluster, by their ids: those that answered lately, and this one.
    fn waiting(&self, answers: impl Iterator<Item = pb::HelloResponse>) -> BTreeMap<u64, pb::HelloResponse> {
        {
            let mut seen = self.seen.lock();
            seen.retain(|_, (_, at)| at.elapsed() < FORGET);
            for answer in answers {
                if let Some(id) = candidate(&answer) {
                    seen.insert(id, (answer, Instant::now()));
                }
            }
        }
        let myself = self.myself();
        let me = candidate(&myself).map(|id| (id, myself));
        let seen = self.seen.lock();
        seen.iter().map(|(id, (answer, _))| (*id, answer.clone())).chain(me).collect()
    }

    async fn join_at(&self, address: &str) -> Result<Next, RaftError> {
        let failed =
            |e: &dyn std::fmt::Display| RaftError::Join { address: address.to_owned(), error: e.to_string() };
        let mut peer = self.links.to(address, Lane::Control).map_err(|e| failed(&e.message()))?;
        let joined = tokio::time::timeout(LIMIT, peer.join(self.join_request())).await;
        let joined = joined.map_err(|_| failed(&"no answer"))?.map_err(|e| failed(&e.message()))?;
        let cluster = joined.into_inner().cluster_id.parse::<Uuid>().map_err(|e| failed(&e))?;
        self.identity.adopt(cluster)?;
        Ok(Next::Wait(format!("cluster {cluster} takes this server in")))
    }

    fn join_request(&self) -> pb::JoinRequest {
        pb::JoinRequest {
            token: self.settings.token.clone(),
            cluster_name: self.settings.cluster_name.clone(),
            member: Some(self.me.clone()),
            cluster_id: self.identity.cluster_id().map_or_else(String::new, |id| id.to_string()),
            hops: 0,
        }
    }

    async fn bootstrap(&self, servers: &BTreeMap<u64, pb::HelloResponse>) -> Result<Next, RaftError> {
        let begun = servers.values().find(|answer| !answer.cluster_id.is_empty());
        let cluster = match begun {
            None => Uuid::new_v4(),
            Some(answer) => answer
                .cluster_id
                .parse()
                .map_err(|_| RaftError::Consensus("a server has no valid cluster id".into()))?,
        };
        self.identity.adopt(cluster)?;
        let members: BTreeMap<u64, pb::Member> = servers
            .iter()
            .filter_map(|(id, answer)| Some((*id, answer.server.as_ref()?.member.clone()?)))
            .collect();
        for member in members.values().filter(|member| member.id != self.identity.member_id) {
            let address = &member.peer_address;
            let failed = |e: &dyn std::fmt::Display| RaftError::Join {
                address: address.clone(),
                error: e.to_string(),
            };
            let mut peer = self.links.to(address, Lane::Control).map_err(|e| failed(&e.message()))?;
            let adopt = pb::AdoptRequest {
                token: self.settings.token.clone(),
                cluster_name: self.settings.cluster_name.clone(),
                cluster_id: cluster.to_string(),
            };
            let adopted = tokio::time::timeout(LIMIT, peer.adopt(adopt)).await;
            adopted.map_err(|_| failed(&"no answer"))?.map_err(|e| failed(&e.message()))?;
        }
        let names = members.values().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        self.raft.initialize(members).await.map_err(|e| RaftError::Consensus(e.to_string()))?;
        tracing::info!(%cluster, "made a cluster of {names}");
        Ok(Next::Done)
    }

    /// Tells the cluster where this member is now, and what it is, if that has changed.
    async fn announce(&self) -> Result<Next, RaftError> {
        use openraft::async_runtime::watch::WatchReceiver;
        let membership = self.raft.server_metrics().borrow_watched().membership_config.clone();
        let recorded = membership.membership().get_node(&self.identity.member_id).cloned();
        match recorded {
            Some(recorded) if recorded == self.with_role_of(&recorded) => Ok(Next::Done),
            None => {
                let what =
                    "this server is not, or no longer, a member of its cluster; waiting to be taken in";
                Ok(Next::Wait(what.to_owned()))
            }
            Some(recorded) => {
                let request =
                    pb::JoinRequest { member: Some(self.with_role_of(&recorded)), ..self.join_request() };
                self.tell_any(membership.membership(), request).await
            }
        }
    }

    /// Tells any member, who passes it on to the leader: until the leader knows where this one is, this one may not know of
    /// a leader.
    async fn tell_any(&self, membership: &Membership, request: pb::JoinRequest) -> Result<Next, RaftError> {
        let mut refusal = match self.manager.join(request.clone()).await {
            Ok(_) => return Ok(Next::Done),
            Err(status) => status,
        };
        let others = membership.nodes().filter(|(id, _)| **id != self.identity.member_id);
        let addresses = others.map(|(_, member)| &member.peer_address).chain(&self.settings.join);
        for address in addresses {
            let Ok(mut peer) = self.links.to(address, Lane::Control) else { continue };
            match tokio::time::timeout(LIMIT, peer.join(request.clone())).await {
                Ok(Ok(_)) => return Ok(Next::Done),
                Ok(Err(status)) => refusal = status,
                Err(_) => {}
            }
        }
        Err(RaftError::Consensus(refusal.message().to_owned()))
    }

    /// This member as it describes itself; what it is to be, it is told by `cluster promote` and `demote`.
    fn with_role_of(&self, recorded: &pb::Member) -> pb::Member {
        pb::Member { role: recorded.role, ..self.me.clone() }
    }

    /// Joins the cluster at one of these addresses, and returns when it has taken this server in.
    pub(crate) async fn join(&self, addresses: &[String]) -> Result<(), ChangeError> {
        let refused = |why: String| ChangeError::Refused(why);
        if self.is_initialized().await.map_err(|e| refused(e.to_string()))? {
            let cluster = self.identity.cluster_id().map_or_else(String::new, |id| id.to_string());
            return Err(refused(format!("this server is a member of cluster {cluster} already")));
        }
        let mut why = "no address to join is given".to_owned();
        for address in addresses {
            match self.join_at(address).await {
                Ok(_) => return Ok(()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(refused(why))
    }

    /// Answers a server that looks for a cluster.
    pub(crate) async fn hello(&self, request: pb::HelloRequest) -> Result<pb::HelloResponse, Status> {
        self.manager.check(&request.token, &request.cluster_name)?;
        let is_initialized = self.is_initialized().await.map_err(|e| Status::unavailable(e.to_string()))?;
        if let Some(member) = request.server.and_then(|server| server.member) {
            self.hint(&member.peer_address);
        }
        Ok(pb::HelloResponse { is_initialized, ..self.myself() })
    }

    /// Becomes part of the cluster that another server makes.
    pub(crate) fn adopt(&self, request: &pb::AdoptRequest) -> Result<(), Status> {
        self.manager.check(&request.token, &request.cluster_name)?;
        let cluster =
            request.cluster_id.parse().map_err(|_| Status::invalid_argument("cluster_id is no UUID"))?;
        self.identity.adopt(cluster).map_err(|error| match error {
            RaftError::OtherCluster { .. } => {
                Status::failed_precondition("this server belongs to another cluster")
            }
            error => Status::internal(error.to_string()),
        })
    }
}

/// The id of a server that would help to make a cluster.
fn candidate(answer: &pb::HelloResponse) -> Option<u64> {
    let server = answer.server.as_ref()?;
    let member = server.member.as_ref()?;
    let is_candidate =
        !answer.is_initialized && server.bootstrap_expect > 0 && member.role() == pb::Role::Voter;
    is_candidate.then_some(member.id)
}

/// Who makes the cluster: the first by name.
fn first(servers: &BTreeMap<u64, pb::HelloResponse>) -> Option<u64> {
    let members = servers.values().filter_map(|answer| answer.server.as_ref()?.member.as_ref());
    members.min_by_key(|member| (&member.name, member.id)).map(|member| member.id)
}
