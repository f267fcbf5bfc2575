//! What proves who is at the other end: every member has a certificate of the cluster's own authority, for the name
//! [`PEER_NAME`], wherever it runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

use crate::error::RaftError;

/// The name in every member's certificate.
pub const PEER_NAME: &str = "peer.konsul";

/// How long whoever connects may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Files of the certificates, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority whose certificates are believed.
    pub ca: PathBuf,
    /// This member's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The certificates, read.
pub(crate) struct Tls {
    ca: Certificate,
    identity: Identity,
}

impl Tls {
    /// Reads them.
    ///
    /// # Errors
    /// [`RaftError`] when one can't be read; whether they fit together shows when they are used.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, RaftError> {
        let read = |path: &Path| std::fs::read(path).map_err(RaftError::file(path));
        Ok(Self {
            ca: Certificate::from_pem(read(&files.ca)?),
            identity: Identity::from_pem(read(&files.cert)?, read(&files.key)?),
        })
    }

    pub(super) fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(self.ca.clone())
            .identity(self.identity.clone())
            .domain_name(PEER_NAME)
    }

    pub(super) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(self.identity.clone())
            .client_ca_root(self.ca.clone())
            .client_auth_optional(false)
            .timeout(HANDSHAKE)
    }
}
