//! The cluster: its members, how they are set up, and what is asked of them as a whole.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use konsul_client::proto::{MemberRole, StatusResponse};
use konsul_client::{Admin, Client};

use crate::command;
use crate::member::{Make, Member};
use crate::network::{self, Network};
use crate::report::Report;

/// The port of every member's API.
pub(crate) const API_PORT: u16 = 8500;
/// The setting by which a member begins a cluster with others.
pub(crate) const BOOTSTRAP_EXPECT: &str = "KONSUL_CLUSTER_BOOTSTRAP_EXPECT";
/// The port that members talk to each other on.
const PEER_PORT: u16 = 8300;
/// How long a call of a client takes at most.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long a change of the cluster may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(12);
/// How often something is looked at that can't be awaited.
const POLL: Duration = Duration::from_millis(50);

/// The names and addresses of a cluster's members, and of one more that can join.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    members: u8,
}

impl Names {
    /// Those of a cluster of so many members.
    pub(crate) fn new(members: u8) -> Self {
        Self { members }
    }

    /// All of them; a cluster of one has nobody to join it.
    pub(crate) fn addresses(self) -> Vec<(String, Ipv4Addr)> {
        let all = if self.members > 1 { self.members + 1 } else { 1 };
        (1..=all).map(|number| (format!("n{number}"), network::address(number))).collect()
    }
}

/// A cluster of servers.
pub(crate) struct Cluster {
    /// The members, in the order of their names.
    pub(crate) members: Vec<Member>,
    /// One more that can join; a cluster of one has none.
    pub(crate) spare: Option<Member>,
    /// Prints and collects.
    pub(crate) report: Report,
    /// Asks for changes of members and waits as long as they take.
    admin: Client,
}

impl Cluster {
    /// Members with empty disks, none of which runs yet.
    ///
    /// # Errors
    /// When a disk, a certificate or a client can't be made.
    pub(crate) async fn make(
        members: u8,
        network: &Network,
        konsul: &Path,
        folder: &Path,
        report: &Report,
    ) -> Result<Self> {
        let addresses = Names::new(members).addresses();
        let certificates = folder.join("certificates");
        if members > 1 {
            make_certificates(konsul, &certificates, &addresses).await?;
        }
        let join: Vec<String> =
            addresses.iter().map(|(_, address)| format!("{address}:{PEER_PORT}")).collect();
        let join = join[..members.into()].join(",");
        let mut made = Vec::new();
        for (number, (name, address)) in addresses.iter().enumerate() {
            let first = number < usize::from(members);
            let settings = match members {
                1 => Vec::new(),
                _ => settings(name, *address, first.then_some(members), &join, &certificates),
            };
            let (namespace, folder) = (network.namespace(name), folder.join(name));
            let make = Make { name, address: *address, namespace, folder, konsul, settings };
            made.push(Member::make(make, report).await?);
        }
        let spare = if members > 1 { made.pop() } else { None };
        let addresses = made.iter().map(Member::api);
        let admin = Client::builder().addresses(addresses).timeout(CHANGE_LIMIT).max_attempts(1).build()?;
        Ok(Self { members: made, spare, report: report.clone(), admin })
    }

    /// Starts each member that doesn't run.
    ///
    /// # Errors
    /// When a process can't be started.
    pub(crate) fn start(&self) -> Result<()> {
        self.members.iter().try_for_each(Member::start)
    }

    /// Waits until every member serves and knows the leader.
    ///
    /// # Errors
    /// When that takes longer than this.
    pub(crate) async fn until_ready(&self, limit: Duration) -> Result<()> {
        let began = Instant::now();
        for member in &self.members {
            loop {
                match member.client.admin().status().await {
                    Ok(status) if status.leader_id != 0 => break,
                    _ if began.elapsed() > limit => bail!("{} has no leader after {limit:?}", member.name),
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        }
        Ok(())
    }

    /// The member that leads, as the one with the newest term knows it; `None` when nobody who answers does.
    pub(crate) async fn leader(&self) -> Option<&Member> {
        let asked = self.members.iter().map(async |member| member.client.admin().status().await.ok());
        let answers: Vec<Option<StatusResponse>> = futures_util::future::join_all(asked).await;
        let newest =
            answers.iter().flatten().filter(|status| status.leader_id != 0).max_by_key(|s| s.term)?;
        let leads = |status: &Option<StatusResponse>| {
            status.as_ref().is_some_and(|status| status.member_id == newest.leader_id)
        };
        answers.iter().position(leads).map(|index| &self.members[index])
    }

    /// Asks for changes of the members, through any of them.
    pub(crate) fn admin(&self) -> Admin {
        self.admin.admin()
    }

    /// What a member is; `None` when the cluster has none of this name.
    ///
    /// # Errors
    /// When no member answers.
    pub(crate) async fn role(&self, name: &str) -> Result<Option<MemberRole>> {
        let listed = self.admin().members().await?.members;
        Ok(listed.iter().find(|member| member.name == name).map(|member| member.role()))
    }

    /// Kills every process, at the end.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn kill(&self) -> Result<()> {
        for member in self.members.iter().chain(&self.spare) {
            member.kill().await?;
        }
        Ok(())
    }
}

/// Whether an environment variable would set up a server or a client.
pub(crate) fn is_setting(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().starts_with("KONSUL_")
}

/// A client of these addresses that makes each call once: whatever it doesn't know is unknown.
///
/// # Errors
/// When there is no address.
pub(crate) fn client(addresses: impl IntoIterator<Item = String>) -> Result<Client> {
    let client = Client::builder().addresses(addresses).timeout(CALL_LIMIT).connect_timeout(CONNECT_LIMIT);
    Ok(client.max_attempts(1).build()?)
}

fn settings(
    name: &str,
    address: Ipv4Addr,
    bootstrap_expect: Option<u8>,
    join: &str,
    certificates: &Path,
) -> Vec<(&'static str, String)> {
    let file = |name: String| certificates.join(name).display().to_string();
    let mut settings = vec![
        ("KONSUL_CLUSTER_MEMBER_NAME", name.to_owned()),
        ("KONSUL_CLUSTER_PEER_LISTEN", format!("{address}:{PEER_PORT}")),
        ("KONSUL_CLUSTER_JOIN", join.to_owned()),
        ("KONSUL_CLUSTER_JOIN_TOKEN", "faults".to_owned()),
        ("KONSUL_CLUSTER_TLS_CA", file("ca.pem".to_owned())),
        ("KONSUL_CLUSTER_TLS_CERT", file(format!("{name}.pem"))),
        ("KONSUL_CLUSTER_TLS_KEY", file(format!("{name}-key.pem"))),
    ];
    settings.extend(bootstrap_expect.map(|expect| (BOOTSTRAP_EXPECT, expect.to_string())));
    settings
}

async fn make_certificates(konsul: &Path, folder: &Path, members: &[(String, Ipv4Addr)]) -> Result<()> {
    let konsul = konsul.display().to_string();
    let out = folder.display().to_string();
    command::run(&konsul, &["tls", "ca", "--out", &out]).await?;
    let (ca, key) = (format!("{out}/ca.pem"), format!("{out}/ca-key.pem"));
    for (name, _) in members {
        let authority = ["--ca", &ca, "--ca-key", &key, "--out", &out];
        command::run(&konsul, &[&["tls", "cert", "--member", name], &authority[..]].concat()).await?;
    }
    Ok(())
}
