//! Rules that lose packets on the way into or out of a member's namespace. Each is there from `add` to `remove`, whatever other rules do.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::command::line;

/// A rule of a namespace's packet filter.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    namespace: String,
    rule: String,
}

impl Rule {
    /// Whatever the namespace sends to this address is lost.
    pub(crate) fn nothing_to(namespace: &str, address: Ipv4Addr) -> Self {
        Self::new(namespace, format!("OUTPUT -d {address} -j DROP"))
    }

    /// Whatever comes from this address is lost.
    pub(crate) fn nothing_from(namespace: &str, address: Ipv4Addr) -> Self {
        Self::new(namespace, format!("INPUT -s {address} -j DROP"))
    }

    /// So many of a thousand packets that the namespace sends are lost.
    pub(crate) fn lose(namespace: &str, per_mille: u32) -> Self {
        let probability = f64::from(per_mille) / 1_000.0;
        let some = format!("-m statistic --mode random --probability {probability}");
        Self::new(namespace, format!("OUTPUT -o eth0 {some} -j DROP"))
    }

    /// What the namespace sends waits until whoever holds this queue lets it go.
    pub(crate) fn queue(namespace: &str, queue: u16) -> Self {
        Self::new(namespace, format!("OUTPUT -o eth0 -j NFQUEUE --queue-num {queue}"))
    }

    fn new(namespace: &str, rule: String) -> Self {
        Self { namespace: namespace.to_owned(), rule }
    }

    /// Puts the rule into force.
    ///
    /// # Errors
    /// When iptables refuses.
    pub(crate) async fn add(&self) -> Result<()> {
        self.iptables("-A").await
    }

    /// Takes the rule out of force.
    ///
    /// # Errors
    /// When iptables refuses, as it does when the rule is not in force.
    pub(crate) async fn remove(&self) -> Result<()> {
        self.iptables("-D").await
    }

    async fn iptables(&self, how: &str) -> Result<()> {
        let Self { namespace, rule } = self;
        line(&format!("ip netns exec {namespace} iptables --wait {how} {rule}")).await.map(drop)
    }
}

/// Puts several rules into force, one after the other.
///
/// # Errors
/// As [`Rule::add`].
pub(crate) async fn add(rules: &[Rule]) -> Result<()> {
    for rule in rules {
        rule.add().await?;
    }
    Ok(())
}

/// Takes several rules out of force.
///
/// # Errors
/// As [`Rule::remove`].
pub(crate) async fn remove(rules: &[Rule]) -> Result<()> {
    for rule in rules {
        rule.remove().await?;
    }
    Ok(())
}
