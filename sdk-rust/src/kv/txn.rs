//! Compare, then do one list of operations or the other.

use konsul_proto::v1::{TxnRequest, TxnResponse};

use super::options::{awaitable, idempotency_key};
use super::{Compare, Kv, Operation};
use crate::error::Error;

/// A transaction: when all comparisons hold, the `then` operations are done, else the `otherwise` ones, all at one
/// revision or not at all.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// use konsul_client::{Compare, Operation, Operator};
///
/// let outcome = client
///     .kv()
///     .txn()
///     .compare(Compare::value("blue/weight", Operator::Equal, "100"))
///     .then(Operation::put("blue/weight", "90"))
///     .then(Operation::put("green/weight", "10"))
///     .otherwise(Operation::get("blue/weight"))
///     .await?;
/// println!("moved: {}", outcome.succeeded);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct Txn {
    kv: Kv,
    request: TxnRequest,
    idempotency_key: Option<String>,
}

impl Txn {
    pub(super) fn new(kv: &Kv) -> Self {
        Self { kv: kv.clone(), request: TxnRequest::default(), idempotency_key: None }
    }

    /// Adds something that must be true for the `then` operations to be done. Up to 256.
    pub fn compare(mut self, compare: Compare) -> Self {
        self.request.compare.push(compare.into());
        self
    }

    /// Adds an operation that is done when all comparisons hold.
    pub fn then(mut self, operation: impl Into<Operation>) -> Self {
        self.request.then.push(operation.into().into());
        self
    }

    /// Adds an operation that is done when a comparison does not hold.
    pub fn otherwise(mut self, operation: impl Into<Operation>) -> Self {
        self.request.otherwise.push(operation.into().into());
        self
    }

    /// Takes the whole transaction from a message of the API. Its namespace, unless empty, goes before this client's.
    pub fn request(mut self, request: TxnRequest) -> Self {
        self.request = request;
        self
    }

    idempotency_key!();

    async fn send(mut self) -> Result<TxnResponse, Error> {
        if self.request.namespace.is_empty() {
            self.request.namespace.clone_from(&self.kv.scope.namespace);
        }
        self.kv
            .scope
            .write(self.idempotency_key.as_deref())?
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).txn(request).await
            })
            .await
    }
}

awaitable!(Txn => TxnResponse);
