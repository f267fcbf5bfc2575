//! Resolve: instances of a service picked for a caller, from the catalog in memory.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use konsul_state::Ident;
use konsul_state::command::Health;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::directory::{Listed, ListedInstance};
use super::select::Selector;

/// How instances are picked.
pub(super) enum Strategy {
    RoundRobin,
    Random,
    Weighted,
    /// With the loads that are known.
    LeastLoaded(HashMap<Ident, f64>),
    /// With a key.
    ConsistentHash(Vec<u8>),
    /// With the caller's zone.
    Nearest(String),
}

/// What was picked.
pub(super) struct Picked {
    /// Best first.
    pub(super) instances: Vec<Arc<ListedInstance>>,
    /// All came into question, because so few are healthy.
    pub(super) protected: bool,
}

/// Picks at most `limit` instances.
pub(super) fn pick(listed: &Listed, selector: &Selector, strategy: &Strategy, limit: usize) -> Picked {
    let protected = !selector.names_health() && listed.is_protected();
    // What is asked for most: no look at those that are not picked.
    if let (Strategy::RoundRobin, true, false) = (strategy, selector.is_open(), protected) {
        let turn = listed.turns.fetch_add(limit, Relaxed);
        let passing = &listed.passing;
        let in_turn = (0..limit.min(passing.len())).map(|i| passing[turn.wrapping_add(i) % passing.len()]);
        let instances = in_turn.map(|place| Arc::clone(&listed.instances[place as usize])).collect();
        return Picked { instances, protected };
    }
    let admits = |instance: &&Arc<ListedInstance>| {
        if selector.names_health() {
            return selector.admits(instance);
        }
        let health = instance.record.health();
        let is_healthy = health == Health::Passing || protected && health != Health::Maintenance;
        is_healthy && selector.admits_in_any_health(instance)
    };
    let candidates: Vec<_> = listed.instances.iter().filter(admits).cloned().collect();
    Picked { instances: order(listed, candidates, strategy, limit), protected }
}

fn order(
    listed: &Listed,
    mut candidates: Vec<Arc<ListedInstance>>,
    strategy: &Strategy,
    limit: usize,
) -> Vec<Arc<ListedInstance>> {
    let mut rng = rand::rng();
    match strategy {
        Strategy::RoundRobin => {
            if !candidates.is_empty() {
                let turn = listed.turns.fetch_add(limit, Relaxed) % candidates.len();
                candidates.rotate_left(turn);
            }
        }
        Strategy::Random => return candidates.choose_multiple(&mut rng, limit).cloned().collect(),
        // Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the greatest of u^(1/w).
        Strategy::Weighted => best_first(&mut candidates, |instance| {
            rng.random::<f64>().powf(1.0 / f64::from(weight(instance)))
        }),
        Strategy::LeastLoaded(loads) => {
            candidates.shuffle(&mut rng);
            let known: Vec<f64> = candidates.iter().filter_map(|i| loads.get(&i.id.id).copied()).collect();
            let average = if known.is_empty() { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
            best_first(&mut candidates, |instance| -loads.get(&instance.id.id).copied().unwrap_or(average));
        }
        Strategy::ConsistentHash(key) => {
            let seed = xxh3_64(key);
            let score =
                |instance: &Arc<ListedInstance>| xxh3_64_with_seed(instance.id.id.as_str().as_bytes(), seed);
            candidates.sort_by_cached_key(|instance| std::cmp::Reverse(score(instance)));
        }
        Strategy::Nearest(zone) => {
            candidates.shuffle(&mut rng);
            candidates.sort_by_key(|instance| instance.record.zone != *zone);
        }
    }
    candidates.truncate(limit);
    candidates
}

/// An instance's share.
pub(super) fn weight(instance: &ListedInstance) -> u32 {
    let definition = instance.record.definition.as_ref();
    match instance.record.health() {
        Health::Passing => definition.map_or(1, |d| d.weight_passing),
        Health::Warning | Health::Critical | Health::Maintenance => {
            definition.map_or(1, |d| d.weight_warning)
        }
    }
}

/// Those with the greatest score first.
fn best_first(candidates: &mut [Arc<ListedInstance>], mut score: impl FnMut(&ListedInstance) -> f64) {
    struct Score(f64);
    impl PartialEq for Score {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other) == Ordering::Equal
        }
    }
    impl Eq for Score {}
    impl PartialOrd for Score {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Score {
        fn cmp(&self, other: &Self) -> Ordering {
            other.0.total_cmp(&self.0)
        }
    }
    candidates.sort_by_cached_key(|instance| Score(score(instance)));
}
