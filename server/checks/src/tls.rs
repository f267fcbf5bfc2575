//! How a target's certificate is checked. Configurations are made once: to make one costs as much as a handshake.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use crate::probe::Tls;
use crate::settings::SettingsError;

/// What is spoken within TLS, as its handshake names it (RFC 7301).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// Nobody says.
    Any,
    Http1,
    Http2,
}

/// All there are: by whether certificates are checked, and by what is spoken.
pub(crate) struct Connectors {
    checking: [TlsConnector; 3],
    trusting: [TlsConnector; 3],
}

impl Connectors {
    /// Believes the authorities that browsers believe, and those of a file.
    ///
    /// # Errors
    /// [`SettingsError`] when the file can't be used.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, SettingsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca_file {
            add(&mut roots, path)?;
        }
        let checking = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build()?;
        let trusting = Arc::new(TakesAny(provider.clone()));
        Ok(Self {
            checking: each_protocol(&provider, checking)?,
            trusting: each_protocol(&provider, trusting)?,
        })
    }

    /// How to speak a protocol as a check wants it.
    pub(crate) fn for_check(&self, tls: &Tls, protocol: Protocol) -> &TlsConnector {
        let [any, http1, http2] = if tls.insecure_skip_verify { &self.trusting } else { &self.checking };
        match protocol {
            Protocol::Any => any,
            Protocol::Http1 => http1,
            Protocol::Http2 => http2,
        }
    }
}

fn each_protocol(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<[TlsConnector; 3], rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A session that is resumed shows no certificate, and one that has expired meanwhile would go unnoticed.
    config.resumption = Resumption::disabled();
    let with = |protocols: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    };
    Ok([with(&[]), with(&[b"http/1.1"]), with(&[b"h2"])])
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), SettingsError> {
    let refuse = |problem: String| SettingsError::CaFile { path: path.to_owned(), problem };
    let pem = fs::read(path).map_err(|error| refuse(error.to_string()))?;
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        roots.add(certificate).map_err(|error| refuse(error.to_string()))?;
        any = true;
    }
    if any { Ok(()) } else { Err(refuse("has none in PEM".into())) }
}

/// Takes any certificate, but has it proved that the target has its key.
#[derive(Debug)]
struct TakesAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
