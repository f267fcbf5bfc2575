//! The store itself: opening it, the handle that reads ([`State`], cheap to clone) and the one that writes
//! ([`StateWriter`], one a store). Only this file opens an LMDB environment.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls};

use crate::apply;
use crate::batch::Batch;
use crate::command::{CommandGroup, Outcome, Progress};
use crate::error::StateError;
use crate::hash::StateHash;
use crate::ids::{LogPosition, Revision};
use crate::marker::{self, Marker};
use crate::room::Room;
use crate::snapshot::DATA;
use crate::tables::{self, Sides, meta};
use crate::tx::Rows;
use crate::view::View;

/// Where the state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// In LMDB in the store's directory.
    Lmdb,
    /// The same, in a directory that the caller throws away: never synced, not even when it is closed.
    Memory,
}

/// What a commit of the state waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the log and the snapshots are what is durable, and the state is rebuilt from them if the
    /// machine went down.
    Log,
    /// The disk. Slower by 5 to 15 times; the state survives a power loss by itself.
    Synced,
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Directory of the store; made if it is not there.
    pub dir: PathBuf,
    /// Greatest size of the state's file in bytes; address space, not memory.
    pub map_bytes: usize,
    /// Where the state is kept.
    pub persistence: Persistence,
    /// What a commit waits for.
    pub durability: Durability,
    /// Names the boot of this machine's kernel. A state that was not closed cleanly is trusted only under the
    /// boot that wrote it, because only then what was written but not synced is still there.
    pub boot_id: String,
}

/// What was found when a store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing: the store is new.
    Created,
    /// A state that can be trusted.
    Kept,
    /// A state that may lack writes, because the machine went down while it was open. It was set aside
    /// and an empty one opened: install the newest snapshot and apply the log after it.
    Discarded,
}

/// One log entry, as consensus hands it to the state.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the log.
    pub position: LogPosition,
    /// What it carries.
    pub payload: Payload,
}

/// What a log entry carries.
#[derive(Debug, Clone)]
pub enum Payload {
    /// Nothing; a new leader's first entry.
    Blank,
    /// The cluster's membership, in consensus' own encoding.
    Membership(Bytes),
    /// Writes.
    Commands(CommandGroup),
}

/// What applying a run of entries yielded.
#[derive(Debug, Default)]
pub struct Run {
    /// For each entry the outcomes of its Commands, in order; empty for other payloads.
    pub outcomes: Vec<Vec<Outcome>>,
    /// The revision at which the whole state became another one, if it did: see [`crate::backup`].
    pub restored: Option<Revision>,
    /// What changed (after that), one Batch a revision, in revision order.
    pub batches: Vec<Arc<Batch>>,
    /// The hash of the state after each entry, with the entry's index.
    pub hashes: Vec<(u64, StateHash)>,
}

/// The unit that a file's blocks are counted in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// LMDB's maps are whole pages, whatever a page is here.
pub(crate) const MAP_UNIT_BYTES: usize = 64 << 10;

/// One LMDB environment with its tables. Replaced as a whole when a snapshot is installed.
pub(crate) struct Store {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) sides: Sides,
    pub(crate) dir: PathBuf,
    pub(crate) page_bytes: u64,
    seen: ArcSwap<Seen>,
}

/// The progress that a commit of LMDB has, by the commit's transaction id: 0 is the empty environment's.
#[derive(Default)]
struct Seen {
    commit: usize,
    progress: Progress,
}

/// Reads the state. Clones read the same store.
#[derive(Clone)]
pub struct State {
    current: Arc<ArcSwap<Store>>,
}

/// Writes the state. There is one a store, and whoever holds it feeds it the log in order.
pub struct StateWriter {
    pub(crate) state: State,
    pub(crate) options: StoreOptions,
    pub(crate) marker: Marker,
    pub(crate) room: Room,
    /// The last generation whose directory was given away.
    pub(crate) generation: u64,
}

/// Says what [`open`] would find, and changes nothing.
///
/// # Errors
/// [`StateError`] when the state's marker is damaged or can't be read.
pub fn judge(options: &StoreOptions) -> Result<Origin, StateError> {
    marker::judge(options).map(|(_, origin)| origin)
}

