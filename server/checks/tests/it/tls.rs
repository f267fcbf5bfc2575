//! TLS: whose certificates are taken, and whose are not.

use std::sync::Arc;

use konsul_checks::{HttpDefinition, Probe, Prober, Settings, Status, TlsDefinition, Verdict};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::fixture::{PATIENCE, Target, answer, is, settings};

/// A server that signed its own certificate, for `web.example`.
struct Server {
    target: Target,
    pem: String,
}

async fn server(versions: &[&'static rustls::SupportedProtocolVersion], expired: bool) -> Server {
    let mut params = CertificateParams::new(vec!["web.example".to_owned()]).unwrap();
    if expired {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let target = Target::serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer("200 OK", "secret").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    Server { target, pem: certificate.pem() }
}

impl Server {
    /// As HTTPS and as TCP with TLS.
    fn probes(&self, server_name: &str, insecure_skip_verify: bool) -> [Probe; 2] {
        let tls = TlsDefinition { server_name: server_name.into(), insecure_skip_verify };
        let address = self.target.address.to_string();
        let url = format!("https://{address}/");
        [
            Probe::tcp(&address, Some(&tls)).unwrap(),
            Probe::http(&HttpDefinition { url, tls, ..HttpDefinition::default() }).unwrap(),
        ]
    }

    /// A prober that believes the server's certificate.
    fn believer(&self) -> Prober {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &self.pem).unwrap();
        Prober::new(&Settings { ca_file: Some(file.path().to_owned()), ..settings() }).unwrap()
    }
}

async fn each(prober: &Prober, probes: [Probe; 2], judge: impl Fn(&Verdict)) {
    for probe in probes {
        judge(&prober.probe(&probe, PATIENCE).await);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_unless_it_is_asked_for() {
    for versions in [[&rustls::version::TLS13], [&rustls::version::TLS12]] {
        let server = server(&versions, false).await;
        let prober = Prober::new(&settings()).unwrap();
        each(&prober, server.probes("web.example", false), |told| {
            is(told, Status::Critical, "TLS handshake: invalid peer certificate: ");
            assert!(!told.output.contains("secret"), "{}", told.output);
        })
        .await;
        each(&prober, server.probes("", true), |told| is(told, Status::Passing, "")).await;
    }
}

#[tokio::test]
async fn a_certificate_is_for_a_name() {
    let server = server(rustls::ALL_VERSIONS, false).await;
    let prober = server.believer();
    each(&prober, server.probes("web.example", false), |told| is(told, Status::Passing, "")).await;
    for other in ["other.example", ""] {
        let refused = |told: &Verdict| is(told, Status::Critical, "certificate not valid for name");
        each(&prober, server.probes(other, false), refused).await;
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_each_time() {
    let server = server(rustls::ALL_VERSIONS, true).await;
    let prober = server.believer();
    for _ in 0..2 {
        let refused = |told: &Verdict| is(told, Status::Critical, "certificate expired");
        each(&prober, server.probes("web.example", false), refused).await;
    }
}
