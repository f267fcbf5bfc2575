//! Runs `konsul`, and shows how a command ended. Servers are started by `server`.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

pub(crate) use crate::server::Server;

/// How long anything may take before a test gives up.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// `konsul`, with nothing of this process's own settings.
pub(crate) fn konsul() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_konsul"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KONSUL_") {
            command.env_remove(name);
        }
    }
    command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

impl Server {
    /// A client command for this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = konsul();
        command.args(arguments).env("KONSUL_ADDR", format!("http://{}", self.address));
        command.current_dir(self.path(""));
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(&mut self.command(arguments), b"")
    }

    pub(crate) fn run_with_stdin(&self, arguments: &[&str], stdin: &[u8]) -> Run {
        Run::of(&mut self.command(arguments), stdin)
    }

    /// Runs a command that must succeed; what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).success()
    }

    /// Runs a command that must succeed with JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&arguments)).unwrap()
    }

    /// Writes a key; the revision of the write.
    pub(crate) fn put(&self, key: &str, value: &str) -> u64 {
        self.json(&["kv", "put", key, value])["revision"].as_str().unwrap().parse().unwrap()
    }
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command, stdin: &[u8]) -> Self {
        let stdin_kind = if stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut child =
            command.stdin(stdin_kind).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin).unwrap();
        }
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Self { code: status.code(), stdout, stderr: String::from_utf8(stderr).unwrap() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }

    /// What it printed; it must have succeeded and complained of nothing.
    pub(crate) fn success(&self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.text()
    }

    /// The one line on stderr of a command that failed with this code and printed nothing.
    pub(crate) fn failure(&self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "more than one line: {self:?}");
        line.strip_prefix("konsul: ").unwrap().to_string()
    }
}
