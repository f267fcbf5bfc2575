//! A seed replays exactly: the hash of everything that happened is the same in another process.

use std::process::Command;

/// What the simulation of a seed says when it is clean, which includes the hash of all that happened.
fn simulate(seed: u64) -> String {
    let done = Command::new(env!("CARGO_BIN_EXE_konsul-sim")).args(["--seed", &seed.to_string()]).output();
    let done = done.unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    said
}

fn hash(said: &str) -> &str {
    let (_, hash) = said.split_once("trace ").unwrap();
    hash.split_once(' ').unwrap().0
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 5] {
        let first = simulate(seed);
        assert!(!first.contains(" 0 revisions"), "nothing happened: {first}");
        assert_eq!(simulate(seed), first);
    }
}

#[test]
fn seeds_differ() {
    assert_ne!(hash(&simulate(3)), hash(&simulate(5)));
}