/// Opens the store, or makes it.
///
/// # Errors
/// [`StateError::Newer`], [`StateError::Unreleased`], [`StateError::Corrupt`] or [`StateError::Lmdb`] for data that
/// cannot be used, which is left as it was; [`StateError::InUse`] when this process has it open already.
pub fn open(options: StoreOptions) -> Result<(State, StateWriter, Origin), StateError> {
    fs::create_dir_all(&options.dir).map_err(StateError::file(&options.dir))?;
    let (mut marker, origin) = marker::judge(&options)?;
    if origin == Origin::Discarded {
        marker.generation += 1;
    }
    let dir = generation_dir(&options.dir, marker.generation);
    let store = Store::open(&dir, &options)?;
    marker.begin(&options)?;
    remove_other_generations(&options.dir, marker.generation)?;
    let room = Room::of(&store)?;
    let state = State { current: Arc::new(ArcSwap::from_pointee(store)) };
    state.view()?;
    let generation = marker.generation;
    Ok((state.clone(), StateWriter { state, options, marker, room, generation }, origin))
}

/// The directory of one generation of the state; installing a snapshot begins another.
pub(crate) fn generation_dir(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("gen-{generation:06}"))
}

pub(crate) fn remove_other_generations(dir: &Path, keep: u64) -> Result<(), StateError> {
    let keep = generation_dir(dir, keep);
    for found in fs::read_dir(dir).map_err(StateError::file(dir))? {
        let path = found.map_err(StateError::file(dir))?.path();
        let is_generation = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("gen-"));
        if is_generation && path != keep {
            fs::remove_dir_all(&path).map_err(StateError::file(&path))?;
        }
    }
    Ok(())
}

impl Store {
    pub(crate) fn open(dir: &Path, options: &StoreOptions) -> Result<Self, StateError> {
        fs::create_dir_all(dir).map_err(StateError::file(dir))?;
        let mut flags = EnvFlags::WRITE_MAP | EnvFlags::NO_MEM_INIT | EnvFlags::NO_READ_AHEAD;
        if options.persistence == Persistence::Memory || options.durability == Durability::Log {
            flags |= EnvFlags::NO_SYNC;
        }
        let env = open_env(dir, options.map_bytes, flags)?;
        let txn = env.write_txn()?;
        let tables = env
            .create_databases_and_commit(txn, |opener, txn| {
                Ok::<_, StateError>(CommitOrAbort::<_, ()>::Commit(tables::create(opener, txn)?))
            })?
            .commit()
            .ok_or_else(not_opened)?;
        Self::new(env, tables.into(), dir)
    }

    /// Opens one that must not be changed, by anybody, as long as it is open.
    pub(crate) fn open_to_read(dir: &Path) -> Result<Self, StateError> {
        let data = dir.join(DATA);
        let bytes = fs::metadata(&data).map_err(StateError::file(&data))?.len();
        // LMDB makes the map large enough for what the file says that it holds.
        let map_bytes = usize::try_from(bytes).unwrap_or(usize::MAX).next_multiple_of(MAP_UNIT_BYTES);
        let env = open_env(dir, map_bytes, EnvFlags::READ_ONLY | EnvFlags::NO_LOCK)?;
        let txn = env.read_txn()?;
        let tables = env
            .open_databases_and_commit(txn, |opener, txn| {
                Ok::<_, StateError>(CommitOrAbort::<_, ()>::Commit(tables::open(opener, txn)?))
            })?
            .commit()
            .ok_or_else(not_opened)?;
        Self::new(env, tables.into(), dir)
    }

    fn new(env: Env<WithoutTls>, sides: Sides, dir: &Path) -> Result<Self, StateError> {
        let page_bytes = page_bytes(&env, &sides)?;
        Ok(Self { env, sides, dir: dir.to_owned(), page_bytes, seen: ArcSwap::default() })
    }

    /// The progress as a transaction sees it; read and decoded once for all that see the same commit.
    pub(crate) fn progress(&self, txn: &RoTxn<'_, WithoutTls>) -> Result<Progress, StateError> {
        let (seen, commit) = (self.seen.load(), txn.id());
        if seen.commit == commit {
            return Ok(seen.progress);
        }
        let progress = meta::progress(self.sides.common(), txn)?;
        if seen.commit < commit {
            self.seen.store(Arc::new(Seen { commit, progress }));
        }
        Ok(progress)
    }
}

fn not_opened() -> StateError {
    StateError::corrupt("meta", "the tables could not be opened")
}

fn page_bytes(env: &Env<WithoutTls>, sides: &Sides) -> Result<u64, StateError> {
    let txn = env.read_txn()?;
    Ok(u64::from(sides.common().meta.stat(&txn)?.page_size))
}

