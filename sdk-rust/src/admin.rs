//! The Admin service.

use std::future::Future;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use konsul_proto::v1::admin_client::AdminClient;
use konsul_proto::v1::{
    CompactRequest, CompactResponse, Consistency, DefragmentRequest, DefragmentResponse, DemoteMemberRequest,
    JoinClusterRequest, ListMembersRequest, ListMembersResponse, PromoteMemberRequest, ReadOptions,
    RemoveMemberRequest, RestoreRequest, RestoreResponse, SnapshotRequest, StatusRequest, StatusResponse,
    TransferLeadershipRequest,
};
use tonic::{Request, Response, Status};

use crate::call::Call;
use crate::client::Client;
use crate::error::Error;
use crate::transport::Transport;

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

    /// Has the server, which waits for a cluster, join the one at any of these peer addresses (host:port).
    ///
    /// # Errors
    /// FAILED_PRECONDITION when it has a cluster already, or is refused there.
    pub async fn join_cluster(&self, addresses: &[String]) -> Result<(), Error> {
        let request = JoinClusterRequest { addresses: addresses.to_vec() };
        self.change(request, |mut admin, request| async move { admin.join_cluster(request).await }).await
    }

    /// Takes a member out of the cluster, whether it is alive or not.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name, FAILED_PRECONDITION when it is the only voter.
    pub async fn remove_member(&self, name: &str) -> Result<(), Error> {
        let request = RemoveMemberRequest { name: name.to_owned() };
        self.change(request, |mut admin, request| async move { admin.remove_member(request).await }).await
    }

    /// Makes a member a voter.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name.
    pub async fn promote_member(&self, name: &str) -> Result<(), Error> {
        let request = PromoteMemberRequest { name: name.to_owned() };
        self.change(request, |mut admin, request| async move { admin.promote_member(request).await }).await
    }

    /// Makes a voter a member that doesn't vote.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name, FAILED_PRECONDITION when it is the only voter.
    pub async fn demote_member(&self, name: &str) -> Result<(), Error> {
        let request = DemoteMemberRequest { name: name.to_owned() };
        self.change(request, |mut admin, request| async move { admin.demote_member(request).await }).await
    }

    /// Hands leadership over to this voter, or to the one whose log is furthest; returns when that one leads.
    ///
    /// # Errors
    /// NOT_FOUND when there is none of this name, FAILED_PRECONDITION when it is no voter.
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<(), Error> {
        let request = TransferLeadershipRequest { name: to.unwrap_or_default().to_owned() };
        self.change(request, |mut admin, request| async move { admin.transfer_leadership(request).await })
            .await
    }

    /// Gives the space that the server's store does not use back to its file system, while everything goes on.
    ///
    /// # Errors
    /// FAILED_PRECONDITION when its disk has no room for the copy that this takes.
    pub async fn defragment(&self) -> Result<DefragmentResponse, Error> {
        Call::waiting(&self.client, self.client.shared.timeout)
            .send(DefragmentRequest {}, |transport, _, request| async move {
                AdminClient::new(transport).defragment(request).await
            })
            .await
    }

    /// Streams a backup of the whole store as it is now, with every write that was acknowledged before; `stale` takes it as the
    /// server that answers has it, without a leader. The bytes are a file that checks itself: what ends without an error is whole.
    ///
    /// # Errors
    /// [`Error::Unreachable`], or the server's status. The stream is not repeated when it breaks: begin again.
    pub async fn snapshot(
        &self,
        stale: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        let consistency = if stale { Consistency::Stale } else { Consistency::Linearizable };
        let read = ReadOptions { consistency: consistency.into(), ..ReadOptions::default() };
        let transport = self.client.shared.route.transport();
        let request = SnapshotRequest { read: Some(read) };
        let answer = AdminClient::new(transport).snapshot(request).await?;
        Ok(answer.into_inner().map_ok(|piece| piece.chunk).map_err(Error::from))
    }

    /// Puts a backup in the place of the whole store, at a revision that is greater than any before. Nothing changes until all
    /// of it is there and checked. `other_cluster` allows the backup of another one.
    ///
    /// # Errors
    /// INVALID_ARGUMENT (reasons BACKUP_UNREADABLE, RESTORE_REFUSED), FAILED_PRECONDITION (reason BACKUP_OF_OTHER_CLUSTER). After
    /// an UNAVAILABLE it is not known whether the store was restored: it was if its revision has moved on past the backup's.
    pub async fn restore(
        &self,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
        other_cluster: bool,
    ) -> Result<RestoreResponse, Error> {
        let requests = pieces.map(move |chunk| RestoreRequest { other_cluster, chunk });
        let transport = self.client.shared.route.transport();
        Ok(AdminClient::new(transport).restore(requests).await?.into_inner())
    }

    async fn change<Req, Res, Rpc, Answered>(&self, request: Req, rpc: Rpc) -> Result<(), Error>
    where
        Req: Clone,
        Rpc: Fn(AdminClient<Transport>, Request<Req>) -> Answered,
        Answered: Future<Output = Result<Response<Res>, Status>>,
    {
        let call = Call::write(&self.client, self.client.shared.timeout, None)?;
        call.send(request, |transport, _, request| rpc(AdminClient::new(transport), request))
            .await
            .map(|_| ())
    }
}
