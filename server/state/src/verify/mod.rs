//! Checks all that a state holds against itself: rows against their records' rules, history against rows, indexes against what they
//! are derived from, sums and the hash against what is there. It looks at everything once and holds the bound rows of all leases in memory,
//! so it is for a store that nobody uses.

mod catalog;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::command::{ClaimRecord, IdempotencyRecord, KvRecord, LeaseRecord, LockRecord};
use crate::error::StateError;
use crate::hash::StateHash;
use crate::tables::bound::{self, Thing};
use crate::tables::chain::{Link, Position};
use crate::tables::{
    Db, ObjectTable, TableSpec, claim, decode, found, gone, history, idempotency, kv, lease, lock,
};
use crate::view::View;
use crate::{LeaseId, Namespace};

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table.
    pub table: &'static str,
    /// The row's key, with what can't be printed escaped; empty for what concerns the whole table.
    pub row: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row.as_str() {
            "" => write!(f, "table {}: {}", self.table, self.what),
            row => write!(f, "table {}, row {row}: {}", self.table, self.what),
        }
    }
}

/// What is collected on the way.
struct Check<'v> {
    view: &'v View,
    findings: Vec<Finding>,
    hash: StateHash,
    /// What `bound` must hold.
    bound: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What `found` must hold.
    found: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl View {
    /// Everything that is wrong with the state; nothing if all is well.
    ///
    /// # Errors
    /// [`StateError`] when the store can't be read any further.
    pub fn verify(&self) -> Result<Vec<Finding>, StateError> {
        let mut check = Check::new(self);
        check.rows()?;
        check.history()?;
        check.gone()?;
        check.sum();
        check.staged()?;
        Ok(check.findings)
    }

    /// The same for a state that is being restored, which has no history: see [`State::staged`](crate::State::staged).
    ///
    /// # Errors
    /// [`StateError`] when the store can't be read any further.
    pub fn verify_staged(&self) -> Result<Vec<Finding>, StateError> {
        let mut check = Check::new(self);
        check.rows()?;
        check.sum();
        Ok(check.findings)
    }
}

impl<'v> Check<'v> {
    fn new(view: &'v View) -> Self {
        Self {
            view,
            findings: Vec::new(),
            hash: StateHash::default(),
            bound: BTreeMap::new(),
            found: BTreeMap::new(),
        }
    }

    fn rows(&mut self) -> Result<(), StateError> {
        self.entries()?;
        self.leases()?;
        self.locks()?;
        self.claims()?;
        self.catalog()?;
        self.derived(bound::TABLE, self.view.tables().bound, |check| &mut check.bound)?;
        self.derived(found::TABLE, self.view.tables().found, |check| &mut check.found)?;
        self.outcomes()
    }

    fn sum(&mut self) {
        if self.hash != self.view.hash() {
            let what = format!("the rows' hash is {}, and the state says {}", self.hash, self.view.hash());
            self.findings.push(Finding { table: "meta", row: String::new(), what });
        }
    }

    /// What is being restored is as much as the state says.
    fn staged(&mut self) -> Result<(), StateError> {
        let mut hash = StateHash::default();
        let mut count = 0;
        for (table, db) in self.view.staged_tables().backed_up() {
            for row in self.view.raw(db)? {
                let (row_key, row) = row?;
                hash.add(table.number.into(), row_key, row);
                count += 1;
            }
        }
        if (count, hash) != self.view.staged_sum() {
            let what = format!("{count} rows of another state are there, and not those that were restored");
            self.findings.push(Finding { table: "meta", row: String::new(), what });
        }
        Ok(())
    }

    fn found(&mut self, table: TableSpec, row_key: &[u8], what: impl Into<String>) {
        let row = row_key.escape_ascii().to_string();
        self.findings.push(Finding { table: table.name, row, what: what.into() });
    }

