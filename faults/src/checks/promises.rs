//! What was acknowledged to the ledger's writers is there at the end, and what each of them wrote was written at most once.

use std::collections::{BTreeMap, BTreeSet};

use crate::workload::{Change, LEDGER, Promise};

/// Promises that were not kept.
pub(crate) fn promises_are_kept(promises: &[Promise], history: &[Change]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut kept: BTreeMap<&str, &Change> = BTreeMap::new();
    for change in history.iter().filter(|change| change.key.starts_with(LEDGER)) {
        if let Some(first) = kept.insert(&change.key, change) {
            let (key, first, second) = (&change.key, first.revision, change.revision);
            wrong.push(format!("{key} was written once and changed at revisions {first} and {second}"));
        }
    }
    for Promise { key, value, revision } in promises {
        match (kept.get(key.as_str()), revision) {
            (None, Some(revision)) => {
                wrong.push(format!("{key} was acknowledged at revision {revision} and is not there"));
            }
            (Some(found), _) if found.value.as_ref() != Some(value) => {
                wrong.push(format!("{key} was written as {value} and is {:?}", found.value));
            }
            (Some(found), Some(revision)) if found.revision != *revision => {
                wrong.push(format!(
                    "{key} was acknowledged at revision {revision} and is at {}",
                    found.revision
                ));
            }
            (Some(_), _) | (None, None) => {}
        }
    }
    let promised: BTreeSet<&str> = promises.iter().map(|promise| promise.key.as_str()).collect();
    let unheard = kept.keys().filter(|key| !promised.contains(*key));
    wrong.extend(unheard.map(|key| format!("{key} is there and nobody wrote it")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, key: &str, value: &str) -> Change {
        Change { revision, key: format!("ledger/{key}"), value: Some(value.to_owned()) }
    }

    fn promise(key: &str, value: &str, revision: Option<u64>) -> Promise {
        Promise { key: format!("ledger/{key}"), value: value.to_owned(), revision }
    }

    #[test]
    fn what_was_acknowledged_is_there_once() {
        let promises = [promise("a", "1", Some(5)), promise("b", "2", None), promise("c", "3", None)];
        for (history, wrong) in [
            (vec![change(5, "a", "1")], ""),
            (vec![change(5, "a", "1"), change(6, "b", "2")], ""),
            (vec![change(6, "b", "2")], "ledger/a was acknowledged at revision 5 and is not there"),
            (vec![change(4, "a", "1")], "is at 4"),
            (vec![change(5, "a", "9")], "is Some(\"9\")"),
            (vec![change(5, "a", "1"), change(6, "b", "9")], "ledger/b was written as 2"),
            (vec![change(5, "a", "1"), change(6, "b", "2"), change(7, "b", "2")], "at revisions 6 and 7"),
            (vec![change(5, "a", "1"), change(6, "d", "4")], "ledger/d is there and nobody wrote it"),
        ] {
            let found = promises_are_kept(&promises, &history);
            match wrong {
                "" => assert!(found.is_empty(), "{found:?}"),
                wrong => assert!(found.len() == 1 && found[0].contains(wrong), "{wrong}: {found:?}"),
            }
        }
    }
}
