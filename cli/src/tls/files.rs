//! Writes a certificate and its key: each whole, both or neither, and never over a file that is there.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::Error;

/// What others may do with a certificate, and with a key; the umask takes away more.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// Where a certificate and its key go.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Files {
    /// `NAME.pem` and `NAME-key.pem` in a directory. Neither may be there.
    pub(super) fn new(directory: &Path, name: &str) -> Result<Self, Error> {
        let directory = absolute(directory)?;
        let certificate = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}-key.pem"));
        for path in [&certificate, &key] {
            // A link that leads nowhere is there as well.
            if path.symlink_metadata().is_ok() {
                return Err(Error::Exists { path: path.clone() });
            }
        }
        Ok(Self { directory, certificate, key })
    }

    /// Writes both, in PEM; makes the directory if it is missing.
    pub(super) fn write(&self, certificate: &str, key: &str) -> Result<(), Error> {
        let failed = |error| Error::Write { path: self.directory.clone(), error };
        fs::create_dir_all(&self.directory).map_err(failed)?;
        let key = self.prepare(key, KEY_MODE).map_err(failed)?;
        let certificate = self.prepare(certificate, CERTIFICATE_MODE).map_err(failed)?;
        put(key, &self.key)?;
        put(certificate, &self.certificate).inspect_err(|_| {
            // The error to tell is the one that this follows from.
            let _ = fs::remove_file(&self.key);
        })
    }

    /// A file without its name yet, written and synced; gone if it does not get one.
    fn prepare(&self, text: &str, mode: u32) -> io::Result<NamedTempFile> {
        let mut file = tempfile::Builder::new()
            .prefix(".konsul-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(&self.directory)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    }
}

/// The path from the root on, which is what a server's settings need.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|error| Error::Write { path: path.into(), error })
}

fn put(file: NamedTempFile, path: &Path) -> Result<(), Error> {
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(refused) if refused.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::Exists { path: path.into() })
        }
        Err(refused) => Err(Error::Write { path: path.into(), error: refused.error }),
    }
}
