//! Txn: compare, then one list of operations or the other. What an operation is by itself is in `write`, or in `lock`.

use konsul_proto::v1::{self, compare, delete_range_operation, list_operation, operation, operation_result};
use konsul_state::command::{
    KeySpan, KvCompare, KvDeleteRange, KvGet, KvList, KvOperation, KvResult, KvTxn, LockAcquire, LockRelease,
    command::Op, kv_compare, kv_operation, kv_result,
};

use super::write;
use crate::convert;
use crate::core::{Core, Writer};
use crate::error::ServiceError;
use crate::limits::{self, Limits};
use crate::lock;
use crate::parse;

pub(super) async fn txn(
    core: &Core,
    writer: Writer,
    request: v1::TxnRequest,
) -> Result<v1::TxnResponse, ServiceError> {
    let v1::TxnRequest { namespace, compare, then, otherwise } = request;
    if compare.len() > limits::TXN_COMPARES {
        return Err(ServiceError::field(
            "compare",
            format!("must have at most {} items", limits::TXN_COMPARES),
        ));
    }
    if then.len() + otherwise.len() > limits::TXN_OPERATIONS {
        let problem =
            format!("and otherwise must have at most {} operations together", limits::TXN_OPERATIONS);
        return Err(ServiceError::field("then", problem));
    }
    let compare = compare.into_iter().enumerate();
    let compare = compare.map(|(i, c)| comparison(&format!("compare[{i}]."), c, &core.limits));
    let txn = KvTxn {
        namespace: parse::namespace(&namespace)?.as_str().to_owned(),
        compare: compare.collect::<Result<_, _>>()?,
        then: branch("then", &namespace, then, &core.limits)?,
        otherwise: branch("otherwise", &namespace, otherwise, &core.limits)?,
    };
    let (revision, outcome) = write::kv_outcome(core.write(writer, Op::Kv(txn)).await?)?;
    let results = outcome.results.into_iter().map(result).collect::<Result<_, _>>()?;
    Ok(v1::TxnResponse { revision, succeeded: outcome.succeeded, results })
}

fn comparison(path: &str, compare: v1::Compare, limits: &Limits) -> Result<KvCompare, ServiceError> {
    use compare::{Operator as In, Target};
    use kv_compare::{Operator as Out, Target as To};
    parse::check_key(path, &compare.key)?;
    let operator = match In::try_from(compare.operator) {
        Ok(In::Unspecified | In::Equal) => Out::Equal,
        Ok(In::NotEqual) => Out::NotEqual,
        Ok(In::Greater) => Out::Greater,
        Ok(In::Less) => Out::Less,
        Err(_) => return Err(ServiceError::field(format!("{path}operator"), "must be a value of Operator")),
    };
    let target = match compare.target {
        None => return Err(ServiceError::field(format!("{path}target"), "must be set")),
        Some(Target::Exists(exists)) => {
            if !matches!(operator, Out::Equal | Out::NotEqual) {
                return Err(ServiceError::field(
                    format!("{path}operator"),
                    "must be EQUAL or NOT_EQUAL with exists",
                ));
            }
            To::Exists(exists)
        }
        Some(Target::CreateRevision(revision)) => To::CreateRevision(revision),
        Some(Target::ModRevision(revision)) => To::ModRevision(revision),
        Some(Target::Version(version)) => To::Version(version),
        Some(Target::Value(value)) => {
            parse::check_value(path, &value, limits)?;
            To::Value(value)
        }
        Some(Target::Lease(lease)) => To::Lease(lease),
    };
    Ok(KvCompare { key: compare.key, operator: operator.into(), target: Some(target) })
}

/// The operations of one branch, which change no key and no lock twice.
fn branch(
    name: &str,
    namespace: &str,
    operations: Vec<v1::Operation>,
    limits: &Limits,
) -> Result<Vec<KvOperation>, ServiceError> {
    let operations = operations.into_iter().enumerate();
    let operations = operations.map(|(i, o)| parse_operation(&format!("{name}[{i}]."), namespace, o, limits));
    let operations: Vec<KvOperation> = operations.collect::<Result<_, _>>()?;
    for (i, later) in operations.iter().enumerate() {
        let Some((kind, changed)) = changes(later) else { continue };
        if operations[..i].iter().filter_map(changes).any(|(_, before)| before.overlaps(&changed)) {
            let what = if matches!(changed, Changed::Lock(_)) { "lock" } else { "key" };
            let problem =
                format!("changes a {what} that an operation before it in {name} changes: once is allowed");
            return Err(ServiceError::field(format!("{name}[{i}].{kind}"), problem));
        }
    }
    Ok(operations)
}

