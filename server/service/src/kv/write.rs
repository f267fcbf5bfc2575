//! The writes of KV that need no comparison of their own: Put, Delete, DeleteRange, BatchPut, BatchDelete.
//! Each is one `KvTxn` of the state, so there is one way to write.

use std::collections::HashSet;

use konsul_proto::v1::{self, delete_range_request};
use konsul_state::command::{
    KvDelete, KvDeleteRange, KvDeleteResult, KvOperation, KvOutcome, KvPut, KvPutResult, KvTxn, Outcome,
    command::Op, kv_operation, kv_result, outcome,
};

use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits::{self, Limits};
use crate::parse;

pub(super) async fn put(
    core: &Core,
    writer: Writer,
    request: v1::PutRequest,
) -> Result<v1::PutResponse, ServiceError> {
    let v1::PutRequest { namespace, key, value, flags, content_type, precondition, previous, lease, ttl } =
        request;
    let operation = v1::PutOperation { key, value, flags, content_type, precondition, previous, lease, ttl };
    let operation = put_operation("", operation, &core.limits)?;
    let (revision, outcome) = carry_out(core, writer, &namespace, vec![operation]).await?;
    match single(outcome)? {
        kv_result::Result::Put(result) => {
            Ok(v1::PutResponse { revision, previous: result.previous.map(convert::outcome_entry) })
        }
        _ => Err(ServiceError::UnexpectedOutcome),
    }
}

pub(super) async fn delete(
    core: &Core,
    writer: Writer,
    request: v1::DeleteRequest,
) -> Result<v1::DeleteResponse, ServiceError> {
    let v1::DeleteRequest { namespace, key, precondition, previous } = request;
    let operation = v1::DeleteOperation { key, precondition, previous };
    let operation = delete_operation("", operation, &core.limits)?;
    let (revision, outcome) = carry_out(core, writer, &namespace, vec![operation]).await?;
    match single(outcome)? {
        kv_result::Result::Delete(mut result) => {
            let previous = result.previous.pop().map(convert::outcome_entry);
            Ok(v1::DeleteResponse { revision, deleted: result.deleted, previous })
        }
        _ => Err(ServiceError::UnexpectedOutcome),
    }
}

pub(super) async fn delete_range(
    core: &Core,
    writer: Writer,
    request: v1::DeleteRangeRequest,
) -> Result<v1::DeleteRangeResponse, ServiceError> {
    let span = match &request.selector {
        None => return Err(ServiceError::field("selector", "must be a prefix or a range")),
        Some(delete_range_request::Selector::Prefix(prefix)) => parse::prefix("prefix", prefix)?,
        Some(delete_range_request::Selector::Range(range)) => parse::range("range", range)?,
    };
    let operation = kv_operation::Op::DeleteRange(KvDeleteRange {
        span: Some(span),
        unchanged_since: request.unchanged_since,
        previous: request.previous,
    });
    let (revision, outcome) = carry_out(core, writer, &request.namespace, vec![operation]).await?;
    match single(outcome)? {
        kv_result::Result::Delete(result) => {
            let v1::DeleteResult { deleted, previous } = deleted(result);
            Ok(v1::DeleteRangeResponse { revision, deleted, previous })
        }
        _ => Err(ServiceError::UnexpectedOutcome),
    }
}

pub(super) async fn batch_put(
    core: &Core,
    writer: Writer,
    request: v1::BatchPutRequest,
) -> Result<v1::BatchPutResponse, ServiceError> {
    check_batch("puts", request.puts.iter().map(|put| &put.key))?;
    let puts = request.puts.into_iter().enumerate();
    let operations = puts.map(|(i, put)| put_operation(&format!("puts[{i}]."), put, &core.limits));
    let operations = operations.collect::<Result<_, _>>()?;
    let (revision, outcome) = carry_out(core, writer, &request.namespace, operations).await?;
    let result = |result: kv_result::Result| match result {
        kv_result::Result::Put(result) => Ok(put_result(result)),
        _ => Err(ServiceError::UnexpectedOutcome),
    };
    Ok(v1::BatchPutResponse { revision, results: results(outcome, result)? })
}

