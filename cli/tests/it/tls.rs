//! `konsul tls`: what it makes is what rustls accepts on both ends of a connection, and openssl at rest.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::konsul::{LIMIT, Run, konsul};

/// A directory where certificates are made.
struct Pki {
    folder: TempDir,
}

impl Pki {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With an authority in it.
    fn new() -> Self {
        let pki = Self::empty();
        pki.run(&["ca"]).success();
        pki
    }

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(konsul().arg("tls").args(arguments).current_dir(self.path("")), b"")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat()).success()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn names(&self) -> BTreeSet<String> {
        names(self.folder.path())
    }

    /// A member with a certificate of this authority.
    fn member(&self, name: &str, hosts: &[&str]) -> Member {
        let hosts: Vec<&str> = hosts.iter().flat_map(|host| ["--host", host]).collect();
        self.run(&[&["cert", "--member", name], &hosts[..]].concat()).success();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        Member {
            roots: Arc::new(roots),
            chain: vec![CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).unwrap()],
            key: PrivateKeyDer::from_pem_file(self.path(&format!("{name}-key.pem"))).unwrap(),
        }
    }
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a member has of its own, and whom it trusts.
struct Member {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Member {
    fn server(&self) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
            .build()
            .unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap()
    }

    fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .unwrap()
    }
}

/// Connects one member to another over TCP, as `name`, and sends a byte there and back: with TLS 1.3 a client learns only by reading
/// that its certificate was refused. What each end says.
async fn meet(server: &Member, client: &Member, name: &str) -> [Result<(), String>; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server.server()));
    let connector = TlsConnector::from(Arc::new(client.client()));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let serve = async {
        let mut stream = acceptor.accept(listener.accept().await?.0).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.shutdown().await
    };
    let connect = async {
        let mut stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        stream.write_u8(7).await?;
        assert_eq!(stream.read_u8().await?, 7);
        Ok::<_, std::io::Error>(())
    };
    let ends = async { tokio::join!(serve, connect) };
    let (served, connected) = tokio::time::timeout(LIMIT, ends).await.unwrap();
    [served.map_err(|error| error.to_string()), connected.map_err(|error| error.to_string())]
}

const MET: [Result<(), String>; 2] = [Ok(()), Ok(())];

#[tokio::test]
async fn members_of_one_authority_accept_each_other() {
    let pki = Pki::new();
    let longest = "b".repeat(63);
    let (a, b) = (pki.member("node-1", &["a.example", "10.0.0.1", "fd00::1"]), pki.member(&longest, &[]));
    assert_eq!(meet(&a, &b, "peer.konsul").await, MET);
    assert_eq!(meet(&b, &a, "peer.konsul").await, MET);
    for name in ["node-1", "localhost", "127.0.0.1", "::1", "a.example", "10.0.0.1", "fd00::1"] {
        assert_eq!(meet(&a, &b, name).await, MET, "as {name}");
    }
    for name in [longest.as_str(), "konsul", "other.example", "10.0.0.2"] {
        let [_, connected] = meet(&a, &b, name).await;
        assert!(connected.unwrap_err().contains("not valid for name"), "as {name}");
    }
}

#[tokio::test]
async fn members_of_another_authority_are_refused() {
    let (ours, theirs) = (Pki::new(), Pki::new());
    let (member, stranger) = (ours.member("a", &[]), theirs.member("a", &[]));
    let [_, connected] = meet(&stranger, &member, "peer.konsul").await;
    let refusal = connected.unwrap_err();
    assert!(refusal.contains("invalid peer certificate"), "{refusal}");

    // A stranger who trusts our authority is told by the server.
    let trusting = Member { roots: member.roots.clone(), ..stranger };
    let [served, connected] = meet(&member, &trusting, "peer.konsul").await;
    let refusal = served.unwrap_err();
    assert!(refusal.contains("invalid peer certificate"), "{refusal}");
    assert!(connected.is_err());
}

#[test]
fn openssl_accepts_them_too() {
    let pki = Pki::new();
    pki.run(&["cert", "--member", "a", "--host", "a.example"]).success();
    let openssl = |arguments: &[&str]| {
        let run = Run::of(Command::new("openssl").args(arguments).current_dir(pki.path("")), b"");
        assert_eq!(run.code, Some(0), "{arguments:?}: {run:?}");
        run.text()
    };
    for purpose in ["sslserver", "sslclient"] {
        let verify = ["verify", "-x509_strict", "-CAfile", "ca.pem", "-purpose", purpose];
        for name in ["peer.konsul", "a", "a.example"] {
            assert_eq!(openssl(&[&verify, &["-verify_hostname", name, "a.pem"][..]].concat()), "a.pem: OK\n");
        }
    }
    assert_eq!(
        openssl(&["pkey", "-in", "a-key.pem", "-pubout"]),
        openssl(&["x509", "-in", "a.pem", "-noout", "-pubkey"])
    );
    assert!(openssl(&["x509", "-in", "ca.pem", "-noout", "-text"]).contains("NIST CURVE: P-256"));
}

