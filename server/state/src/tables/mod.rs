//! All tables of the store, in one list, and the two kinds they come in.
//!
//! An *object table* holds what users see; `Tx` records a Change for every row of it that changes, and
//! readers can follow it; each row of one begins with the [`chain::Link`] of its last change. The others are
//! bookkeeping of the store itself. Numbers are never reused.
//!
//! Of most tables there are two, because a state that is restored is put together beside the present one and then
//! takes its place at once: [`Sides`].

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{Database, DatabaseOpener, RoTxn, RwTxn, WithoutTls};

use crate::batch::Change;
use crate::command::{Progress, Staged};
use crate::error::StateError;

pub mod bound;
pub(crate) mod chain;
pub mod check;
pub mod claim;
pub mod found;
pub mod gone;
pub mod history;
pub mod idempotency;
pub mod instance;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod meta;
pub mod node;
pub mod service;

/// A table's name in LMDB and its number in records and hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Never reused, not even for a table that is gone.
    pub number: u16,
    /// The name of its LMDB database.
    pub name: &'static str,
}

/// An LMDB database of raw rows.
pub(crate) type Db = Database<'static, Raw, Raw>;

/// What follows from the list of tables.
macro_rules! tables {
    (once { $($once:ident: $once_spec:path,)* } twice { $($twice:ident: $twice_spec:path,)* }) => {
        /// Every table there is: those of which there is one, then those of which there are two.
        pub const ALL: [TableSpec; ONCE.len() + TWICE.len()] = [$($once_spec,)* $($twice_spec,)*];

        /// The tables of the store itself.
        const ONCE: &[TableSpec] = &[$($once_spec,)*];

        /// The tables that a restored state takes the place of. Of each there is a second one, of the same number, named with
        /// [`SECOND`].
        const TWICE: &[TableSpec] = &[$($twice_spec,)*];

        /// The open tables.
        #[derive(Clone, Copy)]
        pub(crate) struct Tables {
            $(pub(crate) $once: Db,)*
            $(pub(crate) $twice: Db,)*
        }

        impl Tables {
            /// The tables of which there are two.
            pub(crate) fn of_a_side(&self) -> [Db; TWICE.len()] {
                [$(self.$twice,)*]
            }

            /// The tables of which there is one.
            pub(crate) fn of_the_store(&self) -> [Db; ONCE.len()] {
                [$(self.$once,)*]
            }
        }

        impl From<[Db; DATABASES]> for Sides {
            /// The databases come in the order of [`names`].
            fn from(all: [Db; DATABASES]) -> Self {
                let [$($once,)* rest @ ..] = all;
                let [$($twice,)* rest @ ..] = rest;
                let first = Tables { $($once,)* $($twice,)* };
                let [$($twice,)*] = rest;
                Self([first, Tables { $($once,)* $($twice,)* }])
            }
        }
    };
}

tables! {
    once {
        meta: meta::TABLE,
        history: history::TABLE,
        gone: gone::TABLE,
    }
    twice {
        kv: kv::TABLE,
        idempotency: idempotency::TABLE,
        idempotency_by_age: idempotency::BY_AGE,
        lease: lease::TABLE,
        bound: bound::TABLE,
        lock: lock::TABLE,
        claim: claim::TABLE,
        node: node::TABLE,
        service: service::TABLE,
        instance: instance::TABLE,
        check: check::TABLE,
        found: found::TABLE,
    }
}

const SECOND: &str = "-2";

/// All LMDB databases.
pub(crate) const DATABASES: usize = ALL.len() + TWICE.len();

/// Room for tables to come, fixed because LMDB wants to know when it is opened.
pub(crate) const MAX_TABLES: u32 = 64;

/// The two sets of tables: the present state is in one of them, and in the other what is being restored, or nothing. Which
/// is which says `Progress.side`. Tables that are there once are in both.
#[derive(Clone, Copy)]
pub(crate) struct Sides([Tables; 2]);

impl Sides {
    /// The tables that are there once, `meta` above all.
    pub(crate) fn common(&self) -> &Tables {
        &self.0[0]
    }

    /// The tables of the present state.
    pub(crate) fn present(&self, progress: &Progress) -> Tables {
        self.0[usize::from(progress.side != 0)]
    }

