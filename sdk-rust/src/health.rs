//! The Health service: how instances and nodes are.

use konsul_proto::v1::health_client::HealthClient;
use konsul_proto::v1::{
    CheckInfo, CheckName, HealthStatus, ListChecksRequest, ListTransitionsRequest, Transition,
    UpdateCheckRequest, UpdateCheckResponse,
};

use crate::error::Error;
use crate::scope::{Scope, scoped};

/// Checks and their results.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// use konsul_client::proto::ListChecksRequest;
///
/// for check in client.health().checks(ListChecksRequest { service: "web".into(), ..Default::default() }).await? {
///     println!("{:?} is {:?}: {}", check.name, check.status(), check.output);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Health {
    scope: Scope,
}

scoped!(Health);

/// Makes a call of the service.
macro_rules! call {
    ($call:expr, $request:expr, $method:ident) => {
        $call
            .send($request, |transport, limit, request| async move {
                HealthClient::new(transport).max_decoding_message_size(limit).$method(request).await
            })
            .await
    };
}

impl Health {
    /// All checks that are asked for, page by page. The request's namespace is this service's.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, which names the field.
    pub async fn checks(&self, request: ListChecksRequest) -> Result<Vec<CheckInfo>, Error> {
        let mut request = ListChecksRequest { namespace: self.scope.namespace.clone(), ..request };
        let mut checks = Vec::new();
        loop {
            let page = call!(self.scope.read(), request.clone(), list_checks)?;
            checks.extend(page.checks);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok(checks);
            }
        }
    }

    /// Sets the status of a TTL check: PASSING, WARNING or CRITICAL.
    ///
    /// # Errors
    /// NOT_FOUND (reason CHECK_NOT_FOUND) when it is not there, FAILED_PRECONDITION (reason CHECK_NOT_TTL) when it is none with a TTL.
    pub async fn update(
        &self,
        check: CheckName,
        status: HealthStatus,
        output: &str,
    ) -> Result<UpdateCheckResponse, Error> {
        let request = UpdateCheckRequest {
            namespace: self.scope.namespace.clone(),
            name: Some(check),
            status: status.into(),
            output: output.to_owned(),
        };
        call!(self.scope.write(None)?, request, update_check)
    }

    /// The last changes of status of an instance's checks and its node's, newest first.
    ///
    /// # Errors
    /// NOT_FOUND (reason INSTANCE_NOT_FOUND) when there is no such instance.
    pub async fn transitions(&self, service: &str, instance: &str) -> Result<Vec<Transition>, Error> {
        let request = ListTransitionsRequest {
            namespace: self.scope.namespace.clone(),
            service: service.to_owned(),
            instance: instance.to_owned(),
            read: None,
        };
        Ok(call!(self.scope.read(), request, list_transitions)?.transitions)
    }
}
