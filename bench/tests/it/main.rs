//! The bench through its command line, against the bare server alone: other servers need not be installed for
//! these tests. What the rows find is not judged here.
// clippy's leave for tests covers only the functions marked as such, not those they share.
#![allow(clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output};

fn konsul_bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_konsul-bench")).args(arguments).output().expect("the bench runs")
}

/// A folder on the disk that holds the build, since the bench refuses one in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn a_run_measures_reports_and_leaves_nothing_behind() {
    let (data, out) = (folder(), folder());
    let results = out.path().join("results");
    let rows = ["--peers", "bare", "--rows", "fdatasync,put,fan-out"];
    let places = ["--dir", text(data.path()), "--out", text(&results)];
    let run = konsul_bench(&[&["run", "--quick"], &rows[..], &places[..]].concat());
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{stderr}");
    assert_eq!(data.path().read_dir().expect("the folder").count(), 0, "data is left behind");

    let json = results.read_dir().expect("results").map(|file| file.expect("a file").path());
    let json = json.into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).expect("JSON");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&json).expect("the report")).expect("JSON");
    let lines = report["lines"].as_array().expect("lines");
    for id in
        ["fdatasync/p50", "put/1/p50", "put/256/rate", "put/1000/cpu", "watch/steady/p99", "watch/fast/rate"]
    {
        let line = lines.iter().find(|line| line["id"] == id).unwrap_or_else(|| panic!("no line {id}"));
        let samples = line["samples"]["bare"].as_array().expect("samples");
        assert_eq!(samples.len(), 1, "{id}");
        assert!(samples[0].as_f64().is_some_and(|sample| sample > 0.0), "{id}: {samples:?}");
    }

    // The table takes the place of whatever stood between the marks, and of nothing else.
    let readme = out.path().join("README.md");
    let marked = "before\n<!-- latest: begin -->\nold\n<!-- latest: end -->\nafter\n";
    std::fs::write(&readme, marked).expect("a README");
    let update = konsul_bench(&["report", "--update-readme", "--results", text(&results)]);
    assert!(update.status.success(), "{}", String::from_utf8_lossy(&update.stderr));
    let updated = std::fs::read_to_string(&readme).expect("the README");
    assert!(updated.starts_with("before\n") && updated.ends_with("after\n"), "{updated}");
    assert!(updated.contains("put, 256 in flight") && !updated.contains("\nold\n"), "{updated}");
}

#[test]
fn what_cannot_run_is_told_in_one_line() {
    let data = folder();
    let dir = text(data.path());
    for (arguments, told) in [
        (
            vec!["run", "--dir", dir, "--peers", "konsul", "--konsul", "/nonexistent"],
            "can't run /nonexistent",
        ),
        (vec!["run", "--dir", dir, "--peers", "etcd", "--peer", "/nonexistent"], "can't run /nonexistent"),
        (vec!["run", "--dir", "/nonexistent"], "can't make a folder in /nonexistent"),
        (vec!["report", "--results", dir], "no reports in"),
        // A server that ends at once.
        (
            vec!["run", "--dir", dir, "--rows", "put", "--peers", "konsul", "--konsul", "/bin/false"],
            "ended at its start",
        ),
    ] {
        let run = konsul_bench(&arguments);
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
    assert_eq!(data.path().read_dir().expect("the folder").count(), 0, "data is left behind");
}
