//! Batches are published in order, once, and after their commit: in each life of a member one revision after the other from
//! where it began, a snapshot aside; never one that the member had not committed; and never one that the cluster has not in the
//! end, as it has it.

use std::collections::BTreeMap;

use crate::record::{Process, Publication, Published, Record, digest};

pub(super) fn check(record: &Record) -> Result<(), String> {
    let longest = record.ends.values().max_by_key(|end| end.batches.len());
    let kept: BTreeMap<u64, u64> =
        longest.iter().flat_map(|end| &end.batches).map(|batch| (batch.revision.0, digest(batch))).collect();
    // The revision that each life has come to.
    let mut reached: BTreeMap<Process, u64> = BTreeMap::new();
    for Publication { process, what, committed } in &record.publications {
        let before = reached.get(process).copied();
        match *what {
            Published::Opened(revision) if before.is_some_and(|before| before != revision) => {
                return Err(format!("{process} is open at {revision}, and published up to {before:?}"));
            }
            Published::Opened(revision) | Published::Reset(revision) => reached.insert(*process, revision),
            Published::Batch { revision, digest } => {
                if before.is_some_and(|before| before + 1 != revision) {
                    return Err(format!("{process} published {revision} after {before:?}"));
                }
                if committed.is_some_and(|committed| committed < revision) {
                    return Err(format!("{process} published {revision} when {committed:?} was committed"));
                }
                if !kept.is_empty() && kept.get(&revision) != Some(&digest) {
                    return Err(format!(
                        "{process} published {revision}, which the cluster has otherwise or not"
                    ));
                }
                reached.insert(*process, revision)
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::invariants::example::{Example, process};
    use crate::record::Published::{self, Opened, Reset};
    use crate::record::{Record, digest};

    fn published(published: impl Fn(&Record) -> Vec<(Published, u64)>) -> Result<(), String> {
        let mut example = Example::default();
        example.end(1, &[(1, 0, Some(5)), (2, 0, None), (3, 0, Some(6))]);
        for (what, committed) in published(&example.record) {
            example.record.publish(process(1), what, Some(committed));
        }
        super::check(&example.record)
    }

    fn batch(record: &Record, revision: u64) -> Published {
        let digest = digest(&record.ends[&1].batches[revision as usize - 1]);
        Published::Batch { revision, digest }
    }

    #[test]
    fn what_comes_in_order_is_fine() {
        assert_eq!(
            published(|r| vec![(Opened(0), 0), (batch(r, 1), 3), (batch(r, 2), 3), (batch(r, 3), 3)]),
            Ok(())
        );
        assert_eq!(published(|r| vec![(batch(r, 2), 2), (Opened(2), 2), (batch(r, 3), 3)]), Ok(()));
        assert_eq!(published(|r| vec![(Opened(0), 0), (Reset(2), 2), (batch(r, 3), 3)]), Ok(()));
    }

    #[test]
    fn gaps_repeats_and_haste_are_found() {
        assert!(published(|r| vec![(Opened(0), 0), (batch(r, 2), 2)]).is_err());
        assert!(published(|r| vec![(batch(r, 1), 1), (batch(r, 1), 1)]).is_err());
        assert!(published(|r| vec![(batch(r, 1), 1), (Opened(2), 2)]).is_err());
        assert!(published(|r| vec![(Opened(0), 0), (batch(r, 1), 0)]).is_err());
    }

    #[test]
    fn what_the_cluster_has_not_is_found() {
        assert!(published(|_| vec![(Published::Batch { revision: 1, digest: 0 }, 1)]).is_err());
        assert!(
            published(|r| vec![(batch(r, 3), 3), (Published::Batch { revision: 4, digest: 0 }, 4)]).is_err()
        );
    }
}
