//! Where settings come from, which goes before which, and what is said of a wrong one.

use std::io::Write;
use std::time::Duration;

use konsul_server::config::{self, ConfigError, Flags, SETTINGS, Settings};
use konsul_state::Persistence;

fn from(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Settings, ConfigError> {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    config.write_all(file.as_bytes()).unwrap();
    let flags = Flags { config: Some(config.path().to_owned()), ..flags };
    config::load(&flags, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// The error's text, with the file's name taken out.
fn complaint(file: &str, environment: &[(&str, &str)], flags: Flags) -> String {
    let text = from(file, environment, flags).unwrap_err().to_string();
    match text.split_once(".tmp") {
        Some((_, rest)) => format!("FILE{}", &rest[rest.find(':').unwrap()..]),
        None => text,
    }
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file() {
    let file = "[server]\nlisten = '127.0.0.1:1'\nruntimes = 3\n[limits]\nmax_value_bytes = '2MiB'";
    let environment = [("KONSUL_SERVER_LISTEN", "127.0.0.1:2"), ("KONSUL_SERVER_RUNTIMES", "4")];
    let flags = Flags { listen: Some("127.0.0.1:3".into()), ..Flags::default() };
    let settings = from(file, &environment, flags).unwrap();
    assert_eq!(settings.server.listen.port(), 3);
    assert_eq!(settings.server.runtimes, 4);
    assert_eq!(settings.limits.max_value_bytes, 2 << 20);
}

#[test]
fn nothing_set_is_the_defaults() {
    assert_eq!(
        from("", &[("HOME", "/"), ("KONSUL_ADDR", "x"), ("KONSUL_TOKEN", "x")], Flags::default()).unwrap(),
        Settings::default()
    );
}

#[test]
fn dev_keeps_nothing() {
    let settings = from("", &[], Flags { dev: true, ..Flags::default() }).unwrap();
    assert_eq!(settings.store.persistence, Persistence::Memory);
}

#[test]
fn a_wrong_setting_is_named_with_its_origin() {
    let flags = |listen: &str| Flags { listen: Some(listen.into()), ..Flags::default() };
    let none = Flags::default;
    /// File, environment, flags, and how the error begins.
    type Case = (&'static str, &'static [(&'static str, &'static str)], Flags, &'static str);
    let table: [Case; 10] = [
        (
            "[server]\nlisen = 'x'",
            &[],
            none(),
            "FILE:2: unknown setting server.lisen; did you mean server.listen?",
        ),
        ("\n\nfoo = 1", &[], none(), "FILE:3: unknown setting foo"),
        (
            "[server]\n\nruntimes = 'many'",
            &[],
            none(),
            "FILE:3: server.runtimes is \"many\" and must be a whole number",
        ),
        (
            "[server]\nruntimes = 1000",
            &[],
            none(),
            "FILE:2: server.runtimes is \"1000\" and must be from 0 to 256",
        ),
        (
            "[limits]\nmax_value_bytes = '9MiB'",
            &[],
            none(),
            "FILE:2: limits.max_value_bytes is \"9MiB\" and must be from 1 to 8MiB",
        ),
        ("[log\nfilter = 'x'", &[], none(), "FILE:1: "),
        (
            "",
            &[("KONSUL_SERVER_LISTN", "x")],
            none(),
            "environment: unknown setting KONSUL_SERVER_LISTN; did you mean KONSUL_SERVER_LISTEN?",
        ),
        (
            "",
            &[("KONSUL_LOG_FORMAT", "xml")],
            none(),
            "environment variable KONSUL_LOG_FORMAT: log.format is \"xml\" and must be auto, text or json",
        ),
        (
            "",
            &[],
            flags("nowhere"),
            "--listen: server.listen is \"nowhere\" and must be an address with a port",
        ),
        (
            "",
            &[],
            Flags { dev: true, ..flags("0.0.0.0:1") },
            "--dev serves without authentication and only on loopback",
        ),
    ];
    for (file, environment, flags, expected) in table {
        let said = complaint(file, environment, flags);
        assert!(said.starts_with(expected), "{said}\nexpected: {expected}");
        assert!(!said.contains('\n'), "{said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let flags = Flags { config: Some("/nonexistent/konsul.toml".into()), ..Flags::default() };
    let said = config::load(&flags, std::iter::empty()).unwrap_err().to_string();
    assert!(said.starts_with("cannot read the configuration file /nonexistent/konsul.toml"), "{said}");
}

#[test]
fn the_example_is_read_back_as_the_defaults() {
    let example = config::example();
    assert_eq!(from(&example, &[], Flags::default()).unwrap(), Settings::default());
    assert_eq!(example.lines().filter(|line| line.contains(" = ")).count(), SETTINGS.len());
}

#[test]
fn every_setting_can_be_set_and_shown() {
    for setting in SETTINGS {
        let shown = setting.show(&Settings::default());
        let settings = from("", &[(&setting.variable(), &shown)], Flags::default());
        assert_eq!(settings.unwrap(), Settings::default(), "{}", setting.path);
    }
    let settings = from("[server]\nshutdown_grace = '1m30s'", &[], Flags::default()).unwrap();
    assert_eq!(settings.server.bounds.grace, Duration::from_secs(90));
}