    fn entries(&mut self) -> Result<(), StateError> {
        self.objects::<kv::Kv>(|check, row_key, record: KvRecord| {
            let KvRecord { create_revision, mod_revision, version, .. } = record;
            if create_revision > mod_revision || mod_revision > check.view.revision().0 {
                let now = check.view.revision();
                let what =
                    format!("created at {create_revision}, written at {mod_revision}, in a store at {now}");
                check.found(kv::TABLE, row_key, what);
            }
            if version == 0 || (version == 1) != (create_revision == mod_revision) {
                check.found(kv::TABLE, row_key, format!("version {version} does not go with its revisions"));
            }
            let Ok(key) = kv::key_of(row_key) else {
                return check.found(kv::TABLE, row_key, "its key is malformed");
            };
            let namespace = namespace_of(row_key);
            if record.lease != 0
                && let Some(namespace) = namespace
            {
                let bytes = (key.len() + record.value.len()) as u64;
                check.expect_bound(&namespace, record.lease, &Thing::Key(key), &[], bytes);
                check.expect_lease(kv::TABLE, row_key, &namespace, record.lease);
            }
        })
    }

    fn leases(&mut self) -> Result<(), StateError> {
        self.objects::<lease::Lease>(|check, row_key, record: LeaseRecord| {
            if record.ttl_ms == 0 {
                check.found(lease::TABLE, row_key, "it has no time to live");
            }
            if record.create_revision > check.view.revision().0 {
                check.found(lease::TABLE, row_key, "it was made in the future");
            }
        })
    }

    fn locks(&mut self) -> Result<(), StateError> {
        self.objects::<lock::Lock>(|check, row_key, record: LockRecord| {
            let claims =
                lock::parse_row_key(row_key).and_then(|lock| check.view.claims(&lock, 0, usize::MAX));
            let claims = match claims {
                Ok(claims) => claims,
                Err(error) => return check.found(lock::TABLE, row_key, error.to_string()),
            };
            let count = |of: &dyn Fn(&ClaimRecord) -> bool| {
                claims.iter().filter(|(_, claim)| of(claim)).count() as u64
            };
            let shared = count(&|claim| claim.granted && claim.shared);
            let exclusive = count(&|claim| claim.granted && !claim.shared);
            let waiting = count(&|claim| !claim.granted);
            if (record.shared, record.exclusive, record.waiting) != (shared, exclusive, waiting) {
                let what = format!(
                    "it does not count its claims: {shared} share it, {exclusive} hold it, {waiting} wait"
                );
                check.found(lock::TABLE, row_key, what);
            }
            if record.value_bytes != claims.iter().map(|(_, claim)| claim.value.len() as u64).sum::<u64>() {
                check.found(lock::TABLE, row_key, "it does not count the bytes of its claims");
            }
            if exclusive > u64::from(record.limit) || (exclusive > 0 && shared > 0) {
                check.found(lock::TABLE, row_key, "more hold it than may");
            }
            if claims.iter().any(|(token, claim)| claim.granted != (*token <= record.granted_upto)) {
                check.found(lock::TABLE, row_key, "its claims are not granted in their order");
            }
        })
    }

    fn claims(&mut self) -> Result<(), StateError> {
        self.objects::<claim::Claim>(|check, row_key, record: ClaimRecord| {
            let (lock, token) = match claim::parse_row_key(row_key) {
                Ok(parsed) => parsed,
                Err(error) => return check.found(claim::TABLE, row_key, error.to_string()),
            };
            let thing = Thing::Claim(lock.kind, lock.name.as_str());
            let bytes = record.value.len() as u64;
            check.expect_bound(&lock.namespace, record.lease, &thing, &token.to_be_bytes(), bytes);
            check.expect_lease(claim::TABLE, row_key, &lock.namespace, record.lease);
            if !matches!(check.view.lock(&lock), Ok(Some(_))) {
                check.found(claim::TABLE, row_key, "its lock is not there");
            }
        })
    }

