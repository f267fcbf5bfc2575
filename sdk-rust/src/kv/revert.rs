//! The difference between two revisions, and going back to one.

use std::collections::BTreeMap;
use std::time::SystemTime;

use konsul_proto::v1::{Entry, FindRevisionRequest};

use super::{DeleteOperation, Kv, Operation, PutOperation};
use crate::error::{Answer, Error};
use crate::keys::Keys;
use tonic::Code;

/// Most keys that one transaction changes.
const MAX_CHANGES: usize = 256;

/// A key that differs between two revisions.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// The entry at the first revision; `None` if it was not there.
    pub before: Option<Entry>,
    /// The entry at the second; `None` if it is not there.
    pub after: Option<Entry>,
}

/// What a revert did.
#[derive(Debug, Clone, PartialEq)]
pub struct Reverted {
    /// Revision of the changes; the store's revision if there were none.
    pub revision: u64,
    /// What it changed: each key as it was before and after the revert.
    pub changes: Vec<Difference>,
    /// What it left alone, in the same order, because it [is leased](Difference::is_leased).
    pub leased: Vec<Difference>,
}

impl Kv {
    /// The revision that the store was at at this time, by the leader's clock.
    ///
    /// # Errors
    /// [`Error::Compacted`] when that is not known any more.
    pub async fn revision_at(&self, time: SystemTime) -> Result<u64, Error> {
        let request = FindRevisionRequest { time: Some(time.into()), read: None };
        let found = self
            .scope
            .read()
            .send(request, |transport, limit, request| async move {
                Kv::stub(transport, limit).find_revision(request).await
            })
            .await?;
        Ok(found.revision)
    }

    /// What differs between two revisions, in key order; 0 means now. Entries are the same if their value, flags and content
    /// type are, whoever wrote them.
    ///
    /// # Errors
    /// [`Error::Compacted`] when one of the revisions is.
    pub async fn diff(&self, keys: impl Into<Keys>, from: u64, to: u64) -> Result<Vec<Difference>, Error> {
        let keys = keys.into();
        let list = |revision| self.list(keys.clone()).at_revision(revision).all();
        Ok(differences(list(from).await?, list(to).await?))
    }

    /// Makes the keys what they were at a revision, in one transaction: what was changed since is changed back, what was
    /// deleted is written again, what came is deleted.
    ///
    /// Keys that are or were bound to a lease are left alone: they say that somebody is alive, who may be so no more, and would stay
    /// for good without the lease.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the revision is; [`Error::PreconditionFailed`] when one of the keys is written meanwhile;
    /// RESOURCE_EXHAUSTED when more than 256 keys differ: revert narrower prefixes.
    pub async fn revert(&self, keys: impl Into<Keys>, to: u64) -> Result<Reverted, Error> {
        let (leased, changes): (Vec<_>, Vec<_>) =
            self.diff(keys, 0, to).await?.into_iter().partition(Difference::is_leased);
        if changes.len() > MAX_CHANGES {
            let message = format!(
                "{} keys differ, and one transaction changes {MAX_CHANGES}: revert narrower prefixes",
                changes.len()
            );
            return Err(Error::Rpc(Box::new(Answer::local(Code::ResourceExhausted, message))));
        }
        if changes.is_empty() {
            // A number that says as of when nothing differed.
            let revision = self.list(Keys::all()).page_size(1).keys_only().await?.revision;
            return Ok(Reverted { revision, changes, leased });
        }
        let mut txn = self.txn();
        for change in &changes {
            txn = txn.then(change.operation());
        }
        Ok(Reverted { revision: txn.await?.revision, changes, leased })
    }
}

impl Difference {
    /// Whether one of the entries is bound to a lease, or has a time to live of its own.
    pub fn is_leased(&self) -> bool {
        [&self.before, &self.after].into_iter().flatten().any(|entry| entry.lease != 0)
    }

    /// What turns the first into the second, if the key is as the first still.
    fn operation(&self) -> Operation {
        let found = self.before.as_ref().map_or(0, |entry| entry.mod_revision);
        match &self.after {
            Some(entry) => PutOperation::new(&self.key, entry.value.clone())
                .flags(entry.flags)
                .content_type(&entry.content_type)
                .if_revision(found)
                .into(),
            None => DeleteOperation::new(&self.key).if_revision(found).into(),
        }
    }
}

fn differences(before: Vec<Entry>, after: Vec<Entry>) -> Vec<Difference> {
    let mut keys: BTreeMap<String, (Option<Entry>, Option<Entry>)> = BTreeMap::new();
    for entry in before {
        let both = keys.entry(entry.key.clone()).or_default();
        both.0 = Some(entry);
    }
    for entry in after {
        let both = keys.entry(entry.key.clone()).or_default();
        both.1 = Some(entry);
    }
    let content = |entry: &Option<Entry>| {
        entry.as_ref().map(|entry| (entry.value.clone(), entry.flags, entry.content_type.clone()))
    };
    keys.into_iter()
        .filter(|(_, (before, after))| content(before) != content(after))
        .map(|(key, (before, after))| Difference { key, before, after })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: &'static str, mod_revision: u64) -> Entry {
        Entry { key: key.into(), value: value.into(), mod_revision, ..Entry::default() }
    }

    #[test]
    fn what_has_the_same_content_is_no_difference() {
        let before = vec![entry("a", "1", 1), entry("b", "1", 2), entry("c", "1", 3)];
        let after = vec![entry("b", "1", 9), entry("c", "2", 8), entry("d", "1", 7)];
        let found = differences(before.clone(), after.clone());
        let keys: Vec<&str> = found.iter().map(|difference| difference.key.as_str()).collect();
        assert_eq!(keys, ["a", "c", "d"]);
        assert_eq!((&found[1].before, &found[1].after), (&Some(before[2].clone()), &Some(after[1].clone())));
        assert_eq!((&found[0].after, &found[2].before), (&None, &None));
    }

    #[test]
    fn what_is_bound_to_a_lease_in_one_of_the_versions_is_leased() {
        let (plain, leased) = (Some(entry("a", "1", 1)), Some(Entry { lease: 7, ..entry("a", "2", 2) }));
        for (before, after, is_leased) in [
            (&plain, &plain, false),
            (&plain, &None, false),
            (&plain, &leased, true),
            (&leased, &plain, true),
            (&None, &leased, true),
        ] {
            let difference = Difference { key: "a".into(), before: before.clone(), after: after.clone() };
            assert_eq!(difference.is_leased(), is_leased, "{difference:?}");
        }
    }
}
