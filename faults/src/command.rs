//! Runs the system's commands and says in one line what was wrong. Knows none of them in particular.

use std::ffi::OsStr;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// Runs a command that must succeed; what it printed.
///
/// # Errors
/// When it can't be run or fails, with the last line it printed.
pub(crate) async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let output = output(Command::new(program).args(arguments)).await?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned() + &printed;
        let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it printed nothing");
        bail!("`{}` failed: {}", shown(program, arguments), last.trim());
    }
    Ok(printed)
}

/// Runs a command given as one line, for those whose words have no spaces.
///
/// # Errors
/// As [`run`].
pub(crate) async fn line(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("there is no command in an empty line")?;
    run(program, &words.collect::<Vec<_>>()).await
}

/// Runs a command and lets the caller judge how it ended.
///
/// # Errors
/// When it can't be run.
pub(crate) async fn output(command: &mut Command) -> Result<Output> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    command.output().await.with_context(|| format!("can't run {program}"))
}

fn shown<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> String {
    let words = arguments.iter().map(|word| word.as_ref().to_string_lossy());
    std::iter::once(program.into()).chain(words).collect::<Vec<_>>().join(" ")
}
