//! What can go wrong when certificates are made.

use std::io;
use std::path::PathBuf;

/// Why there is no certificate. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file of the authority cannot be read.
    #[error(
        "cannot read {} ({error}): name the authority's files with --ca and --ca-key, or make them with `konsul tls ca`",
        path.display()
    )]
    Read { path: PathBuf, error: io::Error },
    /// A file of the authority holds something else.
    #[error("{} is not {what} in PEM", path.display())]
    NotPem { path: PathBuf, what: &'static str },
    /// The certificate is not an authority's.
    #[error("{} is not the certificate of an authority: it may not sign others", path.display())]
    NotAuthority { path: PathBuf },
    /// The key is another one's.
    #[error("{} is not the key of {}", key.display(), certificate.display())]
    OtherKey { certificate: PathBuf, key: PathBuf },
    /// The authority's own time is over.
    #[error("{} expired on {expired}: make a new authority with `konsul tls ca`", path.display())]
    Expired { path: PathBuf, expired: String },
    /// A file is there already.
    #[error("{} exists already and is not overwritten: move it away, or choose another directory with --out", path.display())]
    Exists { path: PathBuf },
    /// A file or its directory cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write { path: PathBuf, error: io::Error },
    /// The key or the certificate could not be made.
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
}
