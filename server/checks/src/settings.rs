//! What an operator decides about checks.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use ipnet::IpNet;
use tokio::sync::Semaphore;

/// What an operator decides. `Settings::default()` has the documented defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Networks that may be connected to. Empty: all that are not denied.
    pub allow: Vec<IpNet>,
    /// Networks that may not be connected to, beside those that are built in: link-local and metadata addresses, 0.0.0.0/8, multicast and
    /// broadcast. Of all entries that hold an address the most specific one decides, so that what is built in is opened only by
    /// an entry of `allow` that is longer. Between two that are as long, denying wins.
    pub deny: Vec<IpNet>,
    /// Whether checks may run scripts. Default false.
    pub scripts_enabled: bool,
    /// What may be run, by name: a program, by an absolute path or a name to be found on the PATH, and its arguments.
    pub scripts: BTreeMap<String, Vec<String>>,
    /// A file of certificates in PEM whose authorities are believed beside those that browsers believe.
    pub ca_file: Option<PathBuf>,
    /// Most probes at a time, each of which has one socket at most. 1 to 65,535. Default 512.
    pub max_concurrent: usize,
    /// Most names that are looked up at a time, each of which may hold a thread for as long as the system's resolver
    /// takes. 1 to 256. Default 32.
    pub max_lookups: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            scripts_enabled: false,
            scripts: BTreeMap::new(),
            ca_file: None,
            max_concurrent: 512,
            max_lookups: 32,
        }
    }
}

/// Settings that can't be worked with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A number out of its range.
    #[error("{setting} must be 1 to {most}")]
    OutOfRange {
        /// Which.
        setting: &'static str,
        /// Its greatest value.
        most: usize,
    },
    /// A script that can't be run.
    #[error("script {name:?}: {problem}")]
    Script {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file of certificates that can't be used.
    #[error("certificates of {}: {problem}", path.display())]
    CaFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// What the verifier of certificates says.
    #[error("TLS: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// The system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Settings {
    /// Whether they can be worked with, as far as that shows without looking at files.
    ///
    /// # Errors
    /// [`SettingsError`] for the first that can't.
    pub(crate) fn validate(&self) -> Result<(), SettingsError> {
        within("max_concurrent", self.max_concurrent, usize::from(u16::MAX).min(Semaphore::MAX_PERMITS))?;
        within("max_lookups", self.max_lookups, 256)?;
        for (name, arguments) in &self.scripts {
            let refuse = |problem| Err(SettingsError::Script { name: name.clone(), problem });
            let Some(program) = arguments.first().filter(|program| !program.is_empty()) else {
                return refuse("names no program");
            };
            if program.contains('/') && !program.starts_with('/') {
                return refuse("must be an absolute path, or a name to be found on the PATH");
            }
            if arguments.iter().any(|argument| argument.contains('\0')) {
                return refuse("must not have NUL in it");
            }
        }
        Ok(())
    }
}

fn within(setting: &'static str, value: usize, most: usize) -> Result<(), SettingsError> {
    if (1..=most).contains(&value) { Ok(()) } else { Err(SettingsError::OutOfRange { setting, most }) }
}
