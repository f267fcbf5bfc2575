//! TLS and HTTPS: what is no request is refused, and who is silent is closed. That kdig is answered is in `tools`.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hickory_proto::op::Message;
use konsul_fronts::dns::Settings;
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::fixture::{Running, question, settings};

const HOST: &str = "dns.example";

/// A certificate for `dns.example`.
pub(crate) fn certified() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap()
}

/// Settings with TLS and HTTPS on free ports.
pub(crate) fn encrypted(certified: &CertifiedKey<KeyPair>) -> Settings {
    let private = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], private)
        .unwrap();
    let free = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    Settings { tls: Some(Arc::new(config)), tls_listen: free.clone(), https_listen: free, ..settings() }
}

async fn connect(
    address: SocketAddr,
    certified: &CertifiedKey<KeyPair>,
    alpn: &[u8],
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HOST).unwrap(), stream).await.unwrap()
}

/// Sends a request and gives the answer's head and body.
async fn exchange(stream: &mut TlsStream<TcpStream>, head: &str, body: &[u8]) -> (String, Vec<u8>) {
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes without a word of TLS is no concern here.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head") + 4;
    let body = answer.split_off(end);
    (String::from_utf8(answer).unwrap().to_ascii_lowercase(), body)
}

fn post(path: &str, media_type: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\ncontent-type: {media_type}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n")
}

/// RFC 8484 §4.2.1, §5.1: an answer may be kept as long as its shortest record.
#[tokio::test]
async fn http_caches_are_told_how_long_an_answer_is_good() {
    let certified = certified();
    let server = Running::start(encrypted(&certified));
    for (asked, age) in
        [("kept.service.konsul. A", 30), ("web.service.konsul. A", 0), ("none.service.konsul. A", 1)]
    {
        let wire = question(asked).to_vec().unwrap();
        let target = format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(&wire));
        for (head, body) in
            [(get(&target), &[][..]), (post("/dns-query", "application/dns-message", wire.len()), &wire)]
        {
            let mut stream = connect(server.https.unwrap(), &certified, b"http/1.1").await;
            let (head, body) = exchange(&mut stream, &head, body).await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
            assert!(head.contains("content-type: application/dns-message\r\n"), "{head}");
            assert!(head.contains(&format!("cache-control: max-age={age}\r\n")), "{asked}: {head}");
            assert_eq!(Message::from_vec(&body).unwrap().queries, question(asked).queries);
        }
    }
    server.stop().await;
}

/// RFC 8484 §4.1, RFC 9110 §15.5: what is no question in an HTTP request is told why.
#[tokio::test]
async fn what_is_no_request_is_refused() {
    let certified = certified();
    let server = Running::start(encrypted(&certified));
    let wire = question("kept.service.konsul. A").to_vec().unwrap();
    let large = vec![0; 65_536];
    let response = [&wire[..2], &[0x80], &wire[3..]].concat();
    let rows: [(String, &[u8], &str); 9] = [
        (post("/", "application/dns-message", wire.len()), &wire, "404"),
        (post("/dns-query", "text/plain", wire.len()), &wire, "415"),
        (post("/dns-query", "application/dns-message", large.len()), &large, "413"),
        (post("/dns-query", "application/dns-message", 0), &[], "400"),
        (post("/dns-query", "application/dns-message", response.len()), &response, "400"),
        (get("/dns-query"), &[], "400"),
        (get("/dns-query?dns=***"), &[], "400"),
        (get(&format!("/dns-query?dns={}", "A".repeat(20_000))), &[], "431"),
        (get("/dns-query").replace("GET", "PUT"), &[], "405"),
    ];
    for (head, body, status) in rows {
        let mut stream = connect(server.https.unwrap(), &certified, b"http/1.1").await;
        let (answer, _) = exchange(&mut stream, &head, body).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{}: {answer}", &head[..40]);
    }
    server.stop().await;
}

/// Whoever does not finish a handshake, or asks nothing more, is closed.
#[tokio::test]
async fn silent_clients_are_closed() {
    let certified = certified();
    let mut settings = encrypted(&certified);
    settings.bounds.idle_timeout = Duration::from_millis(300);
    let server = Running::start(settings);
    let (tls, https) = (server.tls.unwrap(), server.https.unwrap());
    for address in [tls, https] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut [0])).await;
        assert_eq!(read.expect("closed").unwrap(), 0, "without a handshake");
    }
    for (address, alpn) in [(tls, &b"dot"[..]), (https, b"h2"), (https, b"http/1.1")] {
        let mut stream = connect(address, &certified, alpn).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let mut rest = Vec::new();
        // HTTP/2 says some more before it ends.
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "still open: {}", String::from_utf8_lossy(alpn));
    }
    server.stop().await;
}

/// A client that asks and asks and never reads is cut.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let certified = certified();
    let mut settings = encrypted(&certified);
    settings.bounds.idle_timeout = Duration::from_millis(300);
    let server = Running::start(settings);
    let wire = question("big.service.konsul. SRV").to_vec().unwrap();
    let head = get(&format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(&wire)))
        .replace("connection: close\r\n", "");
    let mut stream = connect(server.https.unwrap(), &certified, b"http/1.1").await;
    let flood = async { while stream.write_all(head.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(20), flood).await.expect("the connection is cut");
    server.stop().await;
}

/// When the front stops, so do its encrypted connections.
#[tokio::test]
async fn a_front_that_stops_closes_encrypted_connections() {
    let certified = certified();
    let server = Running::start(encrypted(&certified));
    let mut open = Vec::new();
    for (address, alpn) in [(server.tls.unwrap(), &b"dot"[..]), (server.https.unwrap(), b"h2")] {
        open.push(connect(address, &certified, alpn).await);
        open.push(connect(address, &certified, alpn).await);
    }
    server.stop().await;
    for mut stream in open {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "still open");
    }
}
