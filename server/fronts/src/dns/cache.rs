//! A bounded cache: what was not used since it was last half full goes first.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// What an entry takes besides its key and value, in bytes, roughly.
const OVERHEAD: usize = 64;

/// Two generations: what is found in the old one comes back into the young one; when that has half of all the bytes, it becomes the old
/// one, and what was that is gone. So each operation is one or two look-ups, and the entries in use stay.
pub(super) struct Cache<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    young_bytes: usize,
    half_bytes: usize,
}

impl<K: Hash + Eq + Clone, V> Cache<K, V> {
    /// Holds no more than about so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, half_bytes: bytes / 2 }
    }

    /// The value of a key.
    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.old.is_empty()
            && let Some((key, (value, bytes))) = self.old.remove_entry(key)
        {
            self.put(key, value, bytes);
        }
        self.young.get(key).map(|(value, _)| value)
    }

    /// Puts a value that takes so many bytes; one that would take half of all is not kept.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        let bytes = bytes + OVERHEAD;
        if bytes > self.half_bytes {
            self.remove(&key);
            return;
        }
        self.old.remove(&key);
        self.put(key, value, bytes);
    }

    /// Forgets a key.
    pub(super) fn remove<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.old.remove(key);
        if let Some((_, bytes)) = self.young.remove(key) {
            self.young_bytes -= bytes;
        }
    }

    fn put(&mut self, key: K, value: V, bytes: usize) {
        if self.young_bytes + bytes > self.half_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
            self.old.remove(&key);
        }
        self.young_bytes += bytes;
        if let Some((_, before)) = self.young.insert(key, (value, bytes)) {
            self.young_bytes -= before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(20 * (OVERHEAD + 36));
        cache.insert(0, "used".to_owned(), 36);
        for key in 1..1_000 {
            cache.insert(key, "not used".to_owned(), 36);
            assert_eq!(cache.get(&0).map(String::as_str), Some("used"));
            assert!(cache.young.len() + cache.old.len() <= 20, "at {key}");
        }
        assert_eq!(cache.get(&1), None);
        assert!(cache.get(&999).is_some());
    }

    #[test]
    fn what_is_replaced_or_removed_gives_its_bytes_back() {
        let mut cache = Cache::new(10_000);
        for round in 0..1_000 {
            cache.insert("key", round, 1_000);
        }
        assert_eq!(cache.young_bytes, 1_000 + OVERHEAD);
        cache.insert("key", 1_000, 6_000);
        assert_eq!(cache.get("key"), None, "half of all the bytes is too much for one");
        cache.insert("key", 1_001, 1_000);
        cache.remove("key");
        assert_eq!(cache.get("key"), None);
        assert_eq!(cache.young_bytes, 0);
    }
}
