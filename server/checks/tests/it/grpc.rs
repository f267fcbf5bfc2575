//! gRPC checks of tonic's health service, and of servers that have none or answer nonsense.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Response};
use konsul_checks::{Probe, Prober, Settings, Status, TlsDefinition};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;

use crate::fixture::{PATIENCE, Target, closed, is, probe, settings};

/// A tonic server that runs until it goes.
struct Running(SocketAddr, #[allow(dead_code, reason = "held for its end")] JoinSet<()>);

async fn serve(mut server: Server, routes: Routes) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut running = JoinSet::new();
    running.spawn(async move {
        let router = server.add_routes(routes);
        router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
    });
    Running(address, running)
}

async fn health() -> Routes {
    let (reporter, service) = tonic_health::server::health_reporter();
    for (name, status) in [
        ("up", ServingStatus::Serving),
        ("down", ServingStatus::NotServing),
        ("unsure", ServingStatus::Unknown),
    ] {
        reporter.set_service_status(name, status).await;
    }
    Routes::new(service)
}

fn ask(address: SocketAddr, service: &str) -> Probe {
    Probe::grpc(&address.to_string(), service, None).unwrap()
}

#[tokio::test]
async fn a_health_service_is_asked() {
    let Running(address, _running) = serve(Server::builder(), health().await).await;
    for (service, status, words) in [
        ("", Status::Passing, format!("gRPC {address}: SERVING")),
        ("up", Status::Passing, format!("gRPC {address} up: SERVING")),
        ("down", Status::Critical, format!("gRPC {address} down: NOT_SERVING")),
        ("unsure", Status::Critical, format!("gRPC {address} unsure: UNKNOWN")),
        ("other", Status::Critical, format!("gRPC {address} other: the service is unknown there")),
    ] {
        is(&probe(&ask(address, service)).await, status, &words);
    }
}

#[tokio::test]
async fn servers_without_a_health_service() {
    let Running(address, _running) = serve(Server::builder(), Routes::default()).await;
    is(
        &probe(&ask(address, "")).await,
        Status::Critical,
        "the server has no health service (grpc.health.v1)",
    );
    let (address, _client, _server) = closed();
    is(&probe(&ask(address, "x")).await, Status::Critical, "x: connection refused (127.0.0.1)");
}

#[tokio::test]
async fn with_tls() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["grpc.example".to_owned()]).unwrap();
    let identity = Identity::from_pem(cert.pem(), signing_key.serialize_pem());
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    let Running(address, _running) = serve(server, health().await).await;
    let ask = |server_name: &str, insecure_skip_verify| {
        let tls = TlsDefinition { server_name: server_name.into(), insecure_skip_verify };
        Probe::grpc(&address.to_string(), "up", Some(&tls)).unwrap()
    };
    is(&probe(&ask("", true)).await, Status::Passing, "up: SERVING");
    is(
        &probe(&ask("grpc.example", false)).await,
        Status::Critical,
        "TLS handshake: invalid peer certificate",
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cert.pem()).unwrap();
    let believer = Prober::new(&Settings { ca_file: Some(file.path().to_owned()), ..settings() }).unwrap();
    is(&believer.probe(&ask("grpc.example", false), PATIENCE).await, Status::Passing, "up: SERVING");
}

/// A server that answers every call with these, in HTTP/2 that is otherwise sound.
async fn answers(status: u16, body: Vec<u8>, trailers: Vec<(&'static str, &'static str)>) -> Target {
    Target::serve(move |stream| {
        let (body, trailers) = (body.clone(), trailers.clone());
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let head = Response::builder().status(status).body(()).unwrap();
                let Ok(mut sending) = respond.send_response(head, false) else { return };
                let trailers: HeaderMap = trailers
                    .iter()
                    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                    .collect();
                let _ = sending.send_data(Bytes::from(body.clone()), false);
                let _ = sending.send_trailers(trailers);
            }
        }
    })
    .await
}

#[tokio::test]
async fn answers_that_are_none() {
    let serving = vec![0, 0, 0, 0, 2, 8, 1];
    for (status, body, trailers, words) in [
        (404, vec![], vec![], "404 Not Found: this is no gRPC server"),
        (200, serving.clone(), vec![], "the answer has no grpc-status"),
        (200, vec![], vec![("grpc-status", "0")], "the answer has no message"),
        (200, vec![0, 0], vec![("grpc-status", "0")], "the answer has no message"),
        (200, vec![1, 0, 0, 0, 2, 8, 1], vec![("grpc-status", "0")], "the answer has no message"),
        (200, vec![0, 0, 0, 0, 2, 8, 0xff], vec![("grpc-status", "0")], "is no HealthCheckResponse"),
        (200, vec![0, 0, 0, 0, 2, 8, 9], vec![("grpc-status", "0")], "an unknown status (9)"),
        (
            200,
            vec![],
            vec![("grpc-status", "5"), ("grpc-message", "who?")],
            "the service is unknown there: who?",
        ),
        (
            200,
            vec![],
            vec![("grpc-status", "16"), ("grpc-message", "no")],
            "the call failed with code 16: no",
        ),
        (200, vec![0; 5000], vec![("grpc-status", "0")], "the target sent more than"),
    ] {
        let target = answers(status, body, trailers).await;
        is(&probe(&ask(target.address, "")).await, Status::Critical, words);
    }
    let target = answers(200, serving, vec![("grpc-status", "0")]).await;
    is(&probe(&ask(target.address, "")).await, Status::Passing, ": SERVING");
}
