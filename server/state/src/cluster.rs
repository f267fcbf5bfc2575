//! The cluster as the layers above see it: who its members are, and how they are changed.

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Votes.
    Voter,
    /// Becomes a voter when it has caught up.
    Learner,
    /// Becomes a voter when it is promoted.
    Standby,
    /// Never votes.
    Replica,
}

/// A member of the cluster, as one of its members knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where other members reach it (host:port); empty if it has no peers.
    pub peer_address: String,
    /// Where clients reach it (host:port).
    pub client_address: String,
    /// What it is.
    pub role: MemberRole,
    /// Whether it leads.
    pub is_leader: bool,
    /// The version of its server.
    pub version: String,
    /// The last entry of the log that it is known to have; only the leader knows, and a member of itself.
    pub matching_index: Option<u64>,
    /// How long ago it last answered the leader, in ms; only the leader knows.
    pub last_contact_ms: Option<u64>,
}

/// A change of the membership. Members are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Has this server, which has no cluster yet, join the one at any of these addresses (host:port).
    Join(Vec<String>),
    /// Takes a member out of the cluster.
    Remove(String),
    /// Makes a member a voter.
    Promote(String),
    /// Makes a voter a member that does not vote.
    Demote(String),
    /// Hands leadership over, to this member or to the one that is furthest.
    Transfer(Option<String>),
}

/// Why the membership was not changed, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no leader. Nothing was changed.
    #[error("no leader is known; try again")]
    NoLeader,
    /// There is no such member.
    #[error("{0}")]
    NoSuchMember(String),
    /// The change would leave the cluster without what it needs.
    #[error("{0}")]
    Refused(String),
    /// The leader was lost meanwhile.
    #[error(
        "it is not known whether the cluster was changed: its leader was lost; see konsul cluster members"
    )]
    Unknown,
}
