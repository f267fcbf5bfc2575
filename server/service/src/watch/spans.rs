//! Spans of keys (prefixes and ranges), and which of them have a key: an interval tree laid out in a sorted
//! array, with what was added lately beside it until there is enough to be sorted in.

/// Spans with something attached to each.
pub(super) struct Spans<T> {
    /// By (start, end). `reach[i]` is the node with the greatest end in the subtree whose root is `i`.
    sorted: Vec<Node<T>>,
    reach: Vec<u32>,
    /// Added since the last sorting.
    fresh: Vec<Node<T>>,
    /// Removed since the last sorting, and still in `sorted`.
    dead: usize,
}

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self { sorted: Vec::new(), reach: Vec::new(), fresh: Vec::new(), dead: 0 }
    }
}

struct Node<T> {
    start: Box<[u8]>,
    /// Empty: no end.
    end: Box<[u8]>,
    value: Option<T>,
}

impl<T> Node<T> {
    fn ends_after(&self, key: &[u8]) -> bool {
        self.end.is_empty() || key < &self.end[..]
    }

    fn place(&self) -> (&[u8], &[u8]) {
        (&self.start, &self.end)
    }
}

/// As few spans as this are searched one by one.
const FEW: usize = 32;

impl<T: Default> Spans<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.sorted.len() == self.dead && self.fresh.is_empty()
    }

    /// What is attached to a span; it is added if it isn't there.
    pub(super) fn entry(&mut self, start: &[u8], end: &[u8]) -> &mut T {
        // Looked up by index, because the borrow checker does not let a reference be returned conditionally.
        if let Some(i) = self.find_sorted(start, end) {
            let node = &mut self.sorted[i];
            if node.value.is_none() {
                self.dead -= 1;
            }
            return node.value.get_or_insert_default();
        }
        let i = match self.find_fresh(start, end) {
            Some(i) => i,
            None => {
                self.fresh.push(Node { start: start.into(), end: end.into(), value: None });
                self.fresh.len() - 1
            }
        };
        self.fresh[i].value.get_or_insert_default()
    }

    /// What is attached to a span.
    pub(super) fn get_mut(&mut self, start: &[u8], end: &[u8]) -> Option<&mut T> {
        if let Some(i) = self.find_sorted(start, end) {
            return self.sorted[i].value.as_mut();
        }
        self.find_fresh(start, end).and_then(|i| self.fresh[i].value.as_mut())
    }

    /// Removes a span.
    pub(super) fn remove(&mut self, start: &[u8], end: &[u8]) {
        if let Some(i) = self.find_sorted(start, end) {
            if self.sorted[i].value.take().is_some() {
                self.dead += 1;
            }
        } else if let Some(i) = self.find_fresh(start, end) {
            self.fresh.swap_remove(i);
        }
    }

    /// Calls `visit` with what is attached to each span that has the key.
    pub(super) fn visit(&mut self, key: &[u8], visit: &mut impl FnMut(&mut T)) {
        self.sort_if_due();
        let len = self.sorted.len();
        self.visit_sorted(0, len, key, visit);
        for node in &mut self.fresh {
            if *node.start <= *key
                && node.ends_after(key)
                && let Some(value) = &mut node.value
            {
                visit(value);
            }
        }
    }

    /// Calls `visit` with everything that is attached.
    pub(super) fn visit_all(&mut self, visit: &mut impl FnMut(&mut T)) {
        self.sorted.iter_mut().chain(&mut self.fresh).filter_map(|n| n.value.as_mut()).for_each(visit);
    }

    fn find_sorted(&self, start: &[u8], end: &[u8]) -> Option<usize> {
        self.sorted.binary_search_by(|node| node.place().cmp(&(start, end))).ok()
    }

    fn find_fresh(&self, start: &[u8], end: &[u8]) -> Option<usize> {
        self.fresh.iter().position(|node| node.place() == (start, end))
    }

    /// Sorts once what was added or removed is a sixteenth of the whole, so that each addition costs a
    /// logarithm in the long run.
    fn sort_if_due(&mut self) {
        let due = FEW.max(self.sorted.len() / 16);
        if self.fresh.len() <= due && self.dead <= due.max(self.sorted.len() / 2) {
            return;
        }
        self.sorted.append(&mut self.fresh);
        self.sorted.retain(|node| node.value.is_some());
        self.sorted.sort_unstable_by(|a, b| a.place().cmp(&b.place()));
        self.dead = 0;
        self.reach = vec![0; self.sorted.len()];
        self.measure_reach(0, self.sorted.len());
    }

    /// Fills `reach` for the subtree of the nodes from `low` to before `high`, whose root is in their middle.
    fn measure_reach(&mut self, low: usize, high: usize) -> Option<u32> {
        if low >= high {
            return None;
        }
        let middle = low + (high - low) / 2;
        let children = [self.measure_reach(low, middle), self.measure_reach(middle + 1, high)];
        let mut farthest = middle as u32;
        for child in children.into_iter().flatten() {
            let (a, b) = (&self.sorted[farthest as usize].end, &self.sorted[child as usize].end);
            if !a.is_empty() && (b.is_empty() || b > a) {
                farthest = child;
            }
        }
        self.reach[middle] = farthest;
        Some(farthest)
    }

    fn visit_sorted(&mut self, low: usize, high: usize, key: &[u8], visit: &mut impl FnMut(&mut T)) {
        if low >= high {
            return;
        }
        let middle = low + (high - low) / 2;
        if !self.sorted[self.reach[middle] as usize].ends_after(key) {
            return;
        }
        self.visit_sorted(low, middle, key, visit);
        let node = &mut self.sorted[middle];
        if *node.start > *key {
            return;
        }
        if node.ends_after(key)
            && let Some(value) = &mut node.value
        {
            visit(value);
        }
        self.visit_sorted(middle + 1, high, key, visit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn text(rng: &mut StdRng) -> Vec<u8> {
        (0..rng.random_range(0..4)).map(|_| rng.random_range(b'a'..=b'c')).collect()
    }

    #[test]
    fn finds_the_same_spans_as_a_search_one_by_one() {
        let seed = std::env::var("KONSUL_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
        println!("KONSUL_TEST_SEED={seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let mut spans: Spans<Vec<u8>> = Spans::default();
        let mut model: BTreeSet<(Vec<u8>, Vec<u8>)> = BTreeSet::new();
        for _ in 0..20_000 {
            let span = (text(&mut rng), text(&mut rng));
            match rng.random_range(0..3) {
                0 => {
                    *spans.entry(&span.0, &span.1) = [&span.0[..], b"-", &span.1].concat();
                    model.insert(span);
                }
                1 => {
                    spans.remove(&span.0, &span.1);
                    model.remove(&span);
                }
                _ => {
                    let key = span.0;
                    let mut found = vec![];
                    spans.visit(&key, &mut |value| found.push(value.clone()));
                    found.sort();
                    let has = |(s, e): &&(Vec<u8>, Vec<u8>)| *s <= key && (e.is_empty() || key < *e);
                    let mut expected: Vec<_> =
                        model.iter().filter(has).map(|(s, e)| [&s[..], b"-", e].concat()).collect();
                    expected.sort();
                    assert_eq!(found, expected);
                    assert_eq!(spans.is_empty(), model.is_empty());
                }
            }
        }
    }
}
