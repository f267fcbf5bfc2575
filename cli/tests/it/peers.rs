//! Whoever comes to the peer port of a real cluster and is no member: he is told nothing, and nothing changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::konsul::LIMIT;
use crate::members::{Trio, certified, member};
use crate::server::{Server, free_port};

/// Broken conversations with each member.
const ROUNDS: usize = 60;
/// How long an answer is listened for where there need not be one.
const PATIENCE: Duration = Duration::from_millis(20);

/// A TLS client that believes the authority in `ca`, with the certificate of this name in `own`.
fn tls(ca: &Path, own: Option<(&Path, &str)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca.join("ca.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some((pki, name)) => {
            let chain = vec![CertificateDer::from_pem_file(pki.join(format!("{name}.pem"))).unwrap()];
            let key = PrivateKeyDer::from_pem_file(pki.join(format!("{name}-key.pem"))).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// What a client of gRPC sends first.
async fn opening() -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let (mut send, connection) = h2::client::handshake(ours).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::post("http://peer.konsul/konsul.peer.Peer/Heartbeat")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (_answer, mut body) = send.send_request(request, false).unwrap();
    body.send_data(Bytes::from_static(&[0, 0, 0, 0, 4, 1, 2, 3, 4]), true).unwrap();
    let mut sent = vec![0; 1 << 16];
    let mut len = 0;
    while let Ok(Ok(more)) = tokio::time::timeout(10 * PATIENCE, theirs.read(&mut sent[len..])).await {
        len += more;
    }
    connection.abort();
    sent.truncate(len);
    sent
}

/// Says something, and hears what comes until the other side closes the connection.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    // Whoever was refused already can't send, and may read why.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut heard)).await;
    let _: std::io::Result<usize> = read.expect("the connection is kept open");
    heard
}

async fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Fails if something was told that only members may know.
fn tells_nothing(heard: &[u8], secrets: &[String]) {
    for secret in secrets {
        let told = heard.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!told, "{secret} was told in {:?}", String::from_utf8_lossy(heard));
    }
}

