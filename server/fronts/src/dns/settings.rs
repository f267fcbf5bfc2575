//! The settings of the DNS front, with their defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// What the front is told. `Settings::default()` serves `konsul.` on `127.0.0.1:8600` over UDP and TCP, for nobody else and nothing else.
#[derive(Clone)]
pub struct Settings {
    /// Where plain DNS is served, each address over UDP and TCP. Default `127.0.0.1:8600`.
    pub listen: Vec<SocketAddr>,
    /// Where DNS over TLS (RFC 7858) is served. Default: nowhere.
    pub tls_listen: Vec<SocketAddr>,
    /// Where DNS over HTTPS (RFC 8484) is served, at `/dns-query`. Default: nowhere.
    pub https_listen: Vec<SocketAddr>,
    /// The certificate for both. Its ALPN is set here.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// UDP sockets for each address, among which the kernel spreads clients. Default 0: one for each runtime that serves.
    pub udp_sockets: usize,
    /// What is answered for.
    pub zone: Zone,
    /// How long answers may be kept.
    pub ttls: Ttls,
    /// Answer no instance that warns. Default false: those are answered too, with the weight they have while warning.
    pub only_passing: bool,
    /// Most bytes of an answer over UDP, whatever a client asks for (EDNS). 512 to 4,096; default 1,232, which no path fragments.
    pub max_udp_bytes: u16,
    /// Most records in the answer section over UDP; the others make the answer a truncated one. Default 0: as many as fit.
    pub max_udp_answers: usize,
    /// Above this age of the catalog (a member without a leader) names are answered SERVFAIL. Default: however old it is.
    pub max_stale: Option<Duration>,
    /// Who is asked for names that are not ours. Default: nobody, they are REFUSED.
    pub recursion: Option<Recursion>,
    /// How many answers a network gets over UDP.
    pub rate_limit: Option<RateLimit>,
    /// Key of the server cookies (RFC 9018); the same on all servers behind one address. Default: a random one.
    pub cookie_secret: Option<[u8; 16]>,
    /// Who may see what. Default: everybody everything.
    pub access: Arc<dyn Access>,
    /// What connections and caches may take.
    pub bounds: Bounds,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8600))],
            tls_listen: Vec::new(),
            https_listen: Vec::new(),
            tls: None,
            udp_sockets: 0,
            zone: Zone::default(),
            ttls: Ttls::default(),
            only_passing: false,
            max_udp_bytes: 1_232,
            max_udp_answers: 0,
            max_stale: None,
            recursion: None,
            rate_limit: Some(RateLimit::default()),
            cookie_secret: None,
            access: Arc::new(Everybody),
            bounds: Bounds::default(),
        }
    }
}

/// The names that are answered for.
#[derive(Debug, Clone)]
pub struct Zone {
    /// The domain. Default `konsul.`.
    pub domain: String,
    /// Other domains that mean the same. Default: none.
    pub alternatives: Vec<String>,
    /// The data center a name may end with: a DNS label, and none of `service`, `node`, `addr`, `ns`, `ns1`. Default `dc1`.
    pub datacenter: String,
    /// Addresses of `ns1.DOMAIN`, which the zone's NS record names. Default: those of `listen` that are addresses of one host.
    pub name_servers: Vec<IpAddr>,
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            domain: "konsul.".into(),
            alternatives: Vec::new(),
            datacenter: "dc1".into(),
            name_servers: Vec::new(),
        }
    }
}

/// How long answers may be kept by those who asked, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct Ttls {
    /// Of a service that has no TTL of its own. Default 0 s, as Consul's: each look-up sees the truth.
    pub service: Duration,
    /// Of a node. Default 0 s.
    pub node: Duration,
    /// That there is no such name or record (RFC 2308). Default 1 s: a client that asks in a loop doesn't ask more often.
    pub negative: Duration,
    /// Of NS, SOA and the addresses of the name server. Default 60 s.
    pub apex: Duration,
}

impl Default for Ttls {
    fn default() -> Self {
        Self {
            service: Duration::ZERO,
            node: Duration::ZERO,
            negative: Duration::from_secs(1),
            apex: Duration::from_secs(60),
        }
    }
}

