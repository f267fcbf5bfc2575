//! The network of a run: a namespace for each member and one, the hub, for all clients, joined by a bridge in the hub. None of them is
//! connected to the machine's own network, so addresses and names of interfaces are the same in every run.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{line, run};

/// How long killed processes may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// The namespaces of a run with this name.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    run: String,
}

impl Network {
    /// Names the namespaces of a run and makes none.
    pub(crate) fn new(run: &str) -> Self {
        Self { run: run.to_owned() }
    }

    /// The clients' namespace.
    pub(crate) fn hub(&self) -> String {
        format!("{}-hub", self.run)
    }

    /// A member's namespace.
    pub(crate) fn namespace(&self, member: &str) -> String {
        format!("{}-{member}", self.run)
    }

    /// Makes the hub and a namespace for each of these members.
    ///
    /// # Errors
    /// When a command fails; [`remove`] removes what there is by then.
    pub(crate) async fn set_up(&self, members: &[(String, Ipv4Addr)]) -> Result<()> {
        let hub = self.hub();
        line(&format!("ip netns add {hub}")).await?;
        line(&format!("ip -n {hub} link set lo up")).await?;
        line(&format!("ip -n {hub} link add bridge type bridge")).await?;
        line(&format!("ip -n {hub} address add {HUB}/24 dev bridge")).await?;
        line(&format!("ip -n {hub} link set bridge up")).await?;
        for (name, address) in members {
            let member = self.namespace(name);
            line(&format!("ip netns add {member}")).await?;
            line(&format!("ip -n {hub} link add {name} type veth peer name eth0 netns {member}")).await?;
            line(&format!("ip -n {hub} link set {name} master bridge up")).await?;
            line(&format!("ip -n {member} address add {address}/24 dev eth0")).await?;
            line(&format!("ip -n {member} link set lo up")).await?;
            line(&format!("ip -n {member} link set eth0 up")).await?;
        }
        Ok(())
    }
}

/// The clients' address.
pub(crate) const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// The address of a member, from 1.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

/// Kills what runs in the namespaces of a run and removes them.
///
/// # Errors
/// When a process can't be killed or a namespace can't be removed.
pub(crate) async fn remove(run_name: &str) -> Result<()> {
    let begin = format!("{run_name}-");
    let all = line("ip netns list").await?;
    let ours = all.lines().filter_map(|line| line.split_whitespace().next());
    for namespace in ours.filter(|name| name.starts_with(&begin)) {
        kill_processes(namespace).await?;
        run("ip", &["netns", "delete", namespace]).await?;
    }
    Ok(())
}

async fn kill_processes(namespace: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let pids = run("ip", &["netns", "pids", namespace]).await?;
        let pids: Vec<Pid> = pids.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)).collect();
        if pids.is_empty() {
            return Ok(());
        }
        if began.elapsed() > KILL_LIMIT {
            bail!("processes in {namespace} outlive SIGKILL: {pids:?}");
        }
        for pid in pids {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(POLL).await;
    }
}
