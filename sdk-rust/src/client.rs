//! The client and how it is set up. Makes no calls itself.

use std::sync::Arc;
use std::time::Duration;

use crate::address::Address;
use crate::admin::Admin;
use crate::catalog::Catalog;
use crate::election::Elections;
use crate::error::Error;
use crate::health::Health;
use crate::kv::Kv;
use crate::lease::Leases;
use crate::lock::Locks;
use crate::transport::{Route, Timing};

/// Deadline of a call unless the builder says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest deadline: a year is as good as none, and the clock can count it.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3_600);
/// How long one address may take to accept a connection before the next is tried.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one of several servers may keep a call without an answer before the next is asked.
const DEFAULT_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection may be silent before the server is asked for a sign of life, and how long it has for that.
const DEFAULT_KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Shortest time that may be set for one server to answer within: less than this, and only noise is measured.
const MIN_PATIENCE: Duration = Duration::from_millis(10);
/// Largest answer that is accepted: a batch of values may be much larger than gRPC's usual 4 MiB.
const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A client of one Konsul cluster. Cloning it is cheap, and all clones share one connection.
///
/// ```no_run
/// # async fn example() -> Result<(), konsul_client::Error> {
/// let client = konsul_client::Client::connect("http://127.0.0.1:8500").await?;
/// client.kv().put("app/port", "8080").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) route: Route,
    pub(crate) namespace: String,
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) max_attempts: u32,
    pub(crate) max_message_bytes: usize,
}

impl Shared {
    /// How long one member may keep a call of this deadline without an answer before the next one is asked; `None`
    /// where there is no other. No more than a member's share of the time, so that each has its turn before it is over.
    pub(crate) fn patience(&self, timeout: Duration) -> Option<Duration> {
        let addresses = self.route.addresses();
        (addresses > 1).then(|| self.attempt_timeout.min(timeout / addresses))
    }
}

impl Client {
    /// Connects to a server at `http://host:port`, waiting up to 10 s for it to be there. Later the client reconnects by
    /// itself whenever the connection breaks.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`]; [`Error::Unreachable`] if nobody is there; others of [`Admin::status`].
    pub async fn connect(address: impl Into<String>) -> Result<Self, Error> {
        let client = Self::builder().address(address).build()?;
        client.admin().status().await?;
        Ok(client)
    }

    /// A builder for everything that [`connect`](Client::connect) leaves at its default.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The KV service, in the client's namespace.
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// The Lease service, in the client's namespace.
    pub fn leases(&self) -> Leases {
        Leases::new(self.clone())
    }

    /// The Lock service, in the client's namespace.
    pub fn locks(&self) -> Locks {
        Locks::new(self.clone())
    }

    /// The Election service, in the client's namespace.
    pub fn elections(&self) -> Elections {
        Elections::new(self.clone())
    }

    /// Services and where their instances run.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(self.clone())
    }

    /// How instances and nodes are.
    pub fn health(&self) -> Health {
        Health::new(self.clone())
    }

    /// The Admin service.
    pub fn admin(&self) -> Admin {
        Admin::new(self.clone())
    }
}

/// Sets up a [`Client`].
///
/// ```no_run
/// # async fn example() -> Result<(), konsul_client::Error> {
/// use std::time::Duration;
///
/// let client = konsul_client::Client::builder()
///     .address("http://10.0.0.1:8500")
///     .address("http://10.0.0.2:8500")
///     .namespace("billing")
///     .timeout(Duration::from_secs(2))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientBuilder {
    addresses: Vec<String>,
    token: Option<String>,
    namespace: String,
    timeout: Duration,
    attempt_timeout: Duration,
    timing: Timing,
    max_attempts: u32,
    max_message_bytes: usize,
    user_agent: String,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            token: None,
            namespace: String::new(),
            timeout: DEFAULT_TIMEOUT,
            attempt_timeout: DEFAULT_ATTEMPT_TIMEOUT,
            timing: Timing {
                connect_timeout: DEFAULT_CONNECT_TIMEOUT,
                keep_alive_interval: DEFAULT_KEEP_ALIVE_INTERVAL,
                keep_alive_timeout: DEFAULT_KEEP_ALIVE_TIMEOUT,
            },
            max_attempts: u32::MAX,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            user_agent: concat!("konsul-client-rust/", env!("CARGO_PKG_VERSION")).into(),
        }
    }
}

impl ClientBuilder {
    /// Adds an address: `http://host:port`, where `http://` and the port (8500) may be left out. When there are several,
    /// they are tried in turn until one accepts the connection and answers.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// Adds several addresses.
    pub fn addresses<A: Into<String>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
        self.addresses.extend(addresses.into_iter().map(Into::into));
        self
    }

    /// The token sent with each call as `authorization: Bearer …`. Default: none.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// The namespace of all calls. Default: the server's `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The deadline of a call with all its attempts. Default: 10 s. A watch has none once it is open.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// How long one of several servers may keep a call without an answer before the call is made again at the next
    /// address. Default: 3 s; at least 10 ms.
    ///
    /// A call with a short deadline leaves earlier, after its share: the deadline divided by the number of addresses, so
    /// that each has its turn. When all but one kept silent, that one has all the time that is left; with a single address
    /// no call is cut short. Set it above the time that your slowest calls take; `Duration::MAX` leaves the shares alone.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = timeout.max(MIN_PATIENCE);
        self
    }

    /// How long one address may take to accept a connection before the next is tried. Default: 2 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.timing.connect_timeout = timeout;
        self
    }

    /// How long a connection may be silent before the server is asked for a sign of life (an HTTP/2 PING). Default: 5 s;
    /// from 10 ms to a year.
    ///
    /// A server that hangs, or can't be reached any more, is noticed after this and the
    /// [timeout](Self::keep_alive_timeout) at most, also when nothing but a quiet watch uses the connection.
    pub fn keep_alive_interval(mut self, interval: Duration) -> Self {
        self.timing.keep_alive_interval = interval.clamp(MIN_PATIENCE, MAX_TIMEOUT);
        self
    }

    /// How long the server has for its sign of life before the connection is given up, and its calls and watches go on
    /// at the next address. Default: 3 s; from 10 ms to a year.
    pub fn keep_alive_timeout(mut self, timeout: Duration) -> Self {
        self.timing.keep_alive_timeout = timeout.clamp(MIN_PATIENCE, MAX_TIMEOUT);
        self
    }

    /// How often a call is made at most, the first time included. Default: as often as the deadline allows.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }

    /// The largest answer that is accepted, in bytes. Default: 64 MiB.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// The name by which the server's log knows this program. Default: `konsul-client-rust/` and its version.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// The client, which connects on its first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::NoRuntime`], [`Error::NoAddress`], [`Error::InvalidAddress`], [`Error::InvalidToken`],
    /// [`Error::InvalidUserAgent`].
    pub fn build(self) -> Result<Client, Error> {
        tokio::runtime::Handle::try_current().map_err(|_| Error::NoRuntime)?;
        let addresses =
            self.addresses.iter().map(|address| address.parse()).collect::<Result<Vec<Address>, _>>()?;
        let route = Route::lazy(addresses, &self.user_agent, self.token.as_deref(), self.timing)?;
        Ok(Client {
            shared: Arc::new(Shared {
                route,
                namespace: self.namespace,
                timeout: self.timeout,
                attempt_timeout: self.attempt_timeout,
                max_attempts: self.max_attempts,
                max_message_bytes: self.max_message_bytes,
            }),
        })
    }
}
