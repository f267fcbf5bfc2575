//! `konsul tls ca`.

use std::path::PathBuf;

use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use serde::Serialize;

use super::Error;
use super::files::Files;
use super::names::Name;
use super::term::Term;
use crate::output::Text;

const EXAMPLES: &str = "\
Examples:
  konsul tls ca                                  ca.pem and ca-key.pem here, for ten years
  konsul tls ca --out pki --cluster billing      in the directory pki, named after the cluster
  konsul tls ca -o json | jq -r .expires

Whoever has ca-key.pem can make members: keep it where no member is.";

/// Make the authority that a cluster's members trust
///
/// Writes its certificate, ca.pem, which each member gets, and its key, ca-key.pem (mode 0600), which signs the members'
/// certificates. Files that are there are not overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ca {
    /// Directory to write to; made if it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Days until it expires, 1 to 36500; all certificates that it signed expire with it
    #[arg(long, value_name = "N", default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Name of the cluster, by which people know the certificate
    #[arg(long, value_name = "NAME", default_value = "konsul")]
    cluster: Name,
}

/// An authority that was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Made {
    ca: String,
    ca_key: String,
    expires: String,
}

impl Ca {
    pub(super) fn run(self) -> Result<Made, Error> {
        let files = Files::new(&self.out, "ca")?;
        let term = Term::of_days(self.days);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params(&self.cluster, term).self_signed(&key)?;
        files.write(&certificate.pem(), &key.serialize_pem())?;
        Ok(Made {
            ca: files.certificate.display().to_string(),
            ca_key: files.key.display().to_string(),
            expires: term.expires(),
        })
    }
}

fn params(cluster: &Name, term: Term) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster.as_str());
    params.distinguished_name.push(DnType::CommonName, "Konsul CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    term.apply(&mut params);
    params
}

impl Text for Made {
    fn text(&self) -> String {
        let Self { ca, ca_key, expires } = self;
        format!(
            "wrote {ca} and {ca_key}, valid until {expires}\n\
             each member gets {ca} (cluster.tls_ca); {ca_key} makes members, so keep it where none is\n\
             next: konsul tls cert --member NAME --ca {ca} --ca-key {ca_key}\n"
        )
    }
}