/// Other servers, asked for names that are not ours.
#[derive(Debug, Clone)]
pub struct Recursion {
    /// Who is asked, the first that answers; the next when one doesn't. At least one.
    pub servers: Vec<SocketAddr>,
    /// How long each has. Default 2 s.
    pub timeout: Duration,
    /// Who may ask. Default: loopback and private networks, so that nobody makes an open resolver by accident.
    pub networks: Vec<IpNet>,
    /// Most questions at a time; one more is answered SERVFAIL. Default 1,000.
    pub max_in_flight: usize,
    /// Most bytes of answers that are kept. Default 8 MiB.
    pub cache_bytes: usize,
    /// Answers are kept no longer than this, whatever they say. Default 1 h.
    pub max_ttl: Duration,
}

impl Recursion {
    /// Asks these servers, with the defaults for the rest.
    #[must_use]
    pub fn to(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            timeout: Duration::from_secs(2),
            networks: private_networks(),
            max_in_flight: 1_000,
            cache_bytes: 8 << 20,
            max_ttl: Duration::from_secs(3_600),
        }
    }
}

/// How many answers go over UDP to one network whose clients did not prove their address by a cookie. The others are dropped but for
/// every `slip`-th, which says that the client should come again by TCP (or with its cookie, if it sent one).
#[derive(Debug, Clone)]
pub struct RateLimit {
    /// Answers a second, 1 to 100,000. Default 500.
    pub answers_per_second: u32,
    /// So many at once after a silence, up to 60 s of them. Default 1,000.
    pub burst: u32,
    /// Networks of this many bits are one, IPv4. Default 24.
    pub ipv4_prefix: u8,
    /// The same for IPv6. Default 56.
    pub ipv6_prefix: u8,
    /// Every how manieth answer too many is a truncated one; 0: none. Default 2.
    pub slip: u32,
    /// How many networks are remembered; one more takes the place of another. Each takes 8 bytes. Default 65,536.
    pub networks: usize,
    /// Not limited. Default: loopback and private networks, where resolvers ask for many.
    pub exempt: Vec<IpNet>,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            answers_per_second: 500,
            burst: 1_000,
            ipv4_prefix: 24,
            ipv6_prefix: 56,
            slip: 2,
            networks: 65_536,
            exempt: private_networks(),
        }
    }
}

/// What connections and caches may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most connections at a time (TCP, TLS and HTTPS each). One more waits in the kernel's queue. Default 1,000.
    pub max_connections: usize,
    /// A connection that is silent, or does not take its answers, for so long is closed. Default 10 s.
    pub idle_timeout: Duration,
    /// Most questions of one connection that wait for other servers at a time; more are read when there are fewer. Default 64.
    pub max_pipelined: usize,
    /// Most bytes of encoded answers that are kept for each UDP socket, and as much for all connections. Default 16 MiB.
    pub cache_bytes: usize,
    /// How long connections have to end after the front was told to stop. Default 2 s.
    pub grace: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            max_connections: 1_000,
            idle_timeout: Duration::from_secs(10),
            max_pipelined: 64,
            cache_bytes: 16 << 20,
            grace: Duration::from_secs(2),
        }
    }
}

/// Decides who may see what. Called for each question about a name of the catalog, before it is looked up.
pub trait Access: Send + Sync + 'static {
    /// Whether whoever asks from this address may see the service or node. Otherwise it is REFUSED, whether it is there or not.
    fn may_see(&self, source: IpAddr, namespace: &str, name: &str) -> bool;
}

/// Lets everybody see everything.
#[derive(Debug, Clone, Copy)]
pub struct Everybody;

impl Access for Everybody {
    fn may_see(&self, _: IpAddr, _: &str, _: &str) -> bool {
        true
    }
}

/// Loopback (RFC 1122, RFC 4291), private (RFC 1918, RFC 4193) and link-local networks (RFC 3927, RFC 4291).
#[must_use]
pub fn private_networks() -> Vec<IpNet> {
    let networks = [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ];
    networks.iter().filter_map(|text| text.parse().ok()).collect()
}
