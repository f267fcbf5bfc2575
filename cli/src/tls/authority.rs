//! A certificate authority, read from its files. What it could not sign so that members accept it is refused here.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{Issuer, KeyPair, PublicKeyData};
use x509_parser::pem::parse_x509_pem;

use super::{Error, term};

/// An authority that may sign now.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// When its own certificate ends.
    pub(super) ends: SystemTime,
}

impl Authority {
    /// Reads the certificate and the key that belongs to it, both in PEM.
    pub(super) fn read(certificate_path: &Path, key_path: &Path) -> Result<Self, Error> {
        let not_pem = |what| move || Error::NotPem { path: certificate_path.into(), what };
        let text = read(certificate_path)?;
        let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| not_pem("a certificate")())?;
        let certificate = pem.parse_x509().map_err(|_| not_pem("a certificate")())?;
        if !certificate.is_ca() {
            return Err(Error::NotAuthority { path: certificate_path.into() });
        }
        let ends = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let ends = UNIX_EPOCH + Duration::from_secs(ends);
        if ends <= SystemTime::now() {
            return Err(Error::Expired { path: certificate_path.into(), expired: term::text(ends) });
        }
        let key = KeyPair::from_pem(&read(key_path)?)
            .map_err(|_| Error::NotPem { path: key_path.into(), what: "a private key" })?;
        if key.subject_public_key_info() != certificate.public_key().raw {
            return Err(Error::OtherKey { certificate: certificate_path.into(), key: key_path.into() });
        }
        let issuer = Issuer::from_ca_cert_der(&pem.contents.as_slice().into(), key)?;
        Ok(Self { issuer, ends })
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| Error::Read { path: path.into(), error })
}
