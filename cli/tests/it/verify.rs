//! `konsul verify`: a directory that is well is found well and left as it is, and each kind of damage is found where it is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::data_dir::{Used, distrust, file, flip_at, hash, write_at};
use crate::durability::seed;
use crate::konsul::{Run, konsul};
use crate::server::Server;

fn verify(dir: &Path) -> Run {
    Run::of(konsul().arg("verify").arg(dir).args(["-o", "json"]), b"")
}

/// What is wrong, as it is told on stderr and in the report.
fn findings(dir: &Path) -> Vec<String> {
    let run = verify(dir);
    assert_eq!(run.code, Some(1), "{run:?}");
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let findings: Vec<String> =
        report["findings"].as_array().unwrap().iter().map(|f| f.as_str().unwrap().to_owned()).collect();
    assert_eq!(run.stderr.lines().count(), findings.len(), "{run:?}");
    findings
}

/// Where a file's first bytes have so many of this one after the other. The state's file is sparse, and very long.
fn find_run(path: &Path, byte: u8, length: usize) -> u64 {
    let mut data = vec![0; 8 << 20];
    File::open(path).unwrap().read_exact_at(&mut data, 0).unwrap();
    let at = data.windows(length).position(|window| window.iter().all(|b| *b == byte));
    at.unwrap() as u64
}

#[test]
fn a_directory_that_is_well_is_left_as_it_is() {
    let used = Used::make();
    let before = hash(&used.made);
    let report: Value = serde_json::from_str(&verify(&used.made).success()).unwrap();
    assert_eq!(hash(&used.made), before);
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);
    let number = |name: &str| report[name].as_u64().unwrap();
    assert!(number("firstEntry") <= number("appliedEntry") && number("appliedEntry") <= number("lastEntry"));
    assert_eq!(report["snapshots"].as_array().unwrap().len(), 1);
    let text = Run::of(konsul().arg("verify").arg(&used.made), b"").success();
    assert!(text.ends_with("nothing is wrong\n"), "{text}");
    // After a power loss there is no state to look at until the next start, and that is nothing wrong.
    distrust(&used.made);
    let report: Value = serde_json::from_str(&verify(&used.made).success()).unwrap();
    assert_eq!(report["stateHash"], Value::Null);
}

#[test]
fn damage_is_found_where_it_is() {
    let used = Used::make();
    let state = |dir: &Path| file(&dir.join("state"), "data.mdb");
    let check = |name: &str, spoil: &dyn Fn(&Path), says: &[&str]| {
        let dir = used.copy(name);
        spoil(&dir);
        let before = hash(&dir);
        let findings = findings(&dir);
        for text in says {
            assert!(findings.iter().any(|finding| finding.contains(text)), "{name}: {findings:?}");
        }
        assert_eq!(hash(&dir), before, "{name}: the directory was changed");
        fs::remove_dir_all(dir).unwrap();
    };
    check("log", &|dir| flip_at(&file(&dir.join("log"), ".raftlog"), 100_000), &["log is damaged"]);
    let no_end = |dir: &Path| {
        let log = file(&dir.join("log"), ".raftlog");
        let bytes = fs::metadata(&log).unwrap().len() as usize;
        write_at(&log, 700_000, &vec![0; bytes - 700_000]);
    };
    check("no-end", &no_end, &["the log ends at entry"]);
    check(
        "snapshot",
        &|dir| flip_at(&file(&dir.join("snapshots"), "data.mdb"), 50_000),
        &["checksum is wrong"],
    );
    let no_log = |dir: &Path| fs::remove_file(file(&dir.join("log"), ".raftlog")).unwrap();
    check("no-log", &no_log, &["there is no log in", "the log ends at entry 0"]);
    let cut =
        |path: &Path, bytes: u64| File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
    let snapshot_cut = |dir: &Path| cut(&file(&dir.join("snapshots"), "data.mdb"), 40_000);
    check("snapshot-cut", &snapshot_cut, &["snapshots"]);
    let no_snapshot = |dir: &Path| fs::remove_file(file(&dir.join("snapshots"), "data.mdb")).unwrap();
    check("no-snapshot", &no_snapshot, &["snapshots"]);
    check("state-cut", &|dir| cut(&state(dir), 40_960), &["state"]);
    let meta = |dir: &Path| fs::write(file(&dir.join("snapshots"), "META"), "konsul").unwrap();
    check("snapshot-meta", &meta, &["META"]);
    check("marker", &|dir| fs::write(dir.join("state/MARKER"), "x").unwrap(), &["MARKER"]);
    // One bit of a value, which LMDB does not notice. It is in the row or in history, and the hash has both.
    let value = |dir: &Path| {
        let path = state(dir);
        flip_at(&path, find_run(&path, b'f', 20_000) + 10_000);
    };
    check("value", &value, &["the rows' hash is"]);
    check("head", &|dir| write_at(&state(dir), 0, &[0x55; 8192]), &["state"]);
    // Several things at once, each told.
    let both = |dir: &Path| {
        flip_at(&file(&dir.join("snapshots"), "data.mdb"), 50_000);
        value(dir);
    };
    check("both", &both, &["checksum is wrong", "the rows' hash is"]);
}

#[test]
fn pages_of_garbage_are_found_even_if_reading_them_ends_the_process() {
    let used = Used::make();
    let mut rng = StdRng::seed_from_u64(seed());
    let mut found = 0;
    for round in 0..10 {
        let dir = used.copy(&format!("garbage-{round}"));
        let path = file(&dir.join("state"), "data.mdb");
        // The file is sparse; what it holds is at its beginning.
        let used_bytes = fs::metadata(file(&dir.join("snapshots"), "data.mdb")).unwrap().len();
        let page = rng.random_range(2..used_bytes / 4096);
        let mut garbage = vec![0; 4096];
        rng.fill(&mut garbage[..]);
        File::options().write(true).open(&path).unwrap().write_all_at(&garbage, page * 4096).unwrap();
        let run = verify(&dir);
        // A page may be a free one.
        assert!(matches!(run.code, Some(0 | 1)), "page {page}: {run:?}");
        found += usize::from(run.code == Some(1));
        fs::remove_dir_all(dir).unwrap();
    }
    assert!(found >= 5, "only {found} of 10 were found");
}

#[test]
fn what_is_in_use_or_no_data_is_refused() {
    let server = Server::start();
    let run = verify(server.data_dir());
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("in use"), "{run:?}");
    let folder = tempfile::tempdir().unwrap();
    let run = verify(folder.path());
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("there is no data in"), "{run:?}");
}
