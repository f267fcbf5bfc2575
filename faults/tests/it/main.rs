//! The rig through its command line, as far as it needs no root: what can't be run is refused before anything is made. What it
//! finds in a cluster is no test of the rig.
// clippy's leave for tests covers only the functions marked as such, not those they share.
#![allow(clippy::expect_used)]

use std::process::Command;

/// The one line on stderr of a run that can't be done.
fn refusal(arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_konsul-faults")).arg("run").args(arguments).output();
    let run = run.expect("the rig runs");
    assert_eq!((run.status.code(), run.stdout.len()), (Some(2), 0), "{run:?}");
    String::from_utf8(run.stderr).expect("text")
}

#[test]
fn what_cannot_be_run_is_refused_in_one_line() {
    for (arguments, expected) in [
        (&["--konsul", "/dev/null", "--checker", "/nowhere"][..], "konsul-faults: there is no /nowhere"),
        (&["--konsul", "/nowhere", "--checker", "/dev/null"], "konsul-faults: there is no /nowhere"),
        (&["--checker", "/dev/null", "--faults", "loss,storm"], "konsul-faults: there is no fault `storm`"),
        (&["--checker", "/dev/null", "--members", "1", "--faults", "partition"], "can happen to 1 members"),
    ] {
        let refusal = refusal(arguments);
        assert!(refusal.contains(expected), "{arguments:?}: {refusal}");
        assert_eq!(refusal.trim_end().lines().count(), 1, "{refusal}");
    }
}

#[test]
fn a_wrong_option_is_refused() {
    assert!(refusal(&["--members", "6", "--checker", "/dev/null"]).contains("1..=5"));
}
