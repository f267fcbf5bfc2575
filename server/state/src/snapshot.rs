//! Copying the whole state out of the store, and putting a copy in the place of the present one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heed::CompactionOption;

use crate::error::StateError;
use crate::hash::StateHash;
use crate::ids::{LogPosition, Revision};
use crate::marker;
use crate::room::Room;
use crate::store::{self, Entry, State, StateWriter, Store, StoreOptions};
use crate::verify::Finding;
use crate::view::View;

/// The file that LMDB keeps a state in, and so the name of a copy of it.
pub const DATA: &str = "data.mdb";

/// What a copy of the state holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotContent {
    /// The last log entry applied to it.
    pub applied: LogPosition,
    /// Its revision.
    pub revision: Revision,
    /// Its hash.
    pub hash: StateHash,
    /// The membership at that entry, in consensus' own encoding, and where it was applied.
    pub membership: Option<(LogPosition, bytes::Bytes)>,
}

impl State {
    /// Writes a consistent copy of the state, without free pages, from the first byte to the last: `into` may be a
    /// pipe. Writes and reads go on meanwhile; pages they free are not reused until the copy is complete.
    ///
    /// # Errors
    /// [`StateError`] when the copy could not be written whole.
    pub fn copy_into(&self, into: &mut File) -> Result<(), StateError> {
        Ok(self.store().env.copy_to_file(into, CompactionOption::Enabled)?)
    }
}

/// Reads what a copy of the state holds: the file [`DATA`] in `dir`. Its map is written through, which makes the file as
/// long as the map, so `map_bytes` should be the file's length.
///
/// # Errors
/// [`StateError`] when it is none.
pub fn inspect(dir: &Path) -> Result<SnapshotContent, StateError> {
    content(&View::begin(Arc::new(Store::open_to_read(dir)?))?)
}

/// The same, and everything that is wrong with it.
///
/// # Errors
/// [`StateError`] when it is none.
pub fn verify(dir: &Path) -> Result<(SnapshotContent, Vec<Finding>), StateError> {
    let view = View::begin(Arc::new(Store::open_to_read(dir)?))?;
    Ok((content(&view)?, view.verify()?))
}

/// Looks at everything in a store that nobody has open, and leaves it as it is; `None` if there is none that can be trusted.
///
/// # Errors
/// [`StateError`] when it can't be read.
pub fn verify_store(options: &StoreOptions) -> Result<Option<(SnapshotContent, Vec<Finding>)>, StateError> {
    let (marker, origin) = marker::judge(options)?;
    if origin != store::Origin::Kept {
        return Ok(None);
    }
    verify(&store::generation_dir(&options.dir, marker.generation)).map(Some)
}

fn content(view: &View) -> Result<SnapshotContent, StateError> {
    let membership = view.membership()?;
    Ok(SnapshotContent { applied: view.applied(), revision: view.revision(), hash: view.hash(), membership })
}

impl StateWriter {
    /// Replaces the whole state by a copy made with [`State::copy_into`]. The copy itself stays as it is. Views
    /// that are open go on seeing the old state.
    ///
    /// # Errors
    /// [`StateError`] when the copy can't be used; the present state stays.
    pub fn install(&mut self, from: &Path) -> Result<(), StateError> {
        let plan = self.plan()?;
        fs::copy(from.join(DATA), plan.data()).map_err(StateError::file(plan.data()))?;
        self.take(plan.open()?).map(drop)
    }

    /// Where another store is to be put together that will take the place of this one. That may be done on another thread, while
    /// this one goes on.
    ///
    /// # Errors
    /// [`StateError`] when there can be no such place.
    pub fn plan(&mut self) -> Result<Plan, StateError> {
        self.generation += 1;
        let files =
            Files { dir: store::generation_dir(&self.options.dir, self.generation), is_needed: false };
        fs::create_dir_all(&files.dir).map_err(StateError::file(&files.dir))?;
        Ok(Plan { options: self.options.clone(), generation: self.generation, files })
    }

    /// Lets a store take the place of the present one, of which it has to be a copy that has caught up: applied and hash are the
    /// same, so readers notice nothing.
    ///
    /// # Errors
    /// [`StateError::Corrupt`] when it is not the same; the present store stays.
    pub fn replace(&mut self, replacement: Replacement) -> Result<Retired, StateError> {
        let view = View::begin(replacement.store.clone())?;
        let present = self.state.view()?;
        if (view.applied(), view.hash()) != (present.applied(), present.hash()) {
            let what = format!("a copy of the state at entry {} is not the same", view.applied().index);
            return Err(StateError::corrupt("meta", what));
        }
        drop((view, present));
        self.take(replacement)
    }

    fn take(&mut self, replacement: Replacement) -> Result<Retired, StateError> {
        let Replacement { store, room, generation, mut files } = replacement;
        store.env.force_sync()?;
        let next = self.marker.of_generation(generation);
        next.begin(&self.options)?;
        files.is_needed = true;
        let old = self.state.replace(store);
        (self.marker, self.room) = (next, room);
        Ok(Retired { _files: Files { dir: old.dir.clone(), is_needed: false }, _store: old })
    }
}

/// A directory of a store, which is removed with this unless it is needed. What is left behind all the same is removed when
/// the state is opened next.
struct Files {
    dir: PathBuf,
    is_needed: bool,
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.is_needed {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Where a store is to be put together. Dropped, all there is of it is removed.
pub struct Plan {
    options: StoreOptions,
    generation: u64,
    files: Files,
}

/// A store that is to take the place of another. Dropped, it is removed.
pub struct Replacement {
    store: Arc<Store>,
    /// Taken along with the store.
    room: Room,
    generation: u64,
    files: Files,
}

/// A store whose place was taken. Dropped, it is removed, which takes a moment for a large one. Views of it keep its
/// file open; it is freed with the last one.
pub struct Retired {
    _files: Files,
    _store: Arc<Store>,
}

impl Plan {
    /// The file that a copy made with [`State::copy_into`] has to be written to.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.files.dir.join(DATA)
    }

    /// Opens the copy that was written.
    ///
    /// # Errors
    /// [`StateError`] when the copy can't be used.
    pub fn open(self) -> Result<Replacement, StateError> {
        let Self { options, generation, files } = self;
        let store = Arc::new(Store::open(&files.dir, &options)?);
        let room = Room::of(&store)?;
        Ok(Replacement { store, room, generation, files })
    }
}

impl Replacement {
    /// The last entry applied to it.
    ///
    /// # Errors
    /// [`StateError`] when it is broken.
    pub fn applied(&self) -> Result<LogPosition, StateError> {
        Ok(View::begin(self.store.clone())?.applied())
    }

    /// Applies entries that the present store has already; what becomes of them is known.
    ///
    /// # Errors
    /// As [`StateWriter::apply`].
    pub fn catch_up(&mut self, entries: Vec<Entry>) -> Result<(), StateError> {
        store::apply_to(&self.store, &mut self.room, entries).map(drop)
    }

    /// Has what it holds written to the disk, so that little of that is left to do when it is taken.
    ///
    /// # Errors
    /// [`StateError`] when the disk fails.
    pub fn sync(&self) -> Result<(), StateError> {
        Ok(self.store.env.force_sync()?)
    }
}
