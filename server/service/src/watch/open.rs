//! Opening a watch stream: the targets entered, their first messages decided.

use std::sync::Arc;

use konsul_state::{Revision, View};

use super::hub::{Admission, Hub};
use super::query::Query;
use super::shard::{Shard, WatcherCell};
use super::stream::{EncodedStream, Phase, Position, Target, Timing};
use super::target::{Start, TargetSpec};
use crate::core::Core;
use crate::door::Deadline;
use crate::error::ServiceError;

/// Opens a stream.
///
/// A target that begins now, or with the present entries, is as fresh as a linearizable read. One that
/// resumes needs no leader, unless this member lags behind the revision it resumes at.
pub(crate) async fn open(
    core: &Core,
    query: Query,
    deadline: Option<Deadline>,
) -> Result<EncodedStream, ServiceError> {
    let Query { targets, progress } = query;
    let admission = core.readers.hub.admit(targets.len())?;
    let due = core.readers.hub.revision().next();
    let resumes = |start: &Start| matches!(start, Start::At(revision) if *revision <= due);
    if !targets.iter().all(|(_, _, start)| resumes(start)) {
        core.propose.read_barrier().await?;
    }
    let timing = Timing::new(deadline, progress);
    Opening::new(&core.readers.hub, admission, targets.len()).open(targets, timing)
}

struct Opening {
    hub: Arc<Hub>,
    shard: Arc<Shard>,
    cell: Arc<WatcherCell>,
    admission: Admission,
}

impl Opening {
    fn new(hub: &Arc<Hub>, admission: Admission, targets: usize) -> Self {
        let cell = Arc::new(WatcherCell::new(targets));
        Self { hub: Arc::clone(hub), shard: hub.shard(), cell, admission }
    }

    fn open(
        self,
        targets: Vec<(u64, TargetSpec, Start)>,
        timing: Timing,
    ) -> Result<EncodedStream, ServiceError> {
        let mut entered = Vec::with_capacity(targets.len());
        for (i, (id, spec, start)) in targets.into_iter().enumerate() {
            let spec = Arc::new(spec);
            let cell = Arc::clone(&self.cell);
            let (place, head) = self.shard.insert(&self.hub, &spec, cell, i as u32);
            entered.push((Target::new(id, spec, place), start, head));
        }
        // Looked at after all targets are entered: what is committed later is marked for them.
        let view = self.hub.state.view();
        let targets = entered.iter_mut();
        let begun = view.map(|view| {
            for (target, start, head) in targets {
                begin(target, *start, *head, &view);
            }
        });
        let targets: Vec<Target> = entered.into_iter().map(|(target, _, _)| target).collect();
        let stream = EncodedStream::new(self.hub, self.shard, self.cell, targets, timing, self.admission);
        // The stream takes its targets out again when it is dropped, also here.
        begun?;
        Ok(stream)
    }
}

/// Decides where a target begins.
fn begin(target: &mut Target, start: Start, head: Revision, view: &View) {
    let at = |revision: Revision| Position { revision, change: 0 };
    match start {
        Start::Now => target.next = at(head.next()),
        Start::State => {
            let pinned = view.revision();
            target.next = at(pinned.next());
            target.phase = Phase::Opening { state: Some(pinned) };
        }
        Start::At(revision) => {
            let current = head.max(view.revision());
            let compact_revision = view.compact_revision();
            target.next = at(revision);
            if revision > current.next() {
                target.phase = Phase::Failed(ServiceError::Future { revision, current });
            } else if revision <= compact_revision && revision > view.restored_revision() {
                target.phase = Phase::Failed(ServiceError::Compacted { revision, compact_revision });
            }
        }
    }
}
