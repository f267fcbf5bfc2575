//! The newtypes that everything is named by. They are made by parsing at the edge and trusted inside.

use std::fmt;
use std::sync::Arc;

use crate::command::{CheckName, InstanceKey, LockKind, LockName, Owner, owner};

/// Counts committed changes of the whole store: one more for each write that changes something, the same
/// on every member. 0 is the empty store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names a lease within its namespace: 1 to 2^63-1, so that it fits into every language's integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl LeaseId {
    /// The greatest.
    pub const MAX: u64 = i64::MAX as u64;
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of an entry in the Raft log: its index, and the term and leader it was proposed under.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Id of the leader that proposed the entry.
    pub leader: u64,
    /// Index of the entry in the log.
    pub index: u64,
}

/// Why a name is not one. The text says what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A namespace that breaks the rule.
    #[error("must be 1 to 64 of a-z 0-9 - _ . and start with a letter or digit")]
    Namespace,
    /// An empty key.
    #[error("must not be empty")]
    KeyEmpty,
    /// A key that is too long.
    #[error("must be at most 1024 bytes, and has {0}")]
    KeyTooLong(usize),
    /// A key with a NUL character in it.
    #[error("must not contain a NUL character")]
    KeyNul,
    /// A name that DNS could not serve.
    #[error(
        "must be 1 to 63 of a-z 0-9 and -, neither first nor last a -, so that DNS can serve it (RFC 1123 §2.1)"
    )]
    Label,
    /// An id that breaks the rule.
    #[error("must be 1 to 128 bytes without control characters")]
    Ident,
}

/// The tenant that an object belongs to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

impl Namespace {
    /// Most bytes of a namespace.
    pub const MAX_BYTES: usize = 64;
    /// What an empty namespace in a request means.
    pub const DEFAULT: &'static str = "default";

    /// Parses what a caller sent; empty means `default`.
    ///
    /// # Errors
    /// [`NameError::Namespace`] unless it is 1 to 64 of `a-z 0-9 - _ .`, starting with a letter or digit.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Ok(Self(Arc::from(Self::DEFAULT)));
        }
        let valid = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        let bytes = text.as_bytes();
        if bytes.len() > Self::MAX_BYTES
            || !bytes[0].is_ascii_alphanumeric()
            || !bytes.iter().all(|b| valid(*b))
        {
            return Err(NameError::Namespace);
        }
        Ok(Self(Arc::from(text)))
    }

    /// One that was parsed before it went into the log.
    pub(crate) fn trusted(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a KV entry within its namespace. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Most bytes of a key.
    pub const MAX_BYTES: usize = 1024;

    /// Parses what a caller sent.
    ///
    /// # Errors
    /// [`NameError`] unless it has 1 to 1,024 bytes and no NUL (which ends names inside of row keys).
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// One that was parsed before it went into the log.
    pub(crate) fn trusted(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The check of [`Key::parse`] without making one.
    ///
    /// # Errors
    /// As [`Key::parse`].
    pub fn check(text: &str) -> Result<(), NameError> {
        if text.is_empty() {
            return Err(NameError::KeyEmpty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(NameError::KeyTooLong(text.len()));
        }
        if text.as_bytes().contains(&0) {
            return Err(NameError::KeyNul);
        }
        Ok(())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Makes a name that keeps a rule of its own.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max_bytes:literal, $error:expr, $keeps_the_rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Most bytes.
            pub const MAX_BYTES: usize = $max_bytes;

            /// Parses what a caller sent.
            ///
            /// # Errors
            /// [`NameError`], which says the rule.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let keeps_the_rule: fn(&str) -> bool = $keeps_the_rule;
                let is_good = (1..=Self::MAX_BYTES).contains(&text.len()) && keeps_the_rule(text);
                if is_good { Ok(Self(Arc::from(text))) } else { Err($error) }
            }

            /// One that was parsed before it went into the log.
            pub(crate) fn trusted(text: &str) -> Self {
                Self(Arc::from(text))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The name of a service, a node or a port: a DNS label in lower case (RFC 1123 §2.1). Cheap to clone.
    Label,
    63,
    NameError::Label,
    |text| {
        text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !text.starts_with('-')
            && !text.ends_with('-')
    }
);

name!(
    /// The id of an instance or of a check. Cheap to clone.
    Ident,
    128,
    NameError::Ident,
    |text| !text.chars().any(char::is_control)
);

/// Names a node. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Label,
}

/// Names a service. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: Label,
}

/// Names an instance. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its service.
    pub service: Label,
    /// Its id within the service.
    pub id: Ident,
}