    /// Goes through an object table: each row's last change must be in history as it is.
    fn objects<T: ObjectTable>(
        &mut self,
        mut judge: impl FnMut(&mut Self, &[u8], T::Record),
    ) -> Result<(), StateError> {
        let (table, number) = (T::SPEC, T::SPEC.number);
        for row in self.view.raw(T::db(self.view.tables()))? {
            let (row_key, row) = row?;
            self.hash.add(number.into(), row_key, row);
            let (link, record) = match Link::split(row) {
                Ok(parts) => parts,
                Err(error) => {
                    self.found(table, row_key, error.to_string());
                    continue;
                }
            };
            if link.at.revision > self.view.compact_revision() {
                match self.view.change(link.at) {
                    Ok(change) if change.table != u32::from(number) || change.key != row_key => {
                        self.found(table, row_key, "its last change in history is another row's");
                    }
                    Ok(change) if change.after.as_deref() != Some(record) => {
                        self.found(table, row_key, "it is not what its last change in history made it");
                    }
                    Ok(_) => {}
                    Err(_) => self.found(table, row_key, "its last change is not in history"),
                }
            }
            match decode::<T::Record>(table, Bytes::copy_from_slice(record)) {
                Ok(record) => judge(self, row_key, record),
                Err(error) => self.found(table, row_key, error.to_string()),
            }
        }
        Ok(())
    }

    fn expect_lease(&mut self, table: TableSpec, row_key: &[u8], namespace: &Namespace, id: u64) {
        if !matches!(self.view.lease(namespace, LeaseId(id)), Ok(Some(_))) {
            self.found(table, row_key, format!("its lease {id} is not there"));
        }
    }

    fn expect_bound(&mut self, namespace: &Namespace, id: u64, thing: &Thing<'_>, value: &[u8], bytes: u64) {
        let (row_key, sums) = bound::row_keys(namespace, LeaseId(id), thing);
        self.bound.insert(row_key, value.to_vec());
        let sum = self.bound.entry(sums).or_insert_with(|| vec![0; 16]);
        bound::add(sum, bytes);
    }

    /// A derived table has what is to be expected of it, and nothing else.
    fn derived(
        &mut self,
        table: TableSpec,
        db: Db,
        expected: fn(&mut Self) -> &mut BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), StateError> {
        let mut expected = std::mem::take(expected(self));
        for row in self.view.raw(db)? {
            let (row_key, row) = row?;
            match expected.remove(row_key) {
                None => self.found(table, row_key, "there is nothing that it could be derived from"),
                Some(value) if value != row => {
                    self.found(table, row_key, "it is not what it is derived from");
                }
                Some(_) => {}
            }
        }
        for row_key in expected.into_keys() {
            self.found(table, &row_key, "it is missing");
        }
        Ok(())
    }

    /// Revisions are dense, and each row's newest change is the one that the row, or `gone`, names.
    fn history(&mut self) -> Result<(), StateError> {
        let (mut bytes, mut last) = (0, None::<Position>);
        for row in self.view.raw(self.view.tables().history)? {
            let (row_key, row) = row?;
            self.hash.add(history::TABLE.number.into(), row_key, row);
            bytes += (row_key.len() + row.len()) as u64;
            let at = match history::parse_row_key(row_key) {
                Ok(at) => at,
                Err(error) => {
                    self.found(history::TABLE, row_key, error.to_string());
                    continue;
                }
            };
            let follows = match last {
                // What is compacted is trimmed row by row.
                None if at.revision <= self.view.compact_revision() => true,
                None => at.revision == self.view.compact_revision().next() && at.place == 0,
                Some(last) if at.revision == last.revision => at.place == last.place + 1,
                Some(last) => at.revision == last.revision.next() && at.place == 0,
            };
            if !follows {
                let what = format!("change {} of revision {} does not follow", at.place, at.revision);
                self.found(history::TABLE, row_key, what);
            }
            last = Some(at);
            match history::decode(at, row) {
                Ok((_, change)) => self.newest(row_key, at, &change)?,
                Err(error) => self.found(history::TABLE, row_key, error.to_string()),
            }
        }
        let ends = last.map_or(self.view.compact_revision(), |last| last.revision);
        let is_whole = ends.max(self.view.compact_revision()) == self.view.revision();
        if !is_whole {
            let what = format!("it ends at revision {ends}, and the store is at {}", self.view.revision());
            self.found(history::TABLE, &[], what);
        }
        if bytes != self.view.history_bytes() {
            let what = format!("it has {bytes} bytes, and the state says {}", self.view.history_bytes());
            self.found(history::TABLE, &[], what);
        }
        Ok(())
    }

