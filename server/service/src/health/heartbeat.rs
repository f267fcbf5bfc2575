//! Passing TTL checks, again and again: the leader puts their deadlines off, and only a check that did not pass before is written.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use konsul_proto::v1;
use konsul_state::command::{self, Health, check_report::Report, command::Op};
use konsul_state::{Ident, InstanceId, Namespace, ServiceId};
use prost::Message;
use tonic::{Status, Streaming};

use super::question::{Answer, PassAsked, PassTold, Question};
use crate::asked::Asked;
use crate::catalog::Listed;
use crate::catalog::parse as names;
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits;
use crate::parse;
use crate::streams::answer_in_order;

/// What a check says that a heartbeat passed.
const OUTPUT: &str = "heartbeat";

type Answers = Pin<Box<dyn Stream<Item = Result<v1::HeartbeatResponse, Status>> + Send>>;

/// Answers a stream of heartbeats.
pub(super) fn stream(
    core: Arc<Core>,
    requests: Streaming<v1::HeartbeatRequest>,
) -> Result<Answers, ServiceError> {
    let place = core.heartbeats.enter()?;
    let stop = core.readers.stop.clone();
    let answers = answer_in_order(requests, stop, place, move |requests| {
        let core = Arc::clone(&core);
        async move {
            let mut answers = Vec::with_capacity(requests.len());
            for request in requests {
                match pass(&core, request).await {
                    Ok(answer) => answers.push(answer),
                    Err(error) => return (answers, Some(error)),
                }
            }
            (answers, None)
        }
    });
    Ok(answers.boxed())
}

/// Passes the checks of one request.
async fn pass(core: &Core, request: v1::HeartbeatRequest) -> Result<v1::HeartbeatResponse, ServiceError> {
    let namespace = parse::namespace(&request.namespace)?;
    if !(1..=limits::HEARTBEAT_PASSES).contains(&request.passes.len()) {
        let problem = format!("must have 1 to {} items", limits::HEARTBEAT_PASSES);
        return Err(ServiceError::field("passes", problem));
    }
    let mut passes = Vec::with_capacity(request.passes.len());
    for (i, pass) in request.passes.into_iter().enumerate() {
        passes.push(asked(i, pass)?);
    }
    let told = ask_passes(core, &namespace, passes.clone()).await?;
    let failing = passes.iter().zip(&told).flat_map(|(pass, told)| {
        told.failing.iter().map(|check| report(&namespace, &pass.service, &pass.instance, check))
    });
    let reports: Vec<Report> = failing.collect();
    if !reports.is_empty() {
        let report = command::CheckReport { reports, ..Default::default() };
        core.write(Writer::nobody(), Op::CheckReport(report)).await?;
    }
    let result = |told: PassTold| v1::PassResult {
        ttl: (told.ttl_ms > 0).then(|| convert::duration_ms(told.ttl_ms)).flatten(),
    };
    Ok(v1::HeartbeatResponse { results: told.into_iter().map(result).collect() })
}

fn asked(i: usize, pass: v1::Pass) -> Result<PassAsked, ServiceError> {
    let v1::Pass { instance, check, load } = pass;
    let path = || format!("passes[{i}].");
    let Some(v1::InstanceName { service, id }) = instance else {
        return Err(ServiceError::field(format!("{}instance", path()), "must be set"));
    };
    names::label("service", &service).map_err(|e| e.within(&format!("{}instance.", path())))?;
    names::ident("id", &id).map_err(|e| e.within(&format!("{}instance.", path())))?;
    if !check.is_empty() {
        names::ident("check", &check).map_err(|e| e.within(&path()))?;
    }
    if load.is_some_and(|load| !load.is_finite() || load < 0.0) {
        return Err(ServiceError::field(format!("{}load", path()), "must be a number of 0 or more"));
    }
    Ok(PassAsked { service, instance: id, check, load })
}

fn report(namespace: &Namespace, service: &str, instance: &str, check: &str) -> Report {
    let owner = command::owner::Owner::Instance(command::InstanceKey {
        service: service.to_owned(),
        id: instance.to_owned(),
    });
    let check = command::CheckName {
        namespace: namespace.as_str().to_owned(),
        owner: Some(command::Owner { owner: Some(owner) }),
        id: check.to_owned(),
    };
    Report {
        check: Some(check),
        status: Health::Passing.into(),
        output: OUTPUT.to_owned(),
        create_revision: 0,
    }
}

/// Begins the time of a check anew whose result changed nothing.
pub(super) async fn renew(core: &Core, instance: &InstanceId, check: &Ident) -> Result<(), ServiceError> {
    let pass = PassAsked {
        service: instance.service.as_str().to_owned(),
        instance: instance.id.as_str().to_owned(),
        check: check.as_str().to_owned(),
        load: None,
    };
    ask_passes(core, &instance.namespace, vec![pass]).await?;
    Ok(())
}

async fn ask_passes(
    core: &Core,
    namespace: &Namespace,
    passes: Vec<PassAsked>,
) -> Result<Vec<PassTold>, ServiceError> {
    let count = passes.len();
    let namespace = namespace.as_str().to_owned();
    let question = Question { namespace, passes, ..Question::default() };
    let told = ask(core, question).await?.passes;
    if told.len() == count { Ok(told) } else { Err(ServiceError::UnexpectedOutcome) }
}

/// What the instances of a service said last of their load; nothing of those that said nothing.
pub(crate) async fn loads(core: &Core, listed: &Listed) -> Result<HashMap<Ident, f64>, ServiceError> {
    let ServiceId { namespace, name } = &listed.id;
    let question = Question {
        namespace: namespace.as_str().to_owned(),
        service: name.as_str().to_owned(),
        instances: listed.instances.iter().map(|instance| instance.id.id.as_str().to_owned()).collect(),
        ..Question::default()
    };
    let loads = ask(core, question).await?.loads;
    let known = listed.instances.iter().zip(loads).filter(|(_, load)| load.is_finite());
    Ok(known.map(|(instance, load)| (instance.id.id.clone(), load)).collect())
}

async fn ask(core: &Core, question: Question) -> Result<Answer, ServiceError> {
    if let Some(error) = core.propose.unfit() {
        return Err(error.into());
    }
    let asked = Asked { checks: Some(question), ..Asked::default() };
    let answer = core.propose.ask_leader(asked.encode_to_vec().into()).await?;
    Answer::decode(answer).map_err(|_| ServiceError::UnexpectedOutcome)
}