pub(super) async fn batch_delete(
    core: &Core,
    writer: Writer,
    request: v1::BatchDeleteRequest,
) -> Result<v1::BatchDeleteResponse, ServiceError> {
    check_batch("deletes", request.deletes.iter().map(|delete| &delete.key))?;
    let deletes = request.deletes.into_iter().enumerate();
    let operations = deletes.map(|(i, d)| delete_operation(&format!("deletes[{i}]."), d, &core.limits));
    let operations = operations.collect::<Result<_, _>>()?;
    let (revision, outcome) = carry_out(core, writer, &request.namespace, operations).await?;
    let result = |result: kv_result::Result| match result {
        kv_result::Result::Delete(result) => Ok(deleted(result)),
        _ => Err(ServiceError::UnexpectedOutcome),
    };
    Ok(v1::BatchDeleteResponse { revision, results: results(outcome, result)? })
}

/// A put as the state takes it. `path` comes before the names of its fields.
pub(super) fn put_operation(
    path: &str,
    put: v1::PutOperation,
    limits: &Limits,
) -> Result<kv_operation::Op, ServiceError> {
    parse::check_key(path, &put.key)?;
    parse::check_value(path, &put.value, limits)?;
    parse::check_content_type(path, &put.content_type)?;
    let precondition = parse::precondition(path, put.precondition, limits)?;
    let (lease, ttl_ms) = parse::binding(path, put.lease, put.ttl.as_ref())?;
    let v1::PutOperation { key, value, flags, content_type, previous, .. } = put;
    let put = KvPut { key, value, flags, content_type, precondition, previous, lease, ttl_ms };
    Ok(kv_operation::Op::Put(put))
}

/// A delete as the state takes it. `path` comes before the names of its fields.
pub(super) fn delete_operation(
    path: &str,
    delete: v1::DeleteOperation,
    limits: &Limits,
) -> Result<kv_operation::Op, ServiceError> {
    parse::check_key(path, &delete.key)?;
    let precondition = parse::precondition(path, delete.precondition, limits)?;
    Ok(kv_operation::Op::Delete(KvDelete { key: delete.key, precondition, previous: delete.previous }))
}

/// What a put did.
pub(super) fn put_result(result: KvPutResult) -> v1::PutResult {
    v1::PutResult { previous: result.previous.map(convert::outcome_entry) }
}

/// What a delete did.
pub(super) fn deleted(result: KvDeleteResult) -> v1::DeleteResult {
    let previous = result.previous.into_iter().map(convert::outcome_entry).collect();
    v1::DeleteResult { deleted: result.deleted, previous }
}

/// What a Command on KV did.
pub(super) fn kv_outcome(outcome: Outcome) -> Result<(u64, KvOutcome), ServiceError> {
    match outcome.result {
        Some(outcome::Result::Kv(kv)) => Ok((outcome.revision, kv)),
        _ => Err(ServiceError::UnexpectedOutcome),
    }
}

async fn carry_out(
    core: &Core,
    writer: Writer,
    namespace: &str,
    operations: Vec<kv_operation::Op>,
) -> Result<(u64, KvOutcome), ServiceError> {
    let then = operations.into_iter().map(|op| KvOperation { op: Some(op) }).collect();
    let namespace = parse::namespace(namespace)?.as_str().to_owned();
    let txn = KvTxn { namespace, compare: vec![], then, otherwise: vec![] };
    kv_outcome(core.write(writer, Op::Kv(txn)).await?)
}

fn single(mut outcome: KvOutcome) -> Result<kv_result::Result, ServiceError> {
    outcome.results.pop().and_then(|r| r.result).ok_or(ServiceError::UnexpectedOutcome)
}

fn results<T>(
    outcome: KvOutcome,
    convert: impl Fn(kv_result::Result) -> Result<T, ServiceError>,
) -> Result<Vec<T>, ServiceError> {
    let results = outcome.results.into_iter();
    results.map(|r| convert(r.result.ok_or(ServiceError::UnexpectedOutcome)?)).collect()
}

/// Checks the size of a batch, and that each of its keys is another.
fn check_batch<'k>(field: &str, keys: impl ExactSizeIterator<Item = &'k String>) -> Result<(), ServiceError> {
    if !(1..=limits::BATCH_KEYS).contains(&keys.len()) {
        return Err(ServiceError::field(field, format!("must have 1 to {} items", limits::BATCH_KEYS)));
    }
    let mut seen = HashSet::with_capacity(keys.len());
    for (i, key) in keys.enumerate() {
        if !seen.insert(key) {
            let problem = "must differ from the keys before it: a call changes a key once";
            return Err(ServiceError::field(format!("{field}[{i}].key"), problem));
        }
    }
    Ok(())
}
