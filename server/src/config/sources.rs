//! Where settings come from: the file, then the environment over it, then the flags over both. A setting that is
//! unknown or wrong is an error that names it and where it was set.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{SETTINGS, Setting, Settings};

/// What was given on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--dev`
    pub dev: bool,
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--dns-listen`
    pub dns_listen: Option<String>,
    /// `--address-file`
    pub address_file: Option<String>,
}

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no such setting.
    #[error("{origin}: unknown setting {name}{}", hint.as_ref().map_or_else(String::new, |h| format!("; did you mean {h}?")))]
    Unknown {
        /// What was set.
        name: String,
        /// Where.
        origin: String,
        /// A setting whose name is close.
        hint: Option<String>,
    },
    /// The value is not of its kind or out of range.
    #[error("{origin}: {name} is {value:?} and must be {should}")]
    Wrong {
        /// The setting.
        name: &'static str,
        /// Where it was set.
        origin: String,
        /// What it was set to.
        value: String,
        /// What it must be.
        should: String,
    },
    /// Other members are to be spoken to, but nothing says where they reach this one.
    #[error(
        "cluster.join and cluster.bootstrap_expect need cluster.peer_listen: set the address that other members reach this one at, such as 10.0.0.1:8300"
    )]
    NoPeerAddress,
    /// Some of the files of TLS are missing.
    #[error(
        "cluster.tls_ca, cluster.tls_cert and cluster.tls_key belong together: set all three or none (konsul tls makes them)"
    )]
    PartOfTls,
    /// Members may speak in the clear on one machine only.
    #[error(
        "cluster.peer_listen is {listen}, and beyond loopback members speak over TLS only: set cluster.tls_ca, cluster.tls_cert and cluster.tls_key (konsul tls makes them)"
    )]
    PeersWithoutTls {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// Every address is no address to be reached at.
    #[error(
        "cluster.peer_listen is {listen}: set cluster.peer_advertise to the address that other members reach this one at"
    )]
    NoAdvertise {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// A server without authentication may not be reached from elsewhere.
    #[error(
        "--dev serves without authentication and only on loopback, not on {listen}: leave out --dev or listen on 127.0.0.1"
    )]
    DevBeyondLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
}

/// A value with where it was set.
struct Given {
    name: String,
    value: String,
    origin: String,
}

/// Reads all sources. `environment` is the process' own, handed in so that tests can make one up.
///
/// # Errors
/// [`ConfigError`], naming the setting and where it was set.
pub fn load(
    flags: &Flags,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigError> {
    let mut settings = Settings { dev: flags.dev, ..Settings::default() };
    if flags.dev {
        settings.store.persistence = konsul_state::Persistence::Memory;
    }
    let mut given = Vec::new();
    if let Some(path) = &flags.config {
        given.extend(from_file(path)?);
    }
    given.extend(from_environment(environment)?);
    given.extend(from_flags(flags));
    for Given { name, value, origin } in given {
        let Some(setting) = find(&name) else {
            return Err(ConfigError::Unknown { hint: closest(&name), name, origin });
        };
        (setting.set)(&mut settings, &value).map_err(|should| ConfigError::Wrong {
            name: setting.path,
            origin,
            value,
            should,
        })?;
    }
    settings.check()?;
    Ok(settings)
}

fn find(path: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.path == path)
}

fn from_file(path: &Path) -> Result<Vec<Given>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
    let line_of = |at: usize| text[..at.min(text.len())].lines().count().max(1);
    let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(error.span().map_or(0, |span| span.start + 1)),
        message: error.message().to_owned(),
    })?;
    let mut given = Vec::new();
    flatten(table.get_ref(), "", &mut |name, value, at| {
        let origin = format!("{}:{}", path.display(), line_of(at + 1));
        given.push(Given { name, value, origin });
    });
    Ok(given)
}

/// Hands on every value of a table with its dotted name and place. Values have one text form, so that an integer
/// is as good as the same in quotes.
fn flatten(table: &DeTable<'_>, prefix: &str, each: &mut dyn FnMut(String, String, usize)) {
    for (key, value) in table {
        let name =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(inner, &name, each),
            DeValue::String(text) => each(name, text.to_string(), key.span().start),
            DeValue::Integer(number) => each(name, number.as_str().replace('_', ""), key.span().start),
            DeValue::Float(number) => each(name, number.as_str().to_owned(), key.span().start),
            DeValue::Boolean(yes) => each(name, yes.to_string(), key.span().start),
            DeValue::Datetime(time) => each(name, time.to_string(), key.span().start),
            DeValue::Array(items) => each(name, list(items), key.span().start),
        }
    }
}

/// A list in its text form: its items, separated by commas. One that is no text by itself does not read as an item.
fn list(items: &toml::de::DeArray<'_>) -> String {
    let item = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
        DeValue::String(text) => text.to_string(),
        _ => "[...]".to_owned(),
    };
    items.iter().map(item).collect::<Vec<_>>().join(",")
}

/// Variables named like a setting's. One that begins with a section of ours but names no setting is a mistake.
fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<Given>, ConfigError> {
    let known: BTreeMap<String, &Setting> = SETTINGS.iter().map(|s| (s.variable(), s)).collect();
    let mut given = Vec::new();
    for (variable, value) in variables {
        let origin = format!("environment variable {variable}");
        match known.get(&variable) {
            Some(setting) => given.push(Given { name: setting.path.to_owned(), value, origin }),
            None if is_ours(&variable) => {
                let hint = closest_of(&variable, known.keys().map(String::as_str));
                return Err(ConfigError::Unknown { name: variable, origin: "environment".to_owned(), hint });
            }
            None => {}
        }
    }
    Ok(given)
}

fn is_ours(variable: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        let section = setting.path.split('.').next().unwrap_or_default();
        variable.starts_with(&format!("KONSUL_{}_", section.to_uppercase()))
    })
}

fn from_flags(flags: &Flags) -> impl Iterator<Item = Given> {
    let given = |path: &str, flag: &str, value: &Option<String>| {
        let (name, origin) = (path.to_owned(), flag.to_owned());
        value.clone().map(|value| Given { name, value, origin })
    };
    [
        given("server.data_dir", "--data-dir", &flags.data_dir),
        given("server.listen", "--listen", &flags.listen),
        given("dns.listen", "--dns-listen", &flags.dns_listen),
        given("server.address_file", "--address-file", &flags.address_file),
    ]
    .into_iter()
    .flatten()
}

fn closest(name: &str) -> Option<String> {
    closest_of(name, SETTINGS.iter().map(|setting| setting.path))
}

/// The name that takes the fewest edits, if they are few.
fn closest_of<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let (edits, closest) = names.map(|known| (strsim::levenshtein(name, known), known)).min()?;
    (edits <= name.len() / 3).then(|| closest.to_owned())
}