    /// The other ones.
    pub(crate) fn staged(&self, progress: &Progress) -> Tables {
        self.0[usize::from(progress.side == 0)]
    }
}

impl Tables {
    /// The tables whose rows are backed up, in the order of their numbers. The others are derived from them.
    pub(crate) fn backed_up(&self) -> Vec<(TableSpec, Db)> {
        let mut all: Vec<_> =
            self.objects().into_iter().chain([(idempotency::TABLE, self.idempotency)]).collect();
        all.sort_by_key(|(table, _)| table.number);
        all
    }
}

/// A table of what users see.
pub(crate) trait ObjectTable {
    /// The table.
    const SPEC: TableSpec;
    /// What names a row.
    type Key;
    /// What a row holds, behind its link.
    type Record: prost::Message + Default;

    /// The table among the open ones.
    fn db(tables: &Tables) -> Db;
    /// Appends the row's key, in an order that is the order of keys.
    fn encode_key(key: &Self::Key, into: &mut Vec<u8>);
    /// What a row's key names.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] for one that is malformed.
    fn decode_key(row_key: &[u8]) -> Result<Self::Key, StateError>;
    /// The Change of a row as readers see it.
    fn change(key: Self::Key, before: Option<Self::Record>, after: Option<Self::Record>) -> Change;

    /// Checks what of a record is not for its reader alone, but names rows of what is derived from it.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] for one that no Command could have made.
    fn check(_key: &Self::Key, _record: &Self::Record) -> Result<(), StateError> {
        Ok(())
    }

    /// Brings what is derived from the table up to date with a change of a row.
    fn reindex(
        _tables: &Tables,
        _txn: &mut RwTxn<'_>,
        _key: &Self::Key,
        _before: Option<&Self::Record>,
        _after: Option<&Self::Record>,
    ) -> Result<(), StateError> {
        Ok(())
    }
}

/// The names of all LMDB databases, in the order of [`Sides`].
fn names() -> impl Iterator<Item = String> {
    let second = TWICE.iter().map(|table| format!("{}{SECOND}", table.name));
    ALL.iter().map(|table| table.name.to_owned()).chain(second)
}

/// All LMDB databases of an environment.
pub(crate) type Opened<'e> = [Database<'e, Raw, Raw>; DATABASES];

fn all_of(opened: Vec<Database<'_, Raw, Raw>>) -> Result<Opened<'_>, StateError> {
    opened.try_into().map_err(|_| StateError::corrupt("meta", "the list of tables is not whole"))
}

/// Opens the tables, and makes those that are not there yet. Refuses a store of another format, and stamps a new one.
pub(crate) fn create<'e>(
    opener: &DatabaseOpener<'e, WithoutTls>,
    txn: &mut RwTxn<'e>,
) -> Result<Opened<'e>, StateError> {
    let mut made = Vec::with_capacity(DATABASES);
    for name in names() {
        made.push(opener.create_database::<Raw, Raw>(txn, Some(&name))?);
    }
    let made = all_of(made)?;
    if meta::check_format(&made[0], txn)?.is_none() {
        meta::put_format(&made[0], txn)?;
    }
    Ok(made)
}

/// Opens the tables of a store that must not be changed. Refuses one of another format.
pub(crate) fn open<'e>(
    opener: &DatabaseOpener<'e, WithoutTls>,
    txn: &RoTxn<'e>,
) -> Result<Opened<'e>, StateError> {
    let mut found = Vec::with_capacity(DATABASES);
    for name in names() {
        let table = opener.open_database::<Raw, Raw>(txn, Some(&name))?;
        found.push(table.ok_or_else(|| StateError::corrupt("meta", format!("there is no table {name}")))?);
    }
    let found = all_of(found)?;
    match meta::check_format(&found[0], txn)? {
        Some(()) => Ok(found),
        None => Err(StateError::corrupt("meta", "it has no format")),
    }
}

/// Decodes the record of a row.
pub(crate) fn decode<M: prost::Message + Default>(table: TableSpec, row: Bytes) -> Result<M, StateError> {
    M::decode(row).map_err(|e| StateError::corrupt(table.name, format!("a row does not decode: {e}")))
}

