//! How servers find each other. One that has no cluster asks at the addresses it was given: where there is a cluster it
//! joins it; where as many others wait as are expected, the one whose name comes first makes one of them all. Each has the
//! cluster's id on its disk before the log begins, and takes part in no other for the rest of its life.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use konsul_state::cluster::ChangeError;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Code, Status};
use uuid::Uuid;

use super::Contact;
use super::manager::Manager;
use crate::error::RaftError;
use crate::health::Health;
use crate::identity::Identity;
use crate::leadership::Leader;
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
/// A member that hears of no leader for so long asks whether it is still one.
const QUIET: Duration = Duration::from_secs(2);
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
    pub(crate) contact: Arc<Contact>,
    pub(crate) health: Arc<Health>,
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

/// What servers answered at the addresses that are known.
#[derive(Default)]
struct Found {
    answers: Vec<(String, pb::HelloResponse)>,
    /// Where there was no answer, and why.
    silent: Vec<(String, String)>,
}

impl Found {
    /// Why one of those that are silent is, after what is waited for: whoever waits in vain finds out what to mend.
    fn tell(&self, what: &str) -> String {
        match self.silent.as_slice() {
            [] => what.to_owned(),
            [(address, why)] => format!("{what}; no answer from {address}: {why}"),
            [(address, why), others @ ..] => {
                format!("{what}; no answer from {address} ({why}) and {} others", others.len())
            }
        }
    }
}

/// What an address answered.
enum Heard {
    Answer(pb::HelloResponse),
    Refusal(RaftError),
    Nothing(String),
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
                Ok(Next::Done) => return self.heed_removal(stop).await,
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

    /// Finds out whether this member was removed, when it hears of no leader: then it serves nothing any more.
    async fn heed_removal(&self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(QUIET) => {}
            }
            let is_heard = self.contact.age_ms().is_some_and(|ms| u128::from(ms) < QUIET.as_millis());
            if is_heard || self.manager.leadership.now() == Leader::Me {
                continue;
            }
            if self.is_removed().await {
                return self.health.remove();
            }
        }
    }

    async fn is_removed(&self) -> bool {
        let membership = self.manager.membership();
        let others = membership.nodes().filter(|(id, _)| **id != self.identity.member_id);
        let asked = others.map(|(_, member)| async {
            let mut peer = self.links.to(&member.peer_address, Lane::Control).ok()?;
            let request = pb::IsRemovedRequest { id: self.identity.member_id };
            Some(
                tokio::time::timeout(LIMIT, peer.is_removed(request))
                    .await
                    .ok()?
                    .ok()?
                    .into_inner()
                    .is_removed,
            )
        });
        join_all(asked).await.into_iter().flatten().any(|is_removed| is_removed)
    }

    async fn try_once(&self) -> Result<Next, RaftError> {
        if self.is_initialized().await? {
            return self.announce().await;
        }
        let found = self.ask_around().await?;
        if let Some((address, _)) = found.answers.iter().find(|(_, answer)| answer.is_initialized) {
            return self.join_at(address).await;
        }
        let waiting = self.waiting(found.answers.iter().map(|(_, answer)| answer.clone()));
        let expected = self.settings.bootstrap_expect as usize;
        if expected == 0 {
            let addresses = self.settings.join.join(", ");
            return Ok(Next::Wait(found.tell(&format!("waiting for a cluster to join at {addresses}"))));
        }
        if waiting.len() < expected {
            let there = waiting.len();
            let what = format!("waiting for {expected} servers to make a cluster: {there} are there");
            return Ok(Next::Wait(found.tell(&what)));
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

    /// What servers answer at the addresses that were given and those that became known; an error if all that answer refuse.
    async fn ask_around(&self) -> Result<Found, RaftError> {
        let addresses = self.addresses();
        let asked = join_all(addresses.iter().map(|address| self.ask(address))).await;
        let is_other = |answer: &pb::HelloResponse| {
            let server = answer.server.as_ref();
            server.is_some_and(|server| server.run != self.identity.run.to_string())
        };
        let (mut found, mut refusal) = (Found::default(), None);
        for (address, heard) in addresses.into_iter().zip(asked) {
            match heard {
                Heard::Answer(answer) if is_other(&answer) => found.answers.push((address, answer)),
                // It is this server, by another name.
                Heard::Answer(_) => {}
                Heard::Refusal(error) => refusal = Some(error),
                Heard::Nothing(why) => found.silent.push((address, why)),
            }
        }
        let seen = found.answers.iter().flat_map(|(_, answer)| &answer.sees);
        seen.for_each(|seen| self.hint(&seen.peer_address));
        match refusal {
            Some(error) if found.answers.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    async fn ask(&self, address: &str) -> Heard {
        let hello = pb::HelloRequest {
            token: self.settings.token.clone(),
            cluster_name: self.settings.cluster_name.clone(),
            server: Some(self.server()),
        };
        let mut peer = match self.links.to(address, Lane::Control) {
            Ok(peer) => peer,
            Err(status) => return Heard::Nothing(status.message().to_owned()),
        };
        match tokio::time::timeout(LIMIT, peer.hello(hello)).await {
            Ok(Ok(answer)) => Heard::Answer(answer.into_inner()),
            Ok(Err(status)) if status.code() == Code::PermissionDenied => {
                let error = status.message().to_owned();
                Heard::Refusal(RaftError::Join { address: address.to_owned(), error })
            }
            Ok(Err(status)) => Heard::Nothing(why_unreached(&status)),
            Err(_) => Heard::Nothing(format!("nothing within {LIMIT:?}")),
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

/// Why a server could not be asked: the first cause, as what wraps it says only that something went wrong.
fn why_unreached(status: &Status) -> String {
    let Some(mut cause) = status.source() else { return status.message().to_owned() };
    while let Some(earlier) = cause.source() {
        cause = earlier;
    }
    cause.to_string()
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
