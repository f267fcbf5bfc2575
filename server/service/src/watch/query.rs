//! The requests that open watch streams, one for each service, taken apart into what is common to all.

use konsul_proto::v1::{
    CatalogWatchRequest, HealthWatchRequest, WatchRequest, catalog_watch_target, health_watch_target,
    watch_target,
};
use konsul_state::{Namespace, Revision};
use std::collections::HashSet;
use std::time::Duration;

use super::target::{Checks, Filter, Keys, Listed, Start, TargetSpec, Watched};
use crate::catalog::parse::label;
use crate::error::ServiceError;
use crate::limits;
use crate::parse;

/// A request that opens a watch stream.
pub(crate) trait WatchQuery: prost::Message + Default + Send + 'static {
    /// What it asks for, in the words of all of them.
    fn parse(self) -> Result<Query, ServiceError>;
}

/// What a stream is to be.
pub(crate) struct Query {
    /// The targets, with the names that the caller gave them.
    pub(super) targets: Vec<(u64, TargetSpec, Start)>,
    /// How often progress is told.
    pub(super) progress: Option<Duration>,
}

/// What all kinds of targets have.
struct Common {
    id: u64,
    start_revision: u64,
    initial_state: bool,
    previous: bool,
}

/// Puts targets together, with the rules that hold for all kinds.
struct Targets {
    namespace: Namespace,
    ids: HashSet<u64>,
    targets: Vec<(u64, TargetSpec, Start)>,
}

impl Targets {
    fn new(namespace: &str, count: usize) -> Result<Self, ServiceError> {
        let namespace = parse::namespace(namespace)?;
        if !(1..=limits::WATCH_TARGETS).contains(&count) {
            let problem = format!("must be 1 to {} targets", limits::WATCH_TARGETS);
            return Err(ServiceError::field("targets", problem));
        }
        Ok(Self { namespace, ids: HashSet::with_capacity(count), targets: Vec::with_capacity(count) })
    }

    /// What comes before the names of the next target's fields.
    fn path(&self) -> String {
        format!("targets[{}].", self.targets.len())
    }

    fn add(&mut self, common: &Common, watched: Watched, filter: Filter) -> Result<(), ServiceError> {
        let start = match (common.start_revision, common.initial_state) {
            (0, false) => Start::Now,
            (0, true) => Start::State,
            (revision, false) => Start::At(Revision(revision)),
            (_, true) => {
                let problem = "must be 0 with initial_state, which begins with the present";
                return Err(ServiceError::field(format!("{}start_revision", self.path()), problem));
            }
        };
        if !self.ids.insert(common.id) {
            let problem = "must differ from the ids of the targets before it";
            return Err(ServiceError::field(format!("{}id", self.path()), problem));
        }
        let namespace = self.namespace.clone();
        let spec = TargetSpec { namespace, watched, filter, previous: common.previous };
        self.targets.push((common.id, spec, start));
        Ok(())
    }

    fn finish(self, progress: Option<prost_types::Duration>) -> Result<Query, ServiceError> {
        let progress = progress
            .map(|d| parse::duration("progress_interval", &d, limits::PROGRESS_INTERVAL))
            .transpose()?;
        Ok(Query { targets: self.targets, progress })
    }
}

/// The common part of a target, whatever its type.
macro_rules! common {
    ($target:expr) => {
        Common {
            id: $target.id,
            start_revision: $target.start_revision,
            initial_state: $target.initial_state,
            previous: $target.previous,
        }
    };
}

impl WatchQuery for WatchRequest {
    fn parse(self) -> Result<Query, ServiceError> {
        use watch_target::Selector;
        let mut targets = Targets::new(&self.namespace, self.targets.len())?;
        for target in &self.targets {
            let path = targets.path();
            let keys = match &target.selector {
                None => {
                    let problem = "must be a key, a prefix or a range";
                    return Err(ServiceError::field(format!("{path}selector"), problem));
                }
                Some(Selector::Key(key)) => Keys::One(parse::key(&format!("{path}key"), key)?),
                Some(Selector::Prefix(prefix)) => {
                    Keys::Span(parse::prefix(&format!("{path}prefix"), prefix)?)
                }
                Some(Selector::Range(range)) => Keys::Span(parse::range(&format!("{path}range"), range)?),
            };
            let filter = match watch_target::Filter::try_from(target.filter) {
                Ok(watch_target::Filter::Unspecified) => Filter::All,
                Ok(watch_target::Filter::Puts) => Filter::Puts,
                Ok(watch_target::Filter::Deletes) => Filter::Deletes,
                Err(_) => {
                    return Err(ServiceError::field(format!("{path}filter"), "must be a value of Filter"));
                }
            };
            targets.add(&common!(target), Watched::Kv(keys), filter)?;
        }
        targets.finish(self.progress_interval)
    }
}

impl WatchQuery for CatalogWatchRequest {
    fn parse(self) -> Result<Query, ServiceError> {
        use catalog_watch_target::{Kind, Selector};
        let mut targets = Targets::new(&self.namespace, self.targets.len())?;
        for target in &self.targets {
            let path = targets.path();
            let kind = |kind: i32| match Kind::try_from(kind) {
                Ok(Kind::Services) => Ok(Listed::Services),
                Ok(Kind::Nodes) => Ok(Listed::Nodes),
                Ok(Kind::Everything) => Ok(Listed::Everything),
                Ok(Kind::Unspecified) | Err(_) => {
                    Err(ServiceError::field(format!("{path}kind"), "must be SERVICES, NODES or EVERYTHING"))
                }
            };
            let listed = match &target.selector {
                None => {
                    let problem = "must be a service or a kind";
                    return Err(ServiceError::field(format!("{path}selector"), problem));
                }
                Some(Selector::Service(name)) => Listed::Service(label(&format!("{path}service"), name)?),
                Some(Selector::Kind(number)) => kind(*number)?,
            };
            targets.add(&common!(target), Watched::Catalog(listed), Filter::All)?;
        }
        targets.finish(self.progress_interval)
    }
}

impl WatchQuery for HealthWatchRequest {
    fn parse(self) -> Result<Query, ServiceError> {
        use health_watch_target::Selector;
        let mut targets = Targets::new(&self.namespace, self.targets.len())?;
        for target in &self.targets {
            let path = targets.path();
            let checks = match &target.selector {
                None | Some(Selector::Everything(false)) => {
                    let problem = "must be a service, a node or everything";
                    return Err(ServiceError::field(format!("{path}selector"), problem));
                }
                Some(Selector::Service(name)) => Checks::OfService(label(&format!("{path}service"), name)?),
                Some(Selector::Node(name)) => Checks::OfNode(label(&format!("{path}node"), name)?),
                Some(Selector::Everything(true)) => Checks::Everything,
            };
            targets.add(&common!(target), Watched::Health(checks), Filter::All)?;
        }
        targets.finish(self.progress_interval)
    }
}
