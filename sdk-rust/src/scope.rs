//! What a service of the client works within: which client, which namespace, which deadline.

use std::time::Duration;

use crate::call::Call;
use crate::client::Client;
use crate::error::Error;
use crate::lease::Leases;

/// Where the calls of one service go.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) timeout: Duration,
}

impl Scope {
    /// What the client says by itself.
    pub(crate) fn new(client: Client) -> Self {
        let (namespace, timeout) = (client.shared.namespace.clone(), client.shared.timeout);
        Self { client, namespace, timeout }
    }

    /// A call that changes nothing.
    pub(crate) fn read(&self) -> Call {
        Call::read(&self.client, self.timeout)
    }

    /// A call that waits this long at the server for something to happen.
    pub(crate) fn waiting(&self, wait: Duration) -> Call {
        Call::waiting(&self.client, wait)
    }

    /// A call that changes something: with the caller's idempotency key or a fresh one.
    pub(crate) fn write(&self, idempotency_key: Option<&str>) -> Result<Call, Error> {
        Call::write(&self.client, self.timeout, idempotency_key)
    }

    /// The leases of the same namespace.
    pub(crate) fn leases(&self) -> Leases {
        Leases::new(self.client.clone()).namespace(&self.namespace)
    }
}

/// What every service with a `scope` offers.
macro_rules! scoped {
    ($service:ty) => {
        impl $service {
            pub(crate) fn new(client: crate::client::Client) -> Self {
                Self { scope: crate::scope::Scope::new(client) }
            }

            /// The same service in another namespace.
            pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
                self.scope.namespace = namespace.into();
                self
            }

            /// The same service with another deadline for each call, all attempts included. A call that waits for its turn
            /// has a limit of its own.
            pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
                self.scope.timeout = timeout.min(crate::client::MAX_TIMEOUT);
                self
            }
        }
    };
}

pub(crate) use scoped;
