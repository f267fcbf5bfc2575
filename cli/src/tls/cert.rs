//! `konsul tls cert`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use clap::Args;
use konsul_server::PEER_NAME;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use serde::Serialize;
use serde_json::json;

use super::Error;
use super::authority::Authority;
use super::files::{Files, absolute};
use super::names::{Name, dns, host};
use super::term::Term;
use crate::output::Text;

const EXAMPLES: &str = "\
Examples:
  konsul tls cert --member a                     a.pem and a-key.pem here, signed by ./ca.pem, for a year
  konsul tls cert --member a --host 10.0.0.1 --host a.konsul.example
  konsul tls cert --member b --ca pki/ca.pem --ca-key pki/ca-key.pem --out pki
  konsul tls cert --member a --out next          a new one before the old one expires
  konsul tls cert --member a -o json | jq -r .expires";

/// Make a certificate for a member
///
/// Writes NAME.pem and its key, NAME-key.pem (mode 0600), for both ends of the members' connections. It is valid for
/// peer.konsul (the name by which members verify each other), the member's name, localhost, 127.0.0.1, ::1, and each --host.
/// Files that are there are not overwritten.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Cert {
    /// Name of the member: 1 to 63 of a-z, 0-9 and -, beginning with a letter
    #[arg(long, value_name = "NAME")]
    member: Name,
    /// Certificate of the authority
    #[arg(long, value_name = "FILE", default_value = "ca.pem")]
    ca: PathBuf,
    /// Key of the authority
    #[arg(long, value_name = "FILE", default_value = "ca-key.pem")]
    ca_key: PathBuf,
    /// DNS name or IP address that it is valid for as well; may be given several times
    #[arg(long = "host", value_name = "DNS_OR_IP", value_parser = host)]
    hosts: Vec<SanType>,
    /// Directory to write to; made if it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Days until it expires, 1 to 36500, but with the authority at the latest
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// A member's certificate that was made.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    ca: String,
    cert: String,
    key: String,
    expires: String,
}

impl Cert {
    pub(super) fn run(self) -> Result<Made, Error> {
        let authority = Authority::read(&self.ca, &self.ca_key)?;
        let files = Files::new(&self.out, self.member.as_str())?;
        let term = Term::of_days(self.days).within(authority.ends);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params(&self.member, self.hosts, term)?.signed_by(&key, &authority.issuer)?;
        files.write(&certificate.pem(), &key.serialize_pem())?;
        Ok(Made {
            ca: absolute(&self.ca)?.display().to_string(),
            cert: files.certificate.display().to_string(),
            key: files.key.display().to_string(),
            expires: term.expires(),
        })
    }
}

fn params(member: &Name, hosts: Vec<SanType>, term: Term) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, member.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let always = [
        dns(PEER_NAME)?,
        dns(member.as_str())?,
        dns("localhost")?,
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    for name in always.into_iter().chain(hosts) {
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    term.apply(&mut params);
    Ok(params)
}

impl Text for Made {
    fn text(&self) -> String {
        let Self { ca, cert, key, expires } = self;
        // What JSON quotes, TOML reads.
        let [tls_ca, tls_cert, tls_key] = [ca, cert, key].map(|path| json!(path));
        format!(
            "wrote {cert} and {key}, valid until {expires}\n\
             in the member's configuration, with the paths that the files have there:\n\
             \n\
             [cluster]\n\
             tls_ca = {tls_ca}\n\
             tls_cert = {tls_cert}\n\
             tls_key = {tls_key}\n"
        )
    }
}
