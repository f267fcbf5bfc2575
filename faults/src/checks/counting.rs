//! Who counts under a lock counts exactly: no number is left out or written twice, and nobody writes who has lost the lock.

use std::collections::BTreeSet;

use crate::workload::Count;

/// What is wrong with the versions of the number, in order, given what the counters remember.
pub(crate) fn counting_is_exact(counts: &[Count], versions: &[Count]) -> Vec<String> {
    let mut wrong = Vec::new();
    let first = Count { number: 0, token: 0, known: true };
    for (before, after) in std::iter::once(&first).chain(versions).zip(versions) {
        if after.number != before.number + 1 {
            wrong.push(format!("the number went from {} to {}", shown(before), shown(after)));
        }
        if after.token < before.token {
            wrong.push(format!(
                "a holder wrote {} after its successor wrote {}",
                shown(after),
                shown(before)
            ));
        }
    }
    let there: BTreeSet<(u64, u64)> = versions.iter().map(|count| (count.number, count.token)).collect();
    for count in counts.iter().filter(|count| count.known) {
        if !there.contains(&(count.number, count.token)) {
            wrong.push(format!("{} was acknowledged and is not there", shown(count)));
        }
    }
    let tried: BTreeSet<(u64, u64)> = counts.iter().map(|count| (count.number, count.token)).collect();
    for count in versions.iter().filter(|count| !tried.contains(&(count.number, count.token))) {
        wrong.push(format!("{} is there, which nobody wrote", shown(count)));
    }
    wrong
}

/// A round in which nobody ever had the lock, or no lease was ever made, kept no promise that could be judged.
pub(crate) fn coordination_happened(held: usize, tenancies: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    if held == 0 {
        wrong.push("no lock was ever held".to_owned());
    }
    if tenancies == 0 {
        wrong.push("no lease was ever granted".to_owned());
    }
    wrong
}

fn shown(count: &Count) -> String {
    format!("{} under token {}", count.number, count.token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(number: u64, token: u64) -> Count {
        Count { number, token, known: true }
    }

    #[test]
    fn a_round_in_which_nothing_happened_is_wrong() {
        assert!(coordination_happened(1, 1).is_empty());
        assert_eq!(coordination_happened(0, 1), ["no lock was ever held"]);
        assert_eq!(coordination_happened(1, 0), ["no lease was ever granted"]);
    }

    #[test]
    fn numbers_go_up_one_by_one_and_tokens_never_down() {
        let good = [count(1, 5), count(2, 5), count(3, 9)];
        let unknown = Count { known: false, ..count(3, 9) };
        for (counts, versions, wrong) in [
            (good.to_vec(), good.to_vec(), ""),
            (vec![good[0].clone(), good[1].clone(), unknown.clone()], good.to_vec(), ""),
            (vec![good[0].clone(), good[1].clone(), unknown], good[..2].to_vec(), ""),
            (good.to_vec(), good[..2].to_vec(), "was acknowledged and is not there"),
            (good[..2].to_vec(), good.to_vec(), "which nobody wrote"),
            (
                vec![count(1, 5), count(1, 9)],
                vec![count(1, 5), count(1, 9)],
                "went from 1 under token 5 to 1",
            ),
            (vec![count(1, 9), count(2, 5)], vec![count(1, 9), count(2, 5)], "after its successor"),
        ] {
            let found = counting_is_exact(&counts, &versions);
            match wrong {
                "" => assert!(found.is_empty(), "{found:?}"),
                wrong => assert!(found.len() == 1 && found[0].contains(wrong), "{wrong}: {found:?}"),
            }
        }
    }
}
