//! The Election service: locks whose holder tells others a value.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use konsul_proto::v1::{self, election_server::Election};
use konsul_state::command::{self, LockKind, command::Op};
use konsul_state::propose::ProposeError;
use konsul_state::{LockId, View};
use tonic::{Request, Response, Status};

use super::claims::{self, Wanted};
use super::turns::Observing;
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::parse;

/// Elections over the state.
pub(crate) struct ElectionService {
    core: Arc<Core>,
}

impl ElectionService {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn open(&self, request: v1::ObserveRequest) -> Result<Observation, ServiceError> {
        let lock = claims::name(LockKind::Election, &request.namespace, &request.name)?;
        if let Some(error) = self.core.propose.unfit() {
            return Err(error.into());
        }
        let observing =
            self.core.readers.turns.observe(lock.clone()).ok_or_else(|| claims::too_many(&self.core))?;
        self.core.propose.read_barrier().await?;
        Ok(Observation { core: self.core.clone(), observing, lock, last: None })
    }
}

/// Who leads, in a view of the state.
fn leader(view: &View, lock: &LockId) -> Result<Option<v1::ElectedLeader>, ServiceError> {
    let first = view.claims(lock, 0, 1)?.pop().filter(|(_, claim)| claim.granted);
    Ok(first.map(|(token, claim)| v1::ElectedLeader {
        value: claim.value,
        lease: claim.lease,
        token,
        since: Some(convert::timestamp(claim.since_ms)),
    }))
}

/// A stream of who leads.
struct Observation {
    core: Arc<Core>,
    observing: Observing,
    lock: LockId,
    /// What was told last; `None` if nothing was.
    last: Option<Option<v1::ElectedLeader>>,
}

impl Observation {
    async fn next(&mut self) -> Result<v1::ObserveResponse, ServiceError> {
        loop {
            let changed = self.observing.changed().notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.core.readers.turns.is_stopping() {
                return Err(ProposeError::ShuttingDown.into());
            }
            if let Some(error) = self.core.propose.unfit() {
                return Err(error.into());
            }
            let view = self.core.state.view()?;
            let leader = leader(&view, &self.lock)?;
            if self.last.as_ref() != Some(&leader) {
                self.last = Some(leader.clone());
                return Ok(v1::ObserveResponse { revision: view.revision().0, leader });
            }
            drop(view);
            changed.await;
        }
    }
}

type Observations = Pin<Box<dyn Stream<Item = Result<v1::ObserveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<v1::CampaignRequest>,
    ) -> Result<Response<v1::CampaignResponse>, Status> {
        let writer = Writer::of(&request)?;
        let v1::CampaignRequest { namespace, name, lease, value } = request.into_inner();
        let lock = claims::name(LockKind::Election, &namespace, &name)?;
        let lease = parse::lease("lease", lease)?;
        claims::check_value(&value)?;
        let wanted = Wanted { lock, lease, shared: false, limit: 1, delay_ms: 0, value };
        let granted = claims::claim(&self.core, writer, wanted).await?;
        Ok(Response::new(v1::CampaignResponse { revision: granted.revision, token: granted.token }))
    }

    async fn proclaim(
        &self,
        request: Request<v1::ProclaimRequest>,
    ) -> Result<Response<v1::ProclaimResponse>, Status> {
        let writer = Writer::of(&request)?;
        let v1::ProclaimRequest { namespace, name, lease, token, value } = request.into_inner();
        let lock = claims::name(LockKind::Election, &namespace, &name)?.to_name();
        let lease = parse::lease("lease", lease)?.0;
        claims::check_value(&value)?;
        let set = command::LockSetValue { lock: Some(lock), lease, token, value };
        let (revision, _) = claims::write(&self.core, writer, Op::LockSetValue(set), 0).await?;
        Ok(Response::new(v1::ProclaimResponse { revision }))
    }

    async fn leader(
        &self,
        request: Request<v1::LeaderRequest>,
    ) -> Result<Response<v1::LeaderResponse>, Status> {
        let v1::LeaderRequest { namespace, name, read } = request.into_inner();
        let lock = claims::name(LockKind::Election, &namespace, &name)?;
        let view = self.core.view(read.as_ref(), None).await?;
        let leader = leader(&view, &lock)?;
        Ok(Response::new(v1::LeaderResponse { revision: view.revision().0, leader }))
    }

    type ObserveStream = Observations;

    async fn observe(&self, request: Request<v1::ObserveRequest>) -> Result<Response<Observations>, Status> {
        let observation = self.open(request.into_inner()).await?;
        let told = stream::unfold(Some(observation), |observation| async {
            let mut observation = observation?;
            match observation.next().await {
                Ok(told) => Some((Ok(told), Some(observation))),
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::new(Box::pin(told)))
    }

    async fn resign(
        &self,
        request: Request<v1::ResignRequest>,
    ) -> Result<Response<v1::ResignResponse>, Status> {
        let writer = Writer::of(&request)?;
        let v1::ResignRequest { namespace, name, lease, token } = request.into_inner();
        let lock = claims::name(LockKind::Election, &namespace, &name)?;
        let lease = parse::lease("lease", lease)?;
        let revision = claims::release(&self.core, writer, &lock, lease, token).await?;
        Ok(Response::new(v1::ResignResponse { revision }))
    }
}
