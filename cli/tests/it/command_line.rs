//! What every command has in common: usage, help, completion, colours, and a server that is not there.

use std::net::TcpListener;
use std::process::Stdio;

use crate::konsul::{Run, konsul};
use crate::server::Server;

const COMMANDS: [&[&str]; 15] = [
    &[],
    &["server"],
    &["status"],
    &["compact"],
    &["completion"],
    &["tls"],
    &["tls", "ca"],
    &["tls", "cert"],
    &["kv"],
    &["kv", "get"],
    &["kv", "put"],
    &["kv", "list"],
    &["kv", "delete"],
    &["kv", "history"],
    &["kv", "watch"],
];

fn run(arguments: &[&str]) -> Run {
    Run::of(konsul().args(arguments), b"")
}

/// An address where nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn every_command_explains_itself_with_examples() {
    for command in COMMANDS {
        let help = run(&[command, &["--help"]].concat()).success();
        assert!(help.contains("Example"), "{command:?} has no example:\n{help}");
        assert!(help.contains(&["konsul", &command.join(" ")].join(" ").trim().to_string()), "{help}");
    }
    assert!(run(&["kv", "txn", "--help"]).success().contains("\"compare\""));
    assert_eq!(run(&["--version"]).success(), format!("konsul {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_does_not_show_the_token() {
    let help = Run::of(konsul().args(["kv", "get", "--help"]).env("KONSUL_TOKEN", "s3cret"), b"").success();
    assert!(help.contains("KONSUL_TOKEN") && !help.contains("s3cret"), "{help}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        vec![],
        vec!["nonsense"],
        vec!["kv"],
        vec!["kv", "put", "k"],
        vec!["kv", "get", "k", "--revision", "x"],
        vec!["kv", "put", "k", "v", "--if-absent", "--if-exists"],
        vec!["kv", "delete"],
        vec!["kv", "delete", "k", "--prefix", "p"],
        vec!["kv", "watch", "k", "--initial", "--from-revision", "1"],
        vec!["kv", "watch", "k", "--exec-fail-fast"],
        vec!["kv", "get", "k", "--timeout", "soon"],
        vec!["kv", "get", "k", "-o", "yaml"],
        vec!["kv", "get", "k", "--addr", "ftp://example"],
        vec!["kv", "get", "k", "--addr", "https://example"],
        vec!["compact", "-1"],
        vec!["completion", "tcsh"],
    ] {
        let run = run(&arguments);
        assert_eq!(run.code, Some(2), "{arguments:?}: {run:?}");
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{arguments:?}: {run:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_one_line() {
    let (first, second) = (nobody(), nobody());
    let line = run(&["kv", "get", "k", "--addr", &format!("http://{first}")]).failure(1);
    assert_eq!(line, format!("cannot reach http://{first}: connection refused"));
    let both = format!("{first},{second}");
    let line = Run::of(konsul().args(["kv", "watch", "k"]).env("KONSUL_ADDR", &both), b"").failure(1);
    assert_eq!(
        line,
        format!("cannot reach http://{first}: connection refused, http://{second}: connection refused")
    );
}

#[test]
fn the_deadline_is_kept() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let line = run(&["status", "--addr", &address, "--timeout", "300ms"]).failure(1);
    assert!(line.contains("300ms"), "{line}");
}

#[test]
fn the_address_comes_from_a_flag_before_the_environment() {
    let server = Server::start();
    server.put("k", "v");
    let mut command = konsul();
    command.args(["--addr", &server.address, "kv", "get", "k"]).env("KONSUL_ADDR", nobody());
    assert_eq!(Run::of(&mut command, b"").success(), "v");
    let several = format!("{},{}", nobody(), server.address);
    assert_eq!(run(&["kv", "get", "k", "--addr", &several]).success(), "v");
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completion", shell]).success();
        for word in ["server", "history", "from-revision", "exec-fail-fast", "ca-key"] {
            assert!(script.contains(word), "{shell} does not complete {word}");
        }
    }
}

#[test]
fn colours_are_for_terminals_and_can_be_refused() {
    let server = Server::start();
    server.put("k", "v");
    let list = ["kv", "list", "--long"];
    let run = |names: &[&str]| {
        let mut command = server.command(&list);
        command.envs(names.iter().map(|name| (name, "1")));
        Run::of(&mut command, b"").success()
    };
    assert!(!run(&[]).contains('\u{1b}'), "no colours in a pipe");
    assert!(run(&["CLICOLOR_FORCE"]).contains('\u{1b}'), "there are colours to refuse");
    assert!(!run(&["CLICOLOR_FORCE", "NO_COLOR"]).contains('\u{1b}'));
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let server = Server::start();
    server.run_with_stdin(&["kv", "put", "k", "-"], &vec![b'x'; 900_000]).success();
    for arguments in [vec!["kv", "get", "k"], vec!["kv", "get", "k", "-o", "json"]] {
        let mut child =
            server.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}