/// Opens an LMDB environment.
#[allow(unsafe_code)]
fn open_env(dir: &Path, map_bytes: usize, flags: EnvFlags) -> Result<Env<WithoutTls>, StateError> {
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(map_bytes).max_dbs(tables::MAX_TABLES).max_readers(1024);
    // SAFETY: an environment is sound as long as nobody changes its files behind LMDB's back: the data
    // directory is locked by its owner for as long as it is open, and heed refuses a second opening within this
    // process. WRITE_MAP lets LMDB write through the map, which no safe code has a pointer into; `room` sees to
    // it that the blocks are there. NO_SYNC gives up durability of this file (see `Durability`), not its
    // soundness: a state that was open when the machine went down is set aside unread (see `marker`). NO_LOCK goes with
    // READ_ONLY, of what nobody writes to.
    let opened = unsafe {
        open.flags(flags);
        open.open(dir)
    };
    match opened {
        Ok(env) => Ok(env),
        Err(heed::Error::EnvAlreadyOpened) => Err(StateError::InUse),
        Err(error) => Err(error.into()),
    }
}

impl State {
    /// Begins a read of the present state: one consistent view, to be dropped soon (a page at most), because
    /// LMDB can't reuse pages that a view still sees.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn view(&self) -> Result<View, StateError> {
        View::begin(self.current.load_full())
    }

    /// Reads what a restore has put together so far, as it will be at a revision; `None` if it is not under way (any more).
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn staged(&self, id: u64, revision: Revision) -> Result<Option<View>, StateError> {
        Ok(self.view()?.into_staged(id, revision))
    }

    /// The position of the last applied entry; zeros for an empty or unreadable store.
    #[must_use]
    pub fn applied(&self) -> LogPosition {
        self.view().map(|v| v.applied()).unwrap_or_default()
    }

    /// Bytes of the state's file that hold data, and bytes that it takes on the disk (the file is sparse, and as
    /// long as it may ever become).
    ///
    /// # Errors
    /// [`StateError`] when the file can't be asked.
    pub fn size_bytes(&self) -> Result<(u64, u64), StateError> {
        let store = self.current.load();
        let view = self.view()?;
        let used = view.used_bytes()? + view.staged_bytes()?;
        let file = store.env.try_clone_inner_file()?;
        let blocks = rustix::fs::fstat(&file).map_err(|e| StateError::file(&store.dir)(e.into()))?.st_blocks;
        Ok((used, blocks.unsigned_abs() * BLOCK_BYTES))
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        self.current.load_full()
    }

    pub(crate) fn replace(&self, store: Arc<Store>) -> Arc<Store> {
        self.current.swap(store)
    }
}

/// Applies entries to a store in one transaction.
pub(crate) fn apply_to(store: &Store, room: &mut Room, entries: Vec<Entry>) -> Result<Run, StateError> {
    room.reserve_for(store, &entries)?;
    let mut rows = Rows::begin(store)?;
    let mut run = Run::default();
    for entry in entries {
        let index = entry.position.index;
        let outcomes = apply::entry(&mut rows, entry, &mut run)?;
        run.outcomes.push(outcomes);
        run.hashes.push((index, rows.hash));
    }
    rows.commit()?;
    Ok(run)
}

impl StateWriter {
    /// The handle that reads what this one writes.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Applies a run of committed entries in one transaction. When it returns, all of it is visible to
    /// readers; on an error none of it is, and the same run may be handed in again.
    ///
    /// # Errors
    /// [`StateError::OutOfOrder`] unless the entries follow the last applied one without a gap; others when the
    /// store is broken or out of space ([`StateError::is_out_of_space`]).
    pub fn apply(&mut self, entries: Vec<Entry>) -> Result<Run, StateError> {
        apply_to(&self.state.store(), &mut self.room, entries)
    }

    /// The last membership applied, in consensus' own encoding, and the position it was applied at.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn membership(&self) -> Result<Option<(LogPosition, Bytes)>, StateError> {
        let store = self.state.store();
        let txn = store.env.read_txn()?;
        meta::membership(store.sides.common(), &txn)
    }

    /// The hash of the whole state.
    ///
    /// # Errors
    /// [`StateError`] when the store is broken.
    pub fn hash(&self) -> Result<StateHash, StateError> {
        Ok(self.state.view()?.hash())
    }

    /// Syncs the state and marks it as closed cleanly, so that the next opening need not rebuild it.
    ///
    /// # Errors
    /// [`StateError`] when it could not be synced; the next opening then decides by the boot.
    pub fn close(self) -> Result<(), StateError> {
        if self.options.persistence == Persistence::Memory {
            return Ok(());
        }
        self.state.store().env.force_sync()?;
        self.marker.end(&self.options)
    }

    /// Closes a store that was opened in vain, and to which nothing was applied: it is left as it was found.
    ///
    /// # Errors
    /// [`StateError`] when its marker could not be written.
    pub fn leave(self) -> Result<(), StateError> {
        match self.options.persistence {
            Persistence::Memory => Ok(()),
            Persistence::Lmdb => self.marker.restore(&self.options),
        }
    }
}