/// What follows from the list of object tables.
macro_rules! objects {
    ($($field:ident: $object:path,)*) => {
        impl Tables {
            /// The object tables.
            pub(crate) fn objects(&self) -> [(TableSpec, Db); [$(<$object>::SPEC),*].len()] {
                [$((<$object>::SPEC, self.$field),)*]
            }
        }

        /// Decodes a change of any object table.
        pub(crate) fn decode_change(
            number: u32,
            key: &[u8],
            before: Option<Bytes>,
            after: Option<Bytes>,
        ) -> Result<Change, StateError> {
            match number {
                $(n if n == u32::from(<$object>::SPEC.number) => change_of::<$object>(key, before, after),)*
                unknown => Err(unknown_table(unknown)),
            }
        }

        /// Checks a row of any object table that is to be restored.
        fn check_object(number: u32, key: &[u8], record: Bytes) -> Result<(), StateError> {
            match number {
                $(n if n == u32::from(<$object>::SPEC.number) => check_of::<$object>(key, record),)*
                unknown => Err(unknown_table(unknown)),
            }
        }

        /// Makes what is derived from a row of any object table.
        fn derive(tables: &Tables, txn: &mut RwTxn<'_>, number: u32, key: &[u8], record: Bytes) -> Result<(), StateError> {
            match number {
                $(n if n == u32::from(<$object>::SPEC.number) => derive_of::<$object>(tables, txn, key, record),)*
                unknown => Err(unknown_table(unknown)),
            }
        }
    };
}

objects! {
    kv: kv::Kv,
    lease: lease::Lease,
    lock: lock::Lock,
    claim: claim::Claim,
    node: node::Node,
    service: service::Service,
    instance: instance::Instance,
    check: check::Check,
}

fn change_of<T: ObjectTable>(
    key: &[u8],
    before: Option<Bytes>,
    after: Option<Bytes>,
) -> Result<Change, StateError> {
    let record = |row: Option<Bytes>| row.map(|row| decode(T::SPEC, row)).transpose();
    Ok(T::change(T::decode_key(key)?, record(before)?, record(after)?))
}

fn check_of<T: ObjectTable>(key: &[u8], record: Bytes) -> Result<(), StateError> {
    T::check(&T::decode_key(key)?, &decode(T::SPEC, record)?)
}

fn derive_of<T: ObjectTable>(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    key: &[u8],
    record: Bytes,
) -> Result<(), StateError> {
    let record = decode::<T::Record>(T::SPEC, record)?;
    T::reindex(tables, txn, &T::decode_key(key)?, None, Some(&record))
}

fn unknown_table(number: u32) -> StateError {
    StateError::corrupt(history::TABLE.name, format!("a change is of unknown table {number}"))
}

/// Checks a row of a state that is to be restored, and says where it belongs.
///
/// # Errors
/// [`StateError::Corrupt`] for a row that its table can't read.
pub(crate) fn check_row(tables: &Tables, table: u32, key: &[u8], row: &[u8]) -> Result<Db, StateError> {
    if table == u32::from(idempotency::TABLE.number) {
        idempotency::check_row(key, row)?;
        return Ok(tables.idempotency);
    }
    let record = Bytes::copy_from_slice(chain::Link::split(row)?.1);
    check_object(table, key, record)?;
    let found = tables.objects().into_iter().find(|(spec, _)| u32::from(spec.number) == table);
    found.map(|(_, db)| db).ok_or_else(|| unknown_table(table))
}

/// Adds a row that was checked, and what is derived from it.
pub(crate) fn restore(
    tables: &Tables,
    txn: &mut RwTxn<'_>,
    table: u32,
    key: &[u8],
    row: &[u8],
    staged: &mut Staged,
) -> Result<(), StateError> {
    check_row(tables, table, key, row)?.put(txn, key, row)?;
    if table == u32::from(idempotency::TABLE.number) {
        return idempotency::restore(tables, txn, key, row, staged);
    }
    derive(tables, txn, table, key, Bytes::copy_from_slice(chain::Link::split(row)?.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (i, a) in ALL.iter().enumerate() {
            for b in &ALL[i + 1..] {
                assert_ne!(a.number, b.number);
                assert_ne!(a.name, b.name);
            }
        }
    }
}
