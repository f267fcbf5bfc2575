//! Script checks: real processes, of which nothing is left.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use konsul_checks::{Probe, Prober, Settings, Status};

use crate::fixture::{BRIEF, PATIENCE, is, settings};

fn prober(name: &str, arguments: &[&str]) -> Prober {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let scripts = [(name.to_owned(), arguments)].into();
    Prober::new(&Settings { scripts_enabled: true, scripts, ..settings() }).unwrap()
}

fn shell(script: &str) -> Prober {
    prober("test", &["/bin/sh", "-c", script])
}

fn run() -> Probe {
    Probe::script("test", &[]).unwrap()
}

/// Whether a process runs, or may run again.
fn runs(process: u32) -> bool {
    // pid (name) state …; a name may have anything in it.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| !"ZX".contains(state))
}

/// The processes that a script tells of in a file, once it has.
async fn told_of(file: &Path, count: usize) -> Vec<u32> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let processes: Vec<u32> = whole.lines().map(|line| line.parse().unwrap()).collect();
        if processes.len() == count {
            return processes;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the script never told of {count} processes");
}

async fn are_gone(processes: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    while processes.iter().any(|process| runs(*process)) {
        assert!(Instant::now() < deadline, "of {processes:?} some are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_exit_code_decides() {
    for (script, status, words) in [
        ("echo fine", Status::Passing, "script test: exit code 0\nfine"),
        ("echo so so >&2; exit 1", Status::Warning, "script test: exit code 1\nso so"),
        ("echo out; echo err >&2; exit 2", Status::Critical, "script test: exit code 2\nout\nerr"),
        ("exit 3", Status::Critical, "script test: exit code 3"),
        ("exit 255", Status::Critical, "script test: exit code 255"),
        ("kill -TERM $$", Status::Critical, "script test: killed by signal 15"),
    ] {
        is(&shell(script).probe(&run(), PATIENCE).await, status, words);
    }
}

#[tokio::test]
async fn scripts_run_only_when_the_operator_has_them_and_switched_them_on() {
    let scripts = [("test".to_owned(), vec!["true".to_owned()])].into();
    let off = Prober::new(&Settings { scripts, ..settings() }).unwrap();
    is(
        &off.probe(&run(), PATIENCE).await,
        Status::Critical,
        "scripts are switched off (checks.scripts_enabled)",
    );
    let other = prober("other", &["true"]);
    is(&other.probe(&run(), PATIENCE).await, Status::Critical, "there is no such script in checks.scripts");
    let missing = prober("test", &["/nowhere/to/be/found"]);
    is(&missing.probe(&run(), PATIENCE).await, Status::Critical, "can't be run: no such file or directory");
}

#[tokio::test]
async fn a_script_knows_nothing_of_the_server_but_its_path() {
    let probe = Probe::script("test", &[("ADDRESS".into(), "192.0.2.10".into())]).unwrap();
    let told = prober("test", &["env"]).probe(&probe, PATIENCE).await;
    let mut lines: Vec<_> = told.output.lines().skip(1).collect();
    lines.sort_unstable();
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert_eq!(lines, ["KONSUL_CHECK_ADDRESS=192.0.2.10", "KONSUL_CHECK_NAME=test", path.as_str()]);
    let told = prober("test", &["pwd"]).probe(&run(), PATIENCE).await;
    assert_eq!(told.output, "script test: exit code 0\n/");
}

#[tokio::test]
async fn no_shell_reads_what_the_operator_wrote() {
    let told = prober("test", &["echo", "$HOME; `id` *"]).probe(&run(), PATIENCE).await;
    assert_eq!(told.output, "script test: exit code 0\n$HOME; `id` *");
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("processes");
    let script = format!("sleep 1000 & echo $! >>{0}; echo $$ >>{0}; sleep 1000", file.display());
    let prober = Arc::new(shell(&script));
    let started = Instant::now();
    let told = prober.probe(&run(), 5 * BRIEF).await;
    is(&told, Status::Critical, "script test: timed out after 1.5s");
    assert!(started.elapsed() < PATIENCE);
    are_gone(&told_of(&file, 2).await).await;
}

#[tokio::test]
async fn what_a_script_leaves_behind_is_killed_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("processes");
    // The child holds the script's output open.
    let script = format!("sleep 1000 & echo $! >>{}; echo done", file.display());
    is(&shell(&script).probe(&run(), PATIENCE).await, Status::Passing, "exit code 0\ndone");
    are_gone(&told_of(&file, 1).await).await;
}

#[tokio::test]
async fn a_script_whose_check_is_given_up_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("processes");
    let script = format!("sleep 1000 & echo $! >>{0}; echo $$ >>{0}; wait", file.display());
    let prober = Arc::new(shell(&script));
    let probing = tokio::spawn(async move { prober.probe(&run(), PATIENCE).await });
    let processes = told_of(&file, 2).await;
    assert!(processes.iter().all(|process| runs(*process)));
    probing.abort();
    are_gone(&processes).await;
}

#[tokio::test]
async fn a_script_that_prints_megabytes() {
    let told = shell("head -c 5000000 /dev/zero | tr '\\0' x; echo end").probe(&run(), PATIENCE).await;
    is(&told, Status::Passing, "script test: exit code 0\nxxx");
    assert_eq!(told.output.len(), 4096);
    assert!(!told.output.contains("end"));
    let told = prober("test", &["yes"]).probe(&run(), PATIENCE).await;
    is(&told, Status::Critical, "script test: killed after printing more than 16 MiB");
}

#[tokio::test]
async fn many_scripts_at_a_time() {
    let prober = Arc::new(shell("sleep 0.1; exit 1"));
    let mut probing = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let prober = prober.clone();
        probing.spawn(async move { prober.probe(&run(), PATIENCE).await });
    }
    for told in probing.join_all().await {
        is(&told, Status::Warning, "exit code 1");
    }
}