impl InstanceId {
    /// One that was parsed before it went into the log.
    pub(crate) fn trusted(namespace: &Namespace, key: &InstanceKey) -> Self {
        Self {
            namespace: namespace.clone(),
            service: Label::trusted(&key.service),
            id: Ident::trusted(&key.id),
        }
    }

    /// Its service.
    #[must_use]
    pub fn service_id(&self) -> ServiceId {
        ServiceId { namespace: self.namespace.clone(), name: self.service.clone() }
    }

    /// How Commands name it within its namespace.
    #[must_use]
    pub fn to_key(&self) -> InstanceKey {
        InstanceKey { service: self.service.as_str().to_owned(), id: self.id.as_str().to_owned() }
    }
}

/// Whose check something is: an instance's or a node's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CheckOwner {
    /// An instance's.
    Instance(InstanceId),
    /// A node's.
    Node(NodeId),
}

impl CheckOwner {
    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        match self {
            Self::Instance(instance) => &instance.namespace,
            Self::Node(node) => &node.namespace,
        }
    }

    /// One that was parsed before it went into the log; `None` if the Command says nothing.
    pub(crate) fn trusted(namespace: &Namespace, owner: Option<&Owner>) -> Option<Self> {
        Some(match owner?.owner.as_ref()? {
            owner::Owner::Instance(key) => Self::Instance(InstanceId::trusted(namespace, key)),
            owner::Owner::Node(name) => {
                Self::Node(NodeId { namespace: namespace.clone(), name: Label::trusted(name) })
            }
        })
    }

    /// How Commands name it within its namespace.
    #[must_use]
    pub fn to_owner(&self) -> Owner {
        let owner = match self {
            Self::Instance(instance) => owner::Owner::Instance(instance.to_key()),
            Self::Node(node) => owner::Owner::Node(node.name.as_str().to_owned()),
        };
        Owner { owner: Some(owner) }
    }
}

/// Names a check. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckId {
    /// Whose it is.
    pub owner: CheckOwner,
    /// Its id among the checks of its owner.
    pub id: Ident,
}

impl CheckId {
    /// One that was parsed before it went into the log; `None` if the Command says nothing.
    pub(crate) fn trusted(name: Option<&CheckName>) -> Option<Self> {
        let name = name?;
        let owner = CheckOwner::trusted(&Namespace::trusted(&name.namespace), name.owner.as_ref())?;
        Some(Self { owner, id: Ident::trusted(&name.id) })
    }

    /// How Commands name it.
    #[must_use]
    pub fn to_name(&self) -> CheckName {
        CheckName {
            namespace: self.owner.namespace().as_str().to_owned(),
            owner: Some(self.owner.to_owner()),
            id: self.id.as_str().to_owned(),
        }
    }
}

/// Names a lock or an election. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LockId {
    /// Its namespace.
    pub namespace: Namespace,
    /// What it is.
    pub kind: LockKind,
    /// Its name, which keeps the rules of keys.
    pub name: Key,
}

impl LockId {
    /// One that was parsed before it went into the log.
    pub(crate) fn trusted(name: &LockName) -> Self {
        Self {
            namespace: Namespace::trusted(&name.namespace),
            kind: name.kind(),
            name: Key::trusted(&name.name),
        }
    }

    /// How Commands name it.
    #[must_use]
    pub fn to_name(&self) -> LockName {
        LockName {
            namespace: self.namespace.as_str().to_owned(),
            kind: self.kind.into(),
            name: self.name.as_str().to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