#[test]
fn it_tells_what_it_wrote_and_what_to_set() {
    let pki = Pki::empty();
    let said = pki.run(&["ca", "--out", "new/dir"]).success();
    let folder = fs::canonicalize(pki.path("new/dir")).unwrap();
    let path = |name: &str| folder.join(name).display().to_string();
    assert!(said.contains(&format!("wrote {} and {}", path("ca.pem"), path("ca-key.pem"))), "{said}");
    let authority = ["--ca", "new/dir/ca.pem", "--ca-key", "new/dir/ca-key.pem", "--out", "new/dir"];
    let said = pki.run(&[&["cert", "--member", "a"], &authority[..]].concat()).success();
    let (_, settings) = said.split_once("\n\n").unwrap();
    assert_eq!(
        settings,
        format!(
            "[cluster]\ntls_ca = \"{}\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
            path("ca.pem"),
            path("a.pem"),
            path("a-key.pem")
        )
    );
    let made = pki.json(&[&["cert", "--member", "b"], &authority[..]].concat());
    assert_eq!(
        [&made["ca"], &made["cert"], &made["key"]],
        [&path("ca.pem"), &path("b.pem"), &path("b-key.pem")]
    );
    assert_eq!(
        names(&folder),
        ["a-key.pem", "a.pem", "b-key.pem", "b.pem", "ca-key.pem", "ca.pem"].map(String::from).into()
    );
}

#[test]
fn keys_are_for_their_owner_alone() {
    let pki = Pki::new();
    pki.run(&["cert", "--member", "a"]).success();
    let mode = |name| fs::metadata(pki.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("ca-key.pem"), mode("a-key.pem")], [0o600; 2]);
    assert_ne!(mode("ca.pem") & 0o400, 0);
}

#[test]
fn no_file_is_overwritten() {
    let pki = Pki::empty();
    for (arguments, name) in [
        (&["ca"][..], "ca-key.pem"),
        (&["ca"], "ca.pem"),
        (&["cert", "--member", "a"], "a-key.pem"),
        (&["cert", "--member", "a"], "a.pem"),
    ] {
        fs::write(pki.path(name), "mine").unwrap();
        let before = pki.names();
        let line = pki.run(arguments).failure(1);
        assert!(line.contains(name) && line.contains("exists already"), "{line}");
        assert_eq!(fs::read_to_string(pki.path(name)).unwrap(), "mine");
        assert_eq!(pki.names(), before, "nothing else was written");
        fs::remove_file(pki.path(name)).unwrap();
        if name == "ca.pem" {
            pki.run(&["ca"]).success();
        }
    }
}

#[test]
fn a_certificate_expires_with_its_authority_at_the_latest() {
    let pki = Pki::empty();
    let authority = pki.json(&["ca", "--days", "2"]);
    assert_eq!(pki.json(&["cert", "--member", "a"])["expires"], authority["expires"]);
    assert_ne!(pki.json(&["cert", "--member", "b", "--days", "1"])["expires"], authority["expires"]);
}

#[test]
fn wrong_names_and_days_are_wrong_usage() {
    let pki = Pki::new();
    let long = "a".repeat(64);
    let before = pki.names();
    let member = |name| vec!["cert", "--member", name];
    let option = |name, value| vec!["cert", "--member", "a", name, value];
    for arguments in [
        vec!["cert"],
        member(""),
        member("A"),
        member("1a"),
        member("a_b"),
        member("a.b"),
        member("../a"),
        member("a-"),
        member(&long),
        option("--days", "0"),
        option("--days", "36501"),
        option("--days", "soon"),
        option("--host", ""),
        option("--host", "a:8300"),
        option("--host", "http://a"),
        vec!["ca", "--days", "0"],
        vec!["ca", "--cluster", "My Cluster"],
    ] {
        let run = pki.run(&arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {run:?}");
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{arguments:?}: {run:?}");
    }
    assert_eq!(pki.names(), before);
}

#[test]
fn what_cannot_sign_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.run(&["cert", "--member", "leaf"]).success();
    fs::write(pki.path("garbage.pem"), "not this").unwrap();
    let foreign = other.path("ca-key.pem").display().to_string();
    let before = pki.names();
    for (ca, key, why) in [
        ("absent.pem", "ca-key.pem", "konsul tls ca"),
        ("ca.pem", "absent.pem", "konsul tls ca"),
        ("garbage.pem", "ca-key.pem", "garbage.pem is not a certificate in PEM"),
        ("ca-key.pem", "ca-key.pem", "ca-key.pem is not a certificate in PEM"),
        ("ca.pem", "garbage.pem", "garbage.pem is not a private key in PEM"),
        ("ca.pem", "ca.pem", "ca.pem is not a private key in PEM"),
        ("leaf.pem", "leaf-key.pem", "leaf.pem is not the certificate of an authority"),
        ("ca.pem", foreign.as_str(), "is not the key of ca.pem"),
    ] {
        let line = pki.run(&["cert", "--member", "a", "--ca", ca, "--ca-key", key]).failure(1);
        assert!(line.contains(why), "{ca} and {key}: {line}");
    }
    let line = pki.run(&["cert", "--member", "a", "--out", "garbage.pem"]).failure(1);
    assert!(line.contains("cannot write"), "{line}");
    assert_eq!(pki.names(), before);
}
