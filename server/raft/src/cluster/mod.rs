//! Making a cluster and changing it.
//!
//! # Layout
//! - `forming`: how servers find each other, and make a cluster or join one.
//! - `manager`: changes of the membership, carried out by the leader.
//! - `steward`: the leader's own changes: who has caught up becomes a voter, who is dead makes room.
//! - `agreement`: compares this member's state with the others', and puts it right.
//! - `recover`: a new cluster out of one survivor.
//! - `contact`: when this member last heard of a leader.

mod agreement;
mod contact;
mod forming;
mod manager;
mod recover;
mod steward;

pub(crate) use agreement::Agreement;
pub(crate) use contact::Contact;
pub(crate) use forming::{Forming, runs_elsewhere};
pub(crate) use manager::Manager;
pub use recover::{Recovery, recover};
pub(crate) use steward::Steward;

use crate::identity::Identity;
use crate::peer::pb;
use crate::settings::{PeerSettings, Role};
use crate::types::Membership;

/// This member as the membership is to have it.
pub(crate) fn describe(identity: &Identity, settings: &PeerSettings, peer_address: &str) -> pb::Member {
    let role = match settings.role {
        Role::Voter => pb::Role::Voter,
        Role::Standby => pb::Role::Standby,
        Role::Replica => pb::Role::Replica,
    };
    pb::Member {
        id: identity.member_id,
        name: identity.name.clone(),
        peer_address: peer_address.to_owned(),
        client_address: settings.client_address.clone(),
        role: role.into(),
        version: settings.version.clone(),
        format: konsul_state::command::FORMAT,
    }
}

/// The greatest format of Commands that every member can apply.
pub(crate) fn format_of(membership: &Membership) -> u32 {
    let formats = membership.nodes().map(|(_, member)| member.format);
    // A server without peers never says.
    formats.filter(|format| *format > 0).min().unwrap_or(konsul_state::command::FORMAT)
}
