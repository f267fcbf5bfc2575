//! What each runtime that calls has of its own. Finding it takes no lock, because every call does. A server's runtimes
//! live as long as its member, so nothing is ever forgotten.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Id};

/// One `T` for each runtime that asked for it.
pub(crate) struct PerRuntime<T> {
    known: ArcSwap<Vec<(Id, Arc<T>)>>,
    /// Held while one is made, so that no runtime has two.
    making: Mutex<()>,
}

impl<T> Default for PerRuntime<T> {
    fn default() -> Self {
        Self { known: ArcSwap::default(), making: Mutex::default() }
    }
}

impl<T> PerRuntime<T> {
    /// What the calling runtime has; it is made if there is none yet.
    pub(crate) fn here(&self, make: impl FnOnce(&Handle) -> Arc<T>) -> Arc<T> {
        let runtime = Handle::current();
        if let Some(found) = self.of(runtime.id()) {
            return found;
        }
        let _making = self.making.lock();
        if let Some(found) = self.of(runtime.id()) {
            return found;
        }
        let made = make(&runtime);
        let known = self.known.load().iter().cloned().chain([(runtime.id(), made.clone())]).collect();
        self.known.store(Arc::new(known));
        made
    }

    fn of(&self, runtime: Id) -> Option<Arc<T>> {
        let known = self.known.load();
        known.iter().find(|(id, _)| *id == runtime).map(|(_, of)| of.clone())
    }

    /// Takes out all there are.
    pub(crate) fn take(&self) -> Vec<Arc<T>> {
        let _making = self.making.lock();
        self.known.swap(Arc::default()).iter().map(|(_, of)| of.clone()).collect()
    }
}