#[tokio::test]
async fn without_a_certificate_of_the_cluster_nothing_is_heard() {
    let (pki, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trio = Trio::start(Some(pki.path())).await;
    let outsider = certified(
        member("heron", &format!("127.0.0.1:{}", free_port()), &trio.peers),
        foreign.path(),
        "heron",
    );
    let (before, secrets) = (trio.facts().await, trio.secrets().await);
    let opening = opening().await;
    let name = || ServerName::try_from("peer.konsul").unwrap();

    for address in &trio.peers {
        for (what, connector) in [
            ("no certificate", tls(pki.path(), None)),
            ("another authority's", tls(pki.path(), Some((foreign.path(), "heron")))),
        ] {
            // With TLS 1.3 a client learns only after its handshake that it was refused.
            let heard = match connector.connect(name(), connect(address).await).await {
                Ok(stream) => say(stream, &opening).await,
                Err(_) => Vec::new(),
            };
            assert_eq!(heard, b"", "{what}: was answered");
        }
        for plain in [&opening[..], b"GET / HTTP/1.1\r\nhost: konsul\r\n\r\n"] {
            let heard = say(connect(address).await, plain).await;
            // An alert of TLS at most.
            assert!(heard.len() < 16, "was answered {heard:?}");
            tells_nothing(&heard, &secrets);
        }
    }
    // Whoever says nothing, or begins and does not go on, is not waited for.
    let silent = [&b""[..], b"\x16", b"\x16\x03\x01\x40\x00"];
    let silent = silent.map(|bytes| async { say(connect(&trio.peers[0]).await, bytes).await });
    assert!(join_all(silent).await.iter().all(|heard| heard.len() < 16));

    // A whole server of another authority does not come in either, nor does it keep the cluster busy.
    let outsider = outsider.start();
    assert_eq!(trio.facts().await, before);
    trio.go_on();
    assert!(outsider.ok(&["cluster", "members"]).contains("no cluster"));
    await_log(&outsider, "invalid peer certificate").await;

    // The same bytes with a certificate of the cluster are heard, so it was the certificate.
    let insider = tls(pki.path(), Some((pki.path(), "kestrel")));
    let mut stream = insider.connect(name(), connect(&trio.peers[0]).await).await.unwrap();
    stream.write_all(&opening).await.unwrap();
    assert_ne!(stream.read_u8().await.unwrap(), 0xff);
}

#[tokio::test]
async fn broken_http2_ends_its_own_connection_and_nothing_else() {
    let seed =
        std::env::var("KONSUL_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    eprintln!("KONSUL_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let pki = tempfile::tempdir().unwrap();
    let opening = opening().await;
    for pki in [None, Some(pki.path())] {
        let trio = Trio::start(pki).await;
        let (before, secrets) = (trio.facts().await, trio.secrets().await);
        for address in &trio.peers {
            for _ in 0..ROUNDS {
                let bytes = broken(&mut rng, &opening);
                let stream = connect(address).await;
                let heard = match pki {
                    None => say_and_leave(stream, &bytes).await,
                    Some(pki) => {
                        let name = ServerName::try_from("peer.konsul").unwrap();
                        let connector = tls(pki, Some((pki, "kestrel")));
                        say_and_leave(connector.connect(name, stream).await.unwrap(), &bytes).await
                    }
                };
                tells_nothing(&heard, &secrets);
            }
        }
        assert_eq!(trio.facts().await, before);
        trio.go_on();
    }
}

/// Says something, and leaves when there is nothing more to hear for now.
async fn say_and_leave(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    let _ = stream.write_all(bytes).await;
    let mut heard = vec![0; 1 << 16];
    match tokio::time::timeout(PATIENCE, stream.read(&mut heard)).await {
        Ok(Ok(len)) => heard.truncate(len),
        Ok(Err(_)) | Err(_) => heard.clear(),
    }
    heard
}

/// A conversation that is cut off, damaged, or none.
fn broken(rng: &mut StdRng, opening: &[u8]) -> Vec<u8> {
    let mut bytes = opening.to_vec();
    let preface = 24;
    match rng.random_range(0..4) {
        0 => bytes.truncate(rng.random_range(0..bytes.len())),
        1 => (0..rng.random_range(1..5)).for_each(|_| {
            let at = rng.random_range(preface..bytes.len());
            bytes[at] ^= 1 << rng.random_range(0..8);
        }),
        2 => {
            // A frame of any kind that promises more than it has.
            bytes.truncate(preface);
            bytes.extend_from_slice(&[
                0xff,
                0xff,
                rng.random(),
                rng.random_range(0..12),
                rng.random(),
                0,
                0,
                0,
            ]);
            bytes.push(rng.random());
            bytes.resize(bytes.len() + rng.random_range(0..64), 0);
        }
        _ => {
            bytes.truncate(if rng.random() { preface } else { 0 });
            let mut noise = vec![0; rng.random_range(1..512)];
            rng.fill_bytes(&mut noise);
            bytes.extend_from_slice(&noise);
        }
    }
    bytes
}

#[tokio::test]
async fn servers_that_do_not_know_the_token_or_the_name_stay_outside_and_say_why() {
    let trio = Trio::start(None).await;
    let before = trio.facts().await;
    let newcomer = || member("heron", &format!("127.0.0.1:{}", free_port()), &trio.peers);
    let refused = [
        newcomer().set("KONSUL_CLUSTER_JOIN_TOKEN", "another token").start(),
        newcomer().set("KONSUL_CLUSTER_NAME", "another-cluster").start(),
    ];
    for server in refused {
        await_log(&server, "the join token or the cluster's name is not this cluster's").await;
        assert!(server.ok(&["cluster", "members"]).contains("no cluster"));
    }
    assert_eq!(trio.facts().await, before);
    trio.go_on();
}

async fn await_log(server: &Server, text: &str) {
    let came = async {
        while !server.log().contains(text) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, came).await.is_ok(), "not logged: {text}");
}