    /// No change comes after the one that its row names.
    fn newest(
        &mut self,
        row_key: &[u8],
        at: Position,
        change: &crate::command::ChangeRecord,
    ) -> Result<(), StateError> {
        let objects = self.view.tables().objects();
        let Some((table, db)) = objects.into_iter().find(|(t, _)| u32::from(t.number) == change.table) else {
            self.found(history::TABLE, row_key, format!("it is of unknown table {}", change.table));
            return Ok(());
        };
        let named = match self.view.row(db, &change.key)? {
            Some(row) => Link::split(row).ok().map(|(link, _)| link.at),
            None => self.view.gone(table, &change.key)?.map(|link| link.at),
        };
        let is_after = |named: Position| (at.revision, at.place) > (named.revision, named.place);
        if named.is_none_or(is_after) {
            let what = format!("its row in {} knows nothing of this change", table.name);
            self.found(history::TABLE, row_key, what);
        }
        Ok(())
    }

    fn gone(&mut self) -> Result<(), StateError> {
        for row in self.view.raw(self.view.tables().gone)? {
            let (row_key, row) = row?;
            let link = match gone::link(row) {
                Ok(link) => link,
                Err(error) => {
                    self.found(gone::TABLE, row_key, error.to_string());
                    continue;
                }
            };
            let is_deletion = self.view.change(link.at).is_ok_and(|change| {
                change.after.is_none() && gone::key_of(row_key).is_ok_and(|key| change.key == key)
            });
            if !is_deletion {
                self.found(gone::TABLE, row_key, "the change it names is no deletion of its row");
            }
        }
        Ok(())
    }

    /// Each outcome is in the queue of expiry once, and their bytes are counted.
    fn outcomes(&mut self) -> Result<(), StateError> {
        let mut bytes = 0;
        let mut queue: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for row in self.view.raw(self.view.tables().idempotency_by_age)? {
            let (sequence, row_key) = row?;
            queue.insert(row_key.to_vec(), sequence.to_vec());
        }
        for row in self.view.raw(self.view.tables().idempotency)? {
            let (row_key, row) = row?;
            self.hash.add(idempotency::TABLE.number.into(), row_key, row);
            bytes += (row_key.len() + row.len()) as u64;
            let queued = queue.remove(row_key);
            match decode::<IdempotencyRecord>(idempotency::TABLE, Bytes::copy_from_slice(row)) {
                Ok(record) if queued.as_deref() != Some(&record.sequence.to_be_bytes()[..]) => {
                    self.found(idempotency::TABLE, row_key, "it is not in its place in the queue of expiry");
                }
                Ok(_) => {}
                Err(error) => self.found(idempotency::TABLE, row_key, error.to_string()),
            }
        }
        for row_key in queue.into_keys() {
            self.found(idempotency::BY_AGE, &row_key, "the outcome it names is not there");
        }
        if bytes != self.view.outcome_bytes() {
            let what = format!("it has {bytes} bytes, and the state says {}", self.view.outcome_bytes());
            self.found(idempotency::TABLE, &[], what);
        }
        Ok(())
    }
}

/// The namespace that a row key begins with.
fn namespace_of(row_key: &[u8]) -> Option<Namespace> {
    let name = row_key.split(|byte| *byte == kv::END).next()?;
    Namespace::parse(std::str::from_utf8(name).ok()?).ok()
}
