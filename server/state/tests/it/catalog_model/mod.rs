//! Random Commands on the catalog against a model that is as simple as can be: maps of records, in which all that follows from
//! something else is worked out anew after each step. KONSUL_TEST_SEED replays a run.

mod compare;
mod draw;
mod model;
mod step;

use std::collections::BTreeMap;
use std::fmt::Debug;

use konsul_state::Revision;
use konsul_state::command::{Health, outcome};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::Fixture;
use crate::model::seed;
use crate::restore::{back_up, restore_as};
use compare::{compare_found, compare_lists, replay, same};
use model::{Model, Now};
use step::step;

/// A backup, and what the model was then.
struct Saved {
    bytes: Vec<u8>,
    now: Now,
    revision: u64,
}

/// How many Commands did what, so that it is known that all of it was tried.
#[derive(Debug, Default)]
struct Seen {
    refused: u64,
    in_vain: u64,
    held: u64,
    restored: u64,
    in_maintenance: u64,
    followed: u64,
}

fn run(rng: &mut StdRng, steps: usize) -> Seen {
    let (mut f, mut seen) = (Fixture::new(), Seen::default());
    f.log = Some(Vec::new());
    let mut model = Model { past: BTreeMap::from([(0, Now::default())]), ..Model::default() };
    let (mut copy, mut read) = (Now::default(), 0);
    let mut saved: Option<Saved> = None;
    for at in 0..steps {
        let revision = model.revision;
        seen.refused += u64::from(step(rng, &mut f, &mut model));
        seen.in_vain += u64::from(model.revision == revision);
        let checks = model.now.checks.values();
        seen.held += checks.filter(|check| check.status != check.observed).count() as u64;
        let instances = || model.now.instances.values();
        seen.in_maintenance += instances().filter(|i| i.health() == Health::Maintenance).count() as u64;
        seen.followed += instances().filter(|i| i.health != i.own_health).count() as u64;
        for batch in &f.batches[read..] {
            assert_eq!(batch.revision.0, model.revision);
            batch.changes.iter().for_each(|change| replay(&mut copy, change));
        }
        read = f.batches.len();
        let now = model.now.clone();
        same(copy.checks.clone().into_iter().collect(), now.checks.into_iter().collect());
        same(copy.instances.clone().into_iter().collect(), now.instances.into_iter().collect());
        assert_eq!(copy, model.now, "step {at}");
        compare_lists(rng, &f, None, &model.now);
        compare_found(rng, &f, &model.now);
        let past = rng.random_range(model.compacted..=model.revision);
        compare_lists(rng, &f, Some(past), &model.past[&past]);
        if at % 50 == 0 {
            let view = f.state.view().unwrap();
            assert_eq!(view.verify().unwrap(), []);
            let readable = view.batches(Revision(model.compacted + 1), usize::MAX).unwrap();
            let published = f.batches.iter().filter(|batch| batch.revision.0 > model.compacted);
            assert_eq!(readable, published.cloned().collect::<Vec<_>>());
        }
        match rng.random_range(0..80) {
            0 => saved = Some(Saved { bytes: back_up(&f), now: model.now.clone(), revision: model.revision }),
            1 => {
                let Some(Saved { bytes, now, revision }) = saved.take() else { continue };
                let restored = restore_as(&mut f, seen.restored + 1, &bytes);
                assert!(matches!(restored.result, Some(outcome::Result::Restore(_))), "{restored:?}");
                model.begin(f.time_ms);
                (model.now, model.revision) = (now.clone(), model.revision.max(revision) + 1);
                (model.compacted, model.past) =
                    (model.revision, BTreeMap::from([(model.revision, now.clone())]));
                copy = now;
                seen.restored += 1;
            }
            _ => {}
        }
    }
    let mut other = Fixture::new();
    other.replay(f.log.take().unwrap(), || rng.random_range(1..20));
    assert_eq!(other.writer.hash().unwrap(), f.writer.hash().unwrap());
    assert_eq!(f.state.view().unwrap().verify().unwrap(), []);
    seen
}

#[test]
fn random_commands_do_as_the_model() {
    let mut rng = StdRng::seed_from_u64(seed());
    let seen = run(&mut rng, 1_500);
    let Seen { refused, in_vain, held, in_maintenance, followed, restored } = seen;
    assert!([refused, in_vain, held, in_maintenance, followed].iter().all(|count| *count > 20), "{seen:?}");
    assert!(restored > 0, "{seen:?}");
}
