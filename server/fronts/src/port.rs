//! What is spoken on the one port: gRPC by its content type goes to the Door, everything else to the pages.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use futures_util::future::Either;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::transport::server::TcpConnectInfo;
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

    /// The service of one connection.
    pub(crate) fn on_connection(self, info: TcpConnectInfo) -> OnConnection<D> {
        OnConnection { port: self, info }
    }
}

#[derive(Clone)]
pub(crate) struct OnConnection<D> {
    port: Port<D>,
    info: TcpConnectInfo,
}

type Page = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<D: Grpc> Service<Request<Incoming>> for OnConnection<D> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<D::Future, Page>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both services below are always ready: their bounds are kept per call.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        if is_grpc(&request) {
            request.extensions_mut().insert(self.info.clone());
            return Either::Left(self.port.door.call(request));
        }
        let pages = self.port.pages.clone();
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
