//! DNS of this server: the front's settings from ours, and the catalog as it sees it (`names`).

mod metrics;
mod names;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use konsul_fronts::dns::DnsServer;
use konsul_fronts::dns::settings::{Bounds, RateLimit, Recursion, Settings, Ttls, Zone};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use self::metrics::observe;
pub(crate) use self::names::Names;
pub(crate) use konsul_fronts::dns::Counters;

use crate::Failure;
use crate::boot::write_whole;
use crate::config::DnsSettings;

/// DNS while it is served.
pub(crate) struct Dns {
    /// What it counts.
    pub(crate) counters: Arc<Counters>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Dns {
    /// Binds and serves, if an address is set.
    pub(crate) fn start(
        settings: &DnsSettings,
        names: Arc<Names>,
        runtimes: Vec<Handle>,
    ) -> Result<Option<Self>, Failure> {
        let Some(front) = front(settings)? else { return Ok(None) };
        let server = DnsServer::bind(front, names)?.on(runtimes);
        let counters = server.counters();
        let mut bound = String::new();
        for address in server.local_addrs() {
            tracing::info!(%address, domain = settings.domain, "serving DNS");
            // A String takes everything.
            let _ = writeln!(bound, "dns {address}");
        }
        for (kind, address) in [("tls", server.tls_addr()), ("https", server.https_addr())] {
            if let Some(address) = address {
                tracing::info!(%address, kind, "serving encrypted DNS");
                let _ = writeln!(bound, "{kind} {address}");
            }
        }
        if let Some(path) = &settings.address_file {
            write_whole(path, &bound).map_err(Failure::system("cannot write the DNS address file"))?;
        }
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.run(stop.clone()));
        Ok(Some(Self { counters, stop, serving }))
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "DNS failed");
        }
    }
}

/// The front's settings; `None` if no address is set.
fn front(settings: &DnsSettings) -> Result<Option<Settings>, Failure> {
    let listen: Vec<_> = settings.listen.into_iter().collect();
    let tls_listen: Vec<_> = settings.tls_listen.into_iter().collect();
    let https_listen: Vec<_> = settings.https_listen.into_iter().collect();
    if listen.is_empty() && tls_listen.is_empty() && https_listen.is_empty() {
        return Ok(None);
    }
    let tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Some(Arc::new(certificate(cert, key)?)),
        _ => None,
    };
    let recursion = (!settings.recursors.0.is_empty()).then(|| Recursion {
        timeout: settings.recursor_timeout,
        ..Recursion::to(settings.recursors.0.clone())
    });
    let rate_limit = (settings.answers_per_second > 0).then(|| RateLimit {
        answers_per_second: settings.answers_per_second,
        burst: settings.answers_per_second.saturating_mul(2),
        ..RateLimit::default()
    });
    let ttls = Ttls {
        service: settings.service_ttl,
        node: settings.node_ttl,
        negative: settings.negative_ttl,
        ..Ttls::default()
    };
    Ok(Some(Settings {
        listen,
        tls_listen,
        https_listen,
        tls,
        zone: Zone {
            domain: settings.domain.clone(),
            alternatives: settings.alternative_domains.0.clone(),
            datacenter: settings.datacenter.clone(),
            name_servers: Vec::new(),
        },
        ttls,
        only_passing: settings.only_passing,
        max_udp_bytes: u16::try_from(settings.max_udp_bytes).unwrap_or(u16::MAX),
        max_stale: Some(settings.max_stale).filter(|age| !age.is_zero()),
        recursion,
        rate_limit,
        bounds: Bounds::default(),
        ..Settings::default()
    }))
}

fn certificate(cert: &Path, key: &Path) -> Result<ServerConfig, Failure> {
    let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
        Failure::Setup(format!("DNS over TLS: cannot use {}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| unreadable(cert, &e))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| Failure::Setup(format!("DNS over TLS: {e}")))?;
    builder.with_no_client_auth().with_single_cert(chain, private).map_err(|e| unreadable(cert, &e))
}
