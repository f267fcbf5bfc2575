//! A watch of everything is the history of everything: each change once, in the order of revisions.

use std::collections::BTreeSet;

use crate::workload::Change;

/// Where a watcher's changes differ from the store's history, which is sorted.
pub(crate) fn stream_is_history(watcher: &str, stream: &[Change], history: &[Change]) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in stream.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        if after.revision <= before.revision {
            wrong.push(format!("the watch through {watcher} told {} after {}", shown(after), shown(before)));
        }
    }
    let told: BTreeSet<&Change> = stream.iter().collect();
    let known: BTreeSet<&Change> = history.iter().collect();
    let missing = known.difference(&told).map(|missing| {
        format!("the watch through {watcher} did not tell {}, which the history has", shown(missing))
    });
    let invented = told.difference(&known).map(|invented| {
        format!("the watch through {watcher} told {}, which the history does not have", shown(invented))
    });
    wrong.extend(missing.chain(invented));
    wrong
}

fn shown(change: &Change) -> String {
    let Change { revision, key, value } = change;
    match value {
        Some(value) => format!("revision {revision} (put {key} {value})"),
        None => format!("revision {revision} (delete {key})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(revisions: &[u64]) -> Vec<Change> {
        let change = |revision: &u64| Change { revision: *revision, key: "key".to_owned(), value: None };
        revisions.iter().map(change).collect()
    }

    #[test]
    fn each_change_once_and_in_order() {
        let history = changes(&[1, 2, 5, 6]);
        for (stream, wrong) in [
            (changes(&[1, 2, 5, 6]), ""),
            (changes(&[1, 2, 6]), "did not tell revision 5"),
            (changes(&[1, 2, 5]), "did not tell revision 6"),
            (changes(&[1, 2, 2, 5, 6]), "told revision 2 (delete key) after revision 2"),
            (changes(&[1, 5, 2, 6]), "told revision 2 (delete key) after revision 5"),
            (changes(&[1, 2, 3, 5, 6]), "told revision 3 (delete key), which the history does not have"),
        ] {
            let found = stream_is_history("n1", &stream, &history);
            match wrong {
                "" => assert!(found.is_empty(), "{found:?}"),
                wrong => assert!(found.len() == 1 && found[0].contains(wrong), "{wrong}: {found:?}"),
            }
        }
    }

    #[test]
    fn another_value_is_another_change() {
        let put = |value: &str| Change { revision: 1, key: "key".to_owned(), value: Some(value.to_owned()) };
        assert_eq!(stream_is_history("n1", &[put("a")], &[put("b")]).len(), 2);
    }
}
