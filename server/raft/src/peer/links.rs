//! Connections to other members: opened when they are first needed, kept, and opened again by themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::pb::peer_client::PeerClient;
use super::tls::Tls;
use crate::identity::Identity;
use crate::net::Net;

/// Names the cluster that a call belongs to.
pub(super) const CLUSTER: &str = "konsul-cluster";

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// A silent connection is asked for a sign of life so often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// and closed when there is none for so long.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Most bytes of a message: a batch of entries holds one of any size and a few MiB of others.
pub(super) const MAX_MESSAGE_BYTES: usize = 32 << 20;

/// Connections are apart by what they carry, so that what is big or slow does not hold up what confirms a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Heartbeats, votes and everything small.
    Control,
    /// Entries.
    Append,
    /// Writes and changes on their way to the leader.
    Forward,
    /// Snapshots.
    Bulk,
}

/// A member's stub.
pub(crate) type Peer = PeerClient<InterceptedService<Channel, Identify>>;

/// The connections of one member.
pub(crate) struct Links {
    identity: Arc<Identity>,
    net: Arc<dyn Net>,
    tls: Option<Tls>,
    open: Mutex<HashMap<(String, Lane), Channel>>,
    /// Where members are now; one that was moved is found without replication to it being begun anew.
    addresses: Mutex<HashMap<u64, String>>,
}

impl Links {
    pub(crate) fn new(identity: Arc<Identity>, net: Arc<dyn Net>, tls: Option<Tls>) -> Self {
        Self { identity, net, tls, open: Mutex::default(), addresses: Mutex::default() }
    }

    /// The stub of the member at `address` (host:port). Connects when it is used.
    pub(crate) fn to(&self, address: &str, lane: Lane) -> Result<Peer, Status> {
        let channel = self.channel(address, lane)?;
        let client = PeerClient::with_interceptor(channel, Identify { identity: self.identity.clone() });
        Ok(client.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// Learns where a member is.
    pub(crate) fn learn(&self, member: u64, address: &str) {
        self.addresses.lock().insert(member, address.to_owned());
    }

    /// Where a member is.
    pub(super) fn address_of(&self, member: u64) -> Option<String> {
        self.addresses.lock().get(&member).cloned()
    }

    fn channel(&self, address: &str, lane: Lane) -> Result<Channel, Status> {
        let mut open = self.open.lock();
        if let Some(channel) = open.get(&(address.to_owned(), lane)) {
            return Ok(channel.clone());
        }
        let channel = self.net.channel(&self.endpoint(address)?);
        open.insert((address.to_owned(), lane), channel.clone());
        Ok(channel)
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, Status> {
        let unusable =
            |e: &dyn std::fmt::Display| Status::unavailable(format!("address {address:?} is unusable: {e}"));
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|e| unusable(&e))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        match &self.tls {
            None => Ok(endpoint),
            Some(tls) => endpoint.tls_config(tls.client()).map_err(|e| unusable(&e)),
        }
    }
}

/// Says in each call which cluster it belongs to.
#[derive(Clone)]
pub(crate) struct Identify {
    identity: Arc<Identity>,
}

impl Interceptor for Identify {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster) = self.identity.cluster_id()
            && let Ok(value) = MetadataValue::try_from(cluster.to_string())
        {
            request.metadata_mut().insert(CLUSTER, value);
        }
        Ok(request)
    }
}
