//! What is spoken on the one port: gRPC by its content type goes to the Door, everything else to the pages.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use axum::Router;
use futures_util::future::Either;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::{Service, ServiceExt};

/// What serves gRPC: the Door, whose type the fronts need not know.
pub trait Grpc:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> Grpc for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

/// The services of the port. Cheap to clone.
#[derive(Clone)]
pub struct Port<D> {
    door: D,
    pages: Router,
}

impl<D: Grpc> Port<D> {
    /// Puts the Door and the pages on one port.
    #[must_use]
    pub fn new(door: D, pages: Router) -> Self {
        Self { door, pages }
    }
}

type Page = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// hyper's trait rather than tower's: both services are always ready, because their bounds are kept per call, and
/// a call needs no clone of what it doesn't use.
impl<D: Grpc> hyper::service::Service<Request<Incoming>> for Port<D> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<D::Future, Page>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if is_grpc(&request) {
            return Either::Left(self.door.clone().call(request));
        }
        let pages = self.pages.clone();
        Either::Right(Box::pin(async move {
            let answer = pages.oneshot(request.map(axum::body::Body::new)).await?;
            Ok(answer.map(Body::new))
        }))
    }
}

/// A POST of `application/grpc`, alone or with the message's format (`+proto`) or parameters; `application/grpc-web` is
/// another protocol.
fn is_grpc<B>(request: &Request<B>) -> bool {
    if request.method() != Method::POST {
        return false;
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
