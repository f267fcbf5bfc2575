//! Deadlines that mostly are put off before they come: what waits stands in slots of [`SLOT_MS`], a deadline that is put off only moves, and the
//! slot finds that out when it comes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

/// How exactly deadlines are kept.
const SLOT_MS: u64 = 100;

/// What waits for its time, by name.
#[derive(Debug)]
pub(crate) struct Timers<K> {
    waiting: HashMap<K, Timer>,
    slots: BTreeMap<u64, HashSet<K>>,
}

#[derive(Debug)]
struct Timer {
    at_ms: u64,
    /// Where it waits.
    slot: u64,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), slots: BTreeMap::new() }
    }
}

impl<K: Clone + Eq + Hash> Timers<K> {
    /// When something is due, if it waits.
    pub(crate) fn at_ms(&self, name: &K) -> Option<u64> {
        self.waiting.get(name).map(|timer| timer.at_ms)
    }

    /// Lets something wait until then, never less.
    pub(crate) fn set(&mut self, name: &K, at_ms: u64) {
        self.cancel(name);
        // The slot comes when all of it is over: never early.
        let slot = at_ms.div_ceil(SLOT_MS);
        self.waiting.insert(name.clone(), Timer { at_ms, slot });
        self.slots.entry(slot).or_default().insert(name.clone());
    }

    /// Puts off something that waits; says whether it does. Cheaper than [`Self::set`], as nothing is moved yet.
    pub(crate) fn put_off(&mut self, name: &K, at_ms: u64) -> bool {
        let Some(timer) = self.waiting.get_mut(name) else { return false };
        timer.at_ms = timer.at_ms.max(at_ms);
        true
    }

    /// Lets something wait no more.
    pub(crate) fn cancel(&mut self, name: &K) {
        let Some(Timer { slot, .. }) = self.waiting.remove(name) else { return };
        if let Some(names) = self.slots.get_mut(&slot) {
            names.remove(name);
            if names.is_empty() {
                self.slots.remove(&slot);
            }
        }
    }

    /// Takes out what is due, at most `most`.
    pub(crate) fn due(&mut self, now_ms: u64, most: usize) -> Vec<K> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some((slot, names)) = self.slots.first_key_value()
            && slot * SLOT_MS <= now_ms
        {
            let names: Vec<K> = names.iter().take(most - due.len()).cloned().collect();
            for name in names {
                let at_ms = self.at_ms(&name);
                self.cancel(&name);
                match at_ms {
                    Some(at_ms) if at_ms > now_ms => self.set(&name, at_ms),
                    Some(_) => due.push(name),
                    None => {}
                }
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_due_early_and_what_is_put_off_waits_on() {
        let mut timers = Timers::default();
        for (name, at) in [("a", 150), ("b", 199), ("c", 1_000), ("d", 160)] {
            timers.set(&name, at);
        }
        timers.cancel(&"d");
        assert!(timers.put_off(&"b", 450) && !timers.put_off(&"d", 450));
        assert_eq!(timers.due(149, 9), [""; 0]);
        assert_eq!(timers.due(200, 9), ["a"]);
        assert_eq!(timers.due(449, 9), [""; 0]);
        assert_eq!((timers.due(500, 9), timers.at_ms(&"c")), (vec!["b"], Some(1_000)));
        assert_eq!(timers.due(2_000, 0), [""; 0]);
        assert_eq!((timers.due(2_000, 1), timers.at_ms(&"c")), (vec!["c"], None));
    }
}
