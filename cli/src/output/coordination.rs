//! What people read of leases, locks and elections.

use konsul_client::proto::{self, Claim, LeaseInfo, LockMode};

use super::text::{Text, escape, fields, preview, table, time};

impl Text for proto::GrantResponse {
    /// The id alone, for scripts.
    fn text(&self) -> String {
        format!("{}\n", self.id)
    }
}

impl Text for proto::RefreshResponse {
    fn text(&self) -> String {
        let line = |result: &proto::Refreshed| match &result.ttl {
            Some(ttl) => format!("{} has {} s\n", result.id, ttl.seconds),
            None => format!("{} does not exist\n", result.id),
        };
        self.results.iter().map(line).collect()
    }
}

impl Text for proto::RevokeResponse {
    fn text(&self) -> String {
        let keys = if self.deleted == 1 { "key" } else { "keys" };
        format!("ended, and deleted {} {keys}, at revision {}\n", self.deleted, self.revision)
    }
}

impl Text for proto::LeaseGetResponse {
    fn text(&self) -> String {
        let lease = self.lease.clone().unwrap_or_default();
        let seconds = |duration: Option<&prost_types::Duration>| {
            duration.map_or("-".to_owned(), |d| format!("{}.{:01} s", d.seconds, d.nanos / 100_000_000))
        };
        let mut text = fields(&[
            ("lease", lease.id.to_string()),
            ("ttl", seconds(lease.ttl.as_ref())),
            ("remaining", seconds(self.remaining.as_ref())),
            ("granted", time(lease.create_time.as_ref())),
            ("holder", holder(&lease)),
            ("keys", self.key_count.to_string()),
        ]);
        for key in &self.keys {
            text.push_str(&format!("  {}\n", escape(key)));
        }
        text
    }
}

impl Text for proto::LeaseListResponse {
    fn text(&self) -> String {
        if self.leases.is_empty() {
            return String::new();
        }
        let row = |lease: &LeaseInfo| {
            let ttl = lease.ttl.map_or(0, |ttl| ttl.seconds);
            [lease.id.to_string(), format!("{ttl} s"), time(lease.create_time.as_ref()), holder(lease)]
        };
        let rows: Vec<_> = self.leases.iter().map(row).collect();
        table(["LEASE", "TTL", "GRANTED", "HOLDER"], &rows)
    }
}

impl Text for proto::LockGetResponse {
    fn text(&self) -> String {
        let lock = self.lock.clone().unwrap_or_default();
        let mut text = String::new();
        if let Some(delay) = &lock.held_back {
            text.push_str(&format!("held back for {} s, because a holder was lost\n", delay.seconds));
        }
        if self.claims.is_empty() {
            text.push_str("nobody holds it\n");
            return text;
        }
        let row = |claim: &Claim| {
            let state = if claim.granted { "holds" } else { "waits" };
            let mode = if claim.mode() == LockMode::Shared { "shared" } else { "alone" };
            let since = time(claim.since.as_ref());
            let (token, lease) = (claim.token.to_string(), claim.lease.to_string());
            [state.to_owned(), mode.to_owned(), token, lease, since, preview(&claim.value)]
        };
        let rows: Vec<_> = self.claims.iter().map(row).collect();
        text.push_str(&table(["STATE", "MODE", "TOKEN", "LEASE", "SINCE", "VALUE"], &rows));
        text
    }
}

impl Text for proto::LeaderResponse {
    fn text(&self) -> String {
        match &self.leader {
            None => "nobody leads\n".to_owned(),
            Some(leader) => format!("{}\n", preview(&leader.value)),
        }
    }
}

fn holder(lease: &LeaseInfo) -> String {
    if lease.implicit { "(a key)".to_owned() } else { escape(&lease.holder) }
}
