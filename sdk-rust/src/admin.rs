//! The Admin service.

use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::{
    CompactRequest, CompactResponse, DemoteMemberRequest, ListMembersRequest, ListMembersResponse,
    PromoteMemberRequest, RemoveMemberRequest, StatusRequest, StatusResponse, TransferLeadershipRequest,
};

use crate::call::Call;
use crate::client::Client;
use crate::error::Error;

/// Looks after a server and its store.
#[derive(Debug, Clone)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// How the server that answers is doing.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn status(&self) -> Result<StatusResponse, Error> {
        Call::read(&self.client, self.client.shared.timeout)
            .send(StatusRequest {}, |transport, _, request| async move {
                AdminClient::new(transport).status(request).await
            })
            .await
    }

    /// Drops the history up to and including a revision. Present entries stay.
    ///
    /// # Errors
    /// OUT_OF_RANGE when the revision is in the future.
    pub async fn compact(&self, revision: u64) -> Result<CompactResponse, Error> {
        Call::write(&self.client, self.client.shared.timeout, None)?
            .send(CompactRequest { revision }, |transport, _, request| async move {
                AdminClient::new(transport).compact(request).await
            })
            .await
    }

    /// The members of the cluster, as the server that answers knows them.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status.
    pub async fn members(&self) -> Result<ListMembersResponse, Error> {
        Call::read(&self.client, self.client.shared.timeout)
            .send(ListMembersRequest {}, |transport, _, request| async move {
                AdminClient::new(transport).list_members(request).await
            })
            .await
    }

    /// Takes a member out of the cluster, whether it is alive or not.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name, FAILED_PRECONDITION when it is the only voter.
    pub async fn remove_member(&self, name: &str) -> Result<(), Error> {
        let request = RemoveMemberRequest { name: name.to_owned() };
        Call::write(&self.client, self.client.shared.timeout, None)?
            .send(request, |transport, _, request| async move {
                AdminClient::new(transport).remove_member(request).await
            })
            .await
            .map(|_| ())
    }

    /// Makes a member a voter.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name.
    pub async fn promote_member(&self, name: &str) -> Result<(), Error> {
        let request = PromoteMemberRequest { name: name.to_owned() };
        Call::write(&self.client, self.client.shared.timeout, None)?
            .send(request, |transport, _, request| async move {
                AdminClient::new(transport).promote_member(request).await
            })
            .await
            .map(|_| ())
    }

    /// Makes a voter a member that doesn't vote.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name, FAILED_PRECONDITION when it is the only voter.
    pub async fn demote_member(&self, name: &str) -> Result<(), Error> {
        let request = DemoteMemberRequest { name: name.to_owned() };
        Call::write(&self.client, self.client.shared.timeout, None)?
            .send(request, |transport, _, request| async move {
                AdminClient::new(transport).demote_member(request).await
            })
            .await
            .map(|_| ())
    }

    /// Hands leadership over to this voter, or to the one whose log is furthest; returns when that one leads.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name, FAILED_PRECONDITION when it is no voter.
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<(), Error> {
        let request = TransferLeadershipRequest { name: to.unwrap_or_default().to_owned() };
        Call::write(&self.client, self.client.shared.timeout, None)?
            .send(request, |transport, _, request| async move {
                AdminClient::new(transport).transfer_leadership(request).await
            })
            .await
            .map(|_| ())
    }
}
