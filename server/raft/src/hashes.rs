//! The state's hash after each of the newest entries, so that members can compare at an index that all of them have.

use std::collections::VecDeque;

use konsul_state::StateHash;
use parking_lot::Mutex;

/// Entries whose hash is remembered: some seconds under full load.
const REMEMBERED: usize = 16_384;

/// What the state's hash was lately.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    newest: Mutex<VecDeque<(u64, StateHash)>>,
}

impl Hashes {
    /// Remembers the hashes of a run of entries.
    pub(crate) fn note(&self, hashes: &[(u64, StateHash)]) {
        let mut newest = self.newest.lock();
        newest.extend(hashes);
        let surplus = newest.len().saturating_sub(REMEMBERED);
        newest.drain(..surplus);
    }

    /// Forgets all: the state was replaced.
    pub(crate) fn clear(&self) {
        self.newest.lock().clear();
    }

    /// The newest entry and its hash.
    pub(crate) fn last(&self) -> Option<(u64, StateHash)> {
        self.newest.lock().back().copied()
    }

    /// The hash after this entry, if it is remembered.
    pub(crate) fn at(&self, index: u64) -> Option<StateHash> {
        let newest = self.newest.lock();
        let first = newest.front()?.0;
        // They follow each other without a gap.
        let (found, hash) = newest.get(usize::try_from(index.checked_sub(first)?).ok()?)?;
        (*found == index).then_some(*hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let hashes = Hashes::default();
        assert_eq!((hashes.last(), hashes.at(1)), (None, None));
        let run: Vec<_> = (10..20_000).map(|index| (index, StateHash::default())).collect();
        hashes.note(&run);
        assert_eq!(hashes.last().map(|(index, _)| index), Some(19_999));
        assert_eq!(hashes.at(10), None);
        assert_eq!(hashes.at(19_999 - REMEMBERED as u64), None);
        assert!(hashes.at(20_000 - REMEMBERED as u64).is_some());
        assert!(hashes.at(19_999).is_some());
        assert_eq!(hashes.at(20_000), None);
        hashes.clear();
        assert_eq!(hashes.last(), None);
    }
}
