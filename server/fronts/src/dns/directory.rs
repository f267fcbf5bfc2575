//! What DNS answers from: services, nodes and addresses as somebody else keeps them. Whoever has a catalog implements
//! [`Directory`]; nothing here knows where it comes from.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::wire::is_label;

/// The catalog as DNS sees it. Each method is called for a packet, on the thread that received it: it must not block, and it
/// must be cheap (a look into a snapshot in memory).
///
/// Names are given in lower case. A `Service` or `Node` stays the same allocation (`Arc::ptr_eq`) until it changes, because answers
/// that were encoded are kept as long as what they were made of is still there.
pub trait Directory: Send + Sync + 'static {
    /// A service with all its instances, whatever their health. None: there is no such service (NXDOMAIN).
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;

    /// A node. None: there is no such node (NXDOMAIN).
    fn node(&self, namespace: &str, name: &str) -> Option<Arc<Node>>;

    /// Whether there is such a namespace, empty or not: what tells an empty name (NODATA) from none.
    fn has_namespace(&self, namespace: &str) -> bool;

    /// What is at an address: nodes and instances of any namespace. For PTR, and for what `….addr.konsul.` may name: an address that
    /// nobody registered is not answered.
    fn by_address(&self, address: IpAddr) -> Vec<PtrTarget>;

    /// How long ago this was last known to be what the cluster holds. None: it is now.
    fn age(&self) -> Option<Duration>;

    /// Grows with each change; its low 32 bits are the serial of the SOA.
    fn revision(&self) -> u64;
}

/// Where something is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, in presentation form, with or without the last dot. One that is no name is not answered.
    Name(Box<str>),
}

impl From<&str> for Address {
    /// An IP address if it reads as one, otherwise a name.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.into()), Self::Ip)
    }
}

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Passing,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work.
    Critical,
    /// Somebody took it out of service.
    Maintenance,
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Unique among the instances of its service. DNS has a name for it if it is a label.
    pub id: Box<str>,
    /// Where it is reached: its own address, or that of its node.
    pub address: Address,
    /// Its port; 0: none.
    pub port: u16,
    /// Other ports by name.
    pub ports: Vec<(Box<str>, u16)>,
    /// Tags, each once.
    pub tags: Vec<Box<str>>,
    /// Metadata.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// The worst of its checks.
    pub health: Health,
    /// Its share among the others in its present health: the weight of its SRV records, and how often it comes first.
    pub weight: u16,
}

/// A service: what is answered for all its names.
#[derive(Debug, Default)]
pub struct Service {
    instances: Vec<Instance>,
    ttl: Option<Duration>,
    protected: bool,
    index: OnceLock<Index>,
}

impl Service {
    /// A service with all its instances, whatever their health. `ttl` is how long answers may be kept (None: the front's setting). Where it is
    /// `protected`, so few instances are healthy that critical ones are answered too, so that the rest is not overrun.
    #[must_use]
    pub fn new(instances: Vec<Instance>, ttl: Option<Duration>, protected: bool) -> Self {
        Self { instances, ttl, protected, index: OnceLock::new() }
    }

    /// All instances.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    pub(super) fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Which of its instances have what tag, port or id. Made when it is asked for first.
    pub(super) fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::of(&self.instances))
    }

    /// Whether an instance is answered: those that pass or, unless `only_passing`, warn; in a protected service critical ones as well. Those in
    /// maintenance never are: somebody meant it.
    pub(super) fn is_answered(&self, only_passing: bool) -> impl Fn(&Instance) -> bool + use<> {
        let protected = self.protected;
        move |instance| match instance.health {
            Health::Passing => true,
            Health::Warning => protected || !only_passing,
            Health::Critical => protected,
            Health::Maintenance => false,
        }
    }
}

/// Instances by what DNS has names for, in lower case, as places in the service's list. Without it, whoever asks for tags that
/// nobody has would make us look at every instance each time.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) tags: HashMap<Box<str>, Vec<u32>>,
    /// What tags with dots end with: names that are there because others end with them.
    pub(super) tag_ends: HashSet<Box<str>>,
    pub(super) ports: HashMap<Box<str>, Vec<u32>>,
    /// Those that are labels.
    pub(super) ids: HashMap<Box<str>, Vec<u32>>,
}

impl Index {
    fn of(instances: &[Instance]) -> Self {
        let mut index = Self::default();
        let lower = |text: &str| text.to_ascii_lowercase().into_boxed_str();
        for (place, instance) in (0_u32..).zip(instances) {
            for tag in &instance.tags {
                let tag = lower(tag);
                for (dot, _) in tag.match_indices('.') {
                    index.tag_ends.insert(tag[dot + 1..].into());
                }
                index.tags.entry(tag).or_default().push(place);
            }
            for (port, _) in &instance.ports {
                index.ports.entry(lower(port)).or_default().push(place);
            }
            if is_label(&instance.id) {
                index.ids.entry(lower(&instance.id)).or_default().push(place);
            }
        }
        index
    }
}

/// A node. It is answered whatever its health: who asks for it by name wants that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it is reached: usually one address, or one of each family.
    pub addresses: Vec<Address>,
    /// Metadata.
    pub metadata: Vec<(Box<str>, Box<str>)>,
}

/// What an address belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PtrTarget {
    /// A node.
    Node {
        /// Its namespace.
        namespace: Box<str>,
        /// Its name.
        name: Box<str>,
    },
    /// An instance of a service.
    Instance {
        /// Its namespace.
        namespace: Box<str>,
        /// Its service.
        service: Box<str>,
        /// Its id.
        id: Box<str>,
    },
}