fn parse_operation(
    path: &str,
    namespace: &str,
    operation: v1::Operation,
    limits: &Limits,
) -> Result<KvOperation, ServiceError> {
    use operation::Operation;
    let op = match operation.operation {
        None => return Err(ServiceError::field(format!("{path}operation"), "must be set")),
        Some(Operation::Put(put)) => write::put_operation(&format!("{path}put."), put, limits)?,
        Some(Operation::Delete(delete)) => {
            write::delete_operation(&format!("{path}delete."), delete, limits)?
        }
        Some(Operation::DeleteRange(range)) => delete_range(&format!("{path}delete_range."), range)?,
        Some(Operation::Get(get)) => {
            parse::check_key(&format!("{path}get."), &get.key)?;
            kv_operation::Op::Get(KvGet { key: get.key })
        }
        Some(Operation::List(list)) => parse_list(&format!("{path}list."), list)?,
        Some(Operation::Lock(claim)) => {
            let claim = lock::lock_operation(namespace, claim);
            kv_operation::Op::Lock(claim.map_err(|error| error.within(&format!("{path}lock.")))?)
        }
        Some(Operation::Unlock(claim)) => {
            let claim = lock::unlock_operation(namespace, claim);
            kv_operation::Op::Unlock(claim.map_err(|error| error.within(&format!("{path}unlock.")))?)
        }
    };
    Ok(KvOperation { op: Some(op) })
}

fn delete_range(path: &str, range: v1::DeleteRangeOperation) -> Result<kv_operation::Op, ServiceError> {
    use delete_range_operation::Selector;
    let span = match &range.selector {
        None => return Err(ServiceError::field(format!("{path}selector"), "must be a prefix or a range")),
        Some(Selector::Prefix(prefix)) => parse::prefix(&format!("{path}prefix"), prefix)?,
        Some(Selector::Range(keys)) => parse::range(&format!("{path}range"), keys)?,
    };
    let previous = range.previous;
    Ok(kv_operation::Op::DeleteRange(KvDeleteRange { span: Some(span), unchanged_since: None, previous }))
}

fn parse_list(path: &str, list: v1::ListOperation) -> Result<kv_operation::Op, ServiceError> {
    use list_operation::Selector;
    let span = match &list.selector {
        None => KeySpan::default(),
        Some(Selector::Prefix(prefix)) => parse::prefix(&format!("{path}prefix"), prefix)?,
        Some(Selector::Range(keys)) => parse::range(&format!("{path}range"), keys)?,
    };
    parse::page_size(&format!("{path}limit"), list.limit, limits::TXN_LIST)?;
    let limit = if list.limit == 0 { limits::TXN_LIST.default } else { list.limit };
    Ok(kv_operation::Op::List(KvList { span: Some(span), keys_only: list.keys_only, limit }))
}

/// The keys, or the lock, that an operation may change.
enum Changed<'o> {
    Key(&'o str),
    Span(&'o KeySpan),
    Lock(&'o str),
}

impl Changed<'_> {
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(a), Self::Key(b)) | (Self::Lock(a), Self::Lock(b)) => a == b,
            (Self::Lock(_), _) | (_, Self::Lock(_)) => false,
            (Self::Key(key), Self::Span(span)) | (Self::Span(span), Self::Key(key)) => span.contains(key),
            (Self::Span(a), Self::Span(b)) => {
                let begins_before =
                    |a: &KeySpan, b: &KeySpan| b.end.is_empty() || a.start.as_bytes() < &b.end[..];
                begins_before(a, b) && begins_before(b, a)
            }
        }
    }
}

/// The field of an operation that names what it may change, and that.
fn changes(operation: &KvOperation) -> Option<(&'static str, Changed<'_>)> {
    match operation.op.as_ref()? {
        kv_operation::Op::Put(put) => Some(("put.key", Changed::Key(&put.key))),
        kv_operation::Op::Delete(delete) => Some(("delete.key", Changed::Key(&delete.key))),
        kv_operation::Op::DeleteRange(range) => {
            range.span.as_ref().map(|span| ("delete_range", Changed::Span(span)))
        }
        kv_operation::Op::Lock(LockAcquire { lock, .. }) => {
            lock.as_ref().map(|lock| ("lock.name", Changed::Lock(&lock.name)))
        }
        kv_operation::Op::Unlock(LockRelease { lock, .. }) => {
            lock.as_ref().map(|lock| ("unlock.name", Changed::Lock(&lock.name)))
        }
        kv_operation::Op::Get(_) | kv_operation::Op::List(_) => None,
    }
}

fn result(result: KvResult) -> Result<v1::OperationResult, ServiceError> {
    use operation_result::Result as Out;
    let result = match result.result {
        None => return Err(ServiceError::UnexpectedOutcome),
        Some(kv_result::Result::Put(put)) => Out::Put(write::put_result(put)),
        Some(kv_result::Result::Delete(delete)) => Out::Delete(write::deleted(delete)),
        Some(kv_result::Result::Get(get)) => {
            Out::Get(v1::GetResult { entry: get.entry.map(convert::outcome_entry) })
        }
        Some(kv_result::Result::List(list)) => Out::List(v1::ListResult {
            entries: list.entries.into_iter().map(convert::outcome_entry).collect(),
            truncated: list.truncated,
        }),
        Some(kv_result::Result::Lock(lock)) => Out::Lock(v1::LockResult { token: lock.token }),
        Some(kv_result::Result::Unlock(_)) => Out::Unlock(v1::UnlockResult {}),
    };
    Ok(v1::OperationResult { result: Some(result) })
}
