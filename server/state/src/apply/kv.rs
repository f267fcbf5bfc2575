//! Applying writes to KV: all comparisons and preconditions are judged against the state before the Command;
//! if all hold the operations are carried out in order, and otherwise nothing is.

use std::ops::Bound;

use prost::Message;

use super::{lease, lock};
use crate::command::{
    KvCompare, KvDeleteRange, KvDeleteResult, KvEntry, KvGetResult, KvList, KvListResult, KvOperation,
    KvOutcome, KvPrecondition, KvPut, KvPutResult, KvRecord, KvResult, KvTxn, MAX_RANGE_BYTES,
    MAX_RANGE_KEYS, MAX_RESULT_BYTES, MAX_RESULT_KEYS, PreconditionFailed, RangeTooLarge, kv_compare,
    kv_operation::Op, kv_result, refusal::Reason,
};
use crate::error::StateError;
use crate::ids::{Key, LeaseId, Namespace};
use crate::tables::chain::Link;
use crate::tables::kv::{self, Kv};
use crate::tx::Tx;

/// Most rows that a brief Command names.
const BRIEF_ROWS: usize = 8;

/// Whether the Command names each row that it touches, and these are few.
pub(super) fn is_brief(txn: &KvTxn) -> bool {
    let mut operations = txn.then.iter().chain(&txn.otherwise);
    let names_its_row =
        |operation: &KvOperation| !matches!(operation.op, Some(Op::DeleteRange(_) | Op::List(_)));
    txn.compare.len() + txn.then.len() + txn.otherwise.len() <= BRIEF_ROWS && operations.all(names_its_row)
}

/// Applies the Command, or says why it is refused; it has changed nothing then.
pub(super) fn apply(tx: &mut Tx<'_, '_>, txn: KvTxn) -> Result<Result<KvOutcome, Reason>, StateError> {
    let namespace = Namespace::trusted(&txn.namespace);
    let mut succeeded = true;
    for compare in &txn.compare {
        succeeded = succeeded && holds(compare, find(tx, &namespace, &compare.key)?.as_ref());
    }
    let operations = if succeeded { txn.then } else { txn.otherwise };
    for operation in &operations {
        if let Err(reason) = check(tx, &namespace, operation)? {
            return Ok(Err(reason));
        }
    }
    if let Err(reason) = check_answer(tx, &namespace, &operations)? {
        return Ok(Err(reason));
    }
    // Lists share what they may return: the later ones end sooner, and say so.
    let mut list_bytes = MAX_RESULT_BYTES;
    let mut results = Vec::with_capacity(operations.len());
    for operation in operations {
        let result = carry_out(tx, &namespace, operation, &mut list_bytes)?;
        results.push(KvResult { result });
    }
    Ok(Ok(KvOutcome { succeeded, results }))
}

fn find(tx: &mut Tx<'_, '_>, namespace: &Namespace, key: &str) -> Result<Option<KvRecord>, StateError> {
    tx.get::<Kv>(&(namespace.clone(), Key::trusted(key)))
}

fn holds(compare: &KvCompare, found: Option<&KvRecord>) -> bool {
    use kv_compare::{Operator, Target};
    let number = |pick: fn(&KvRecord) -> u64, target: &u64| Some(found.map_or(0, pick).cmp(target));
    let ordering = match &compare.target {
        Some(Target::Exists(exists)) => Some(found.is_some().cmp(exists)),
        Some(Target::CreateRevision(target)) => number(|r| r.create_revision, target),
        Some(Target::ModRevision(target)) => number(|r| r.mod_revision, target),
        Some(Target::Version(target)) => number(|r| r.version, target),
        Some(Target::Value(value)) => found.map(|r| r.value.cmp(value)),
        Some(Target::Lease(target)) => number(|r| r.lease, target),
        None => None,
    };
    match compare.operator() {
        Operator::Equal => ordering.is_some_and(|o| o.is_eq()),
        Operator::NotEqual => ordering.is_none_or(|o| o.is_ne()),
        Operator::Greater => ordering.is_some_and(|o| o.is_gt()),
        Operator::Less => ordering.is_some_and(|o| o.is_lt()),
    }
}

/// Judges one operation before any is carried out. No key is changed twice within a Command (the service
/// sees to it), so what an operation finds now is what it will find.
fn check(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    operation: &KvOperation,
) -> Result<Result<(), Reason>, StateError> {
    match &operation.op {
        Some(Op::Put(put)) => {
            let room = match put {
                KvPut { ttl_ms: 1.., .. } => lease::check_count(tx)?,
                KvPut { lease: 1.., .. } if !is_bound(tx, namespace, put)? => {
                    lease::check_room(tx, namespace, LeaseId(put.lease))?
                }
                _ => Ok(()),
            };
            if let Err(reason) = room {
                return Ok(Err(reason));
            }
            check_key(tx, namespace, &put.key, put.precondition.as_ref())
        }
        Some(Op::Delete(delete)) => check_key(tx, namespace, &delete.key, delete.precondition.as_ref()),
        Some(Op::DeleteRange(range)) => check_range(tx, namespace, range),
        Some(Op::Lock(acquire)) => lock::check_free(tx, acquire),
        Some(Op::Unlock(release)) => lock::check_claimed(tx, release),
        Some(Op::Get(_) | Op::List(_)) | None => Ok(Ok(())),
    }
}

/// Whether a key is bound already to the lease that it is put under.
fn is_bound(tx: &mut Tx<'_, '_>, namespace: &Namespace, put: &KvPut) -> Result<bool, StateError> {
    let found = tx.get::<Kv>(&(namespace.clone(), Key::trusted(&put.key)))?;
    Ok(found.is_some_and(|record| record.lease == put.lease))
}

fn check_key(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    key: &str,
    precondition: Option<&KvPrecondition>,
) -> Result<Result<(), Reason>, StateError> {
    let Some(wanted) = precondition else { return Ok(Ok(())) };
    if let Some(fence) = &wanted.fence
        && let Err(reason) = lock::holds(tx, namespace, fence)?
    {
        return Ok(Err(reason));
    }
    let found = find(tx, namespace, key)?;
    let number = |pick: fn(&KvRecord) -> u64| found.as_ref().map_or(0, pick);
    let failed = if wanted.exists.is_some_and(|exists| exists != found.is_some()) {
        Some("exists")
    } else if wanted.mod_revision.is_some_and(|r| r != number(|f| f.mod_revision)) {
        Some("mod_revision")
    } else if wanted.version.is_some_and(|v| v != number(|f| f.version)) {
        Some("version")
    } else if wanted.value.as_ref().is_some_and(|v| found.as_ref().is_none_or(|f| f.value != *v)) {
        Some("value")
    } else if wanted.lease.is_some_and(|l| l != number(|f| f.lease)) {
        Some("lease")
    } else {
        None
    };
    Ok(match failed {
        None => Ok(()),
        Some(condition) => Err(precondition_failed(key, found.as_ref(), condition)),
    })
}

fn precondition_failed(key: &str, found: Option<&KvRecord>, condition: &str) -> Reason {
    Reason::PreconditionFailed(PreconditionFailed {
        key: key.to_owned(),
        create_revision: found.map_or(0, |f| f.create_revision),
        mod_revision: found.map_or(0, |f| f.mod_revision),
        version: found.map_or(0, |f| f.version),
        condition: condition.to_owned(),
    })
}

fn check_range(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    range: &KvDeleteRange,
) -> Result<Result<(), Reason>, StateError> {
    let (max_keys, max_bytes) =
        if range.previous { (MAX_RESULT_KEYS, MAX_RESULT_BYTES) } else { (MAX_RANGE_KEYS, MAX_RANGE_BYTES) };
    let (mut keys, mut bytes) = (0, 0);
    let mut refused = None;
    scan(tx, namespace, range.span.clone().unwrap_or_default(), |key, row| {
        keys += 1;
        bytes += row.len() as u64;
        if keys > max_keys || bytes > max_bytes {
            refused = Some(Reason::RangeTooLarge(RangeTooLarge { max_keys, max_bytes }));
        } else if let Some(limit) = range.unchanged_since {
            let record = decode(row)?;
            if record.mod_revision > limit {
                refused = Some(precondition_failed(key, Some(&record), "unchanged_since"));
            }
        }
        Ok(refused.is_none())
    })?;
    Ok(refused.map_or(Ok(()), Err))
}

/// Refuses what would return more than one answer may have: the entries read and the previous ones of several
/// operations. What the Command itself writes is bounded by its own size.
fn check_answer(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    operations: &[KvOperation],
) -> Result<Result<(), Reason>, StateError> {
    let (mut keys, mut bytes) = (0, 0);
    for operation in operations {
        let key = match &operation.op {
            Some(Op::Get(get)) => &get.key,
            Some(Op::Put(put)) if put.previous => &put.key,
            Some(Op::Delete(delete)) if delete.previous => &delete.key,
            _ => continue,
        };
        keys += 1;
        bytes += find(tx, namespace, key)?.map_or(0, |record| record.encoded_len() as u64);
    }
    let is_too_large = keys > 1 && bytes > MAX_RESULT_BYTES;
    let (max_keys, max_bytes) = (MAX_RESULT_KEYS, MAX_RESULT_BYTES);
    Ok(if is_too_large { Err(Reason::RangeTooLarge(RangeTooLarge { max_keys, max_bytes })) } else { Ok(()) })
}

fn carry_out(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    operation: KvOperation,
    list_bytes: &mut u64,
) -> Result<Option<kv_result::Result>, StateError> {
    use kv_result::Result as R;
    Ok(match operation.op {
        Some(Op::Put(put)) => Some(R::Put(carry_out_put(tx, namespace, put)?)),
        Some(Op::Delete(d)) => Some(R::Delete(carry_out_delete(tx, namespace, [d.key].into(), d.previous)?)),
        Some(Op::DeleteRange(range)) => {
            let mut keys = Vec::new();
            scan(tx, namespace, range.span.unwrap_or_default(), |key, _| {
                keys.push(key.to_owned());
                Ok(true)
            })?;
            Some(R::Delete(carry_out_delete(tx, namespace, keys, range.previous)?))
        }
        Some(Op::Get(get)) => {
            let record = find(tx, namespace, &get.key)?;
            let entry = record.map(|record| KvEntry { key: get.key, record: Some(record) });
            Some(R::Get(KvGetResult { entry }))
        }
        Some(Op::List(list)) => Some(R::List(carry_out_list(tx, namespace, list, list_bytes)?)),
        Some(Op::Lock(acquire)) => Some(R::Lock(lock::take(tx, acquire)?)),
        // That the claim is there was checked.
        Some(Op::Unlock(release)) => lock::release(tx, &release)?.ok().map(R::Unlock),
        None => None,
    })
}

fn carry_out_put(tx: &mut Tx<'_, '_>, namespace: &Namespace, put: KvPut) -> Result<KvPutResult, StateError> {
    let (revision, time_ms) = (tx.revision().0, tx.time_ms());
    let key = Key::trusted(&put.key);
    let lease = match put.ttl_ms {
        0 => put.lease,
        ttl_ms => lease::make_for_key(tx, namespace, ttl_ms)?.0,
    };
    let before = tx.update::<Kv>((namespace.clone(), key), |before| {
        Some(KvRecord {
            value: put.value,
            create_revision: before.map_or(revision, |b| b.create_revision),
            mod_revision: revision,
            version: before.map_or(0, |b| b.version) + 1,
            flags: put.flags,
            content_type: put.content_type,
            update_time_ms: time_ms,
            lease,
        })
    })?;
    leave_lease(tx, namespace, before.as_ref(), lease)?;
    let previous = before.filter(|_| put.previous);
    Ok(KvPutResult { previous: previous.map(|record| KvEntry { key: put.key, record: Some(record) }) })
}

/// Ends the lease that an entry was bound to and no longer is, if it was the entry's own.
fn leave_lease(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    before: Option<&KvRecord>,
    now: u64,
) -> Result<(), StateError> {
    match before {
        Some(before) if before.lease != 0 && before.lease != now => {
            lease::leave(tx, namespace, LeaseId(before.lease))
        }
        _ => Ok(()),
    }
}

fn carry_out_delete(
    tx: &mut Tx<'_, '_>,
    namespace: &Namespace,
    keys: Vec<String>,
    with_previous: bool,
) -> Result<KvDeleteResult, StateError> {
    let mut result = KvDeleteResult::default();
    for key in keys {
        let name = (namespace.clone(), Key::trusted(&key));
        if let Some(record) = tx.update::<Kv>(name, |_| None)? {
            leave_lease(tx, namespace, Some(&record), 0)?;
            result.deleted += 1;
            if with_previous {
                result.previous.push(KvEntry { key, record: Some(record) });
            }
        }
    }
    Ok(result)
}

fn carry_out_list(
    tx: &Tx<'_, '_>,
    namespace: &Namespace,
    list: KvList,
    left_bytes: &mut u64,
) -> Result<KvListResult, StateError> {
    let mut result = KvListResult::default();
    let limit = u64::from(list.limit).clamp(1, MAX_RESULT_KEYS) as usize;
    // A value greater than all that may be returned is still returned alone, or nobody could list it.
    let mut may_exceed = *left_bytes == MAX_RESULT_BYTES;
    scan(tx, namespace, list.span.unwrap_or_default(), |key, row| {
        let bytes = if list.keys_only { key.len() } else { key.len() + row.len() } as u64;
        result.truncated = result.entries.len() == limit || (bytes > *left_bytes && !may_exceed);
        if result.truncated {
            return Ok(false);
        }
        *left_bytes = left_bytes.saturating_sub(bytes);
        may_exceed = false;
        let mut record = decode(row)?;
        if list.keys_only {
            record.value = Default::default();
        }
        result.entries.push(KvEntry { key: key.to_owned(), record: Some(record) });
        Ok(true)
    })?;
    Ok(result)
}

/// Visits the records of a span in key order until `visit` says to stop.
fn scan(
    tx: &Tx<'_, '_>,
    namespace: &Namespace,
    span: crate::command::KeySpan,
    mut visit: impl FnMut(&str, &[u8]) -> Result<bool, StateError>,
) -> Result<(), StateError> {
    let (from, to) = kv::row_bounds(namespace, &span);
    let bounds = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    let rows = tx.rows();
    for row in rows.tables.kv.range(&rows.txn, &bounds)? {
        let (row_key, row) = row?;
        if !visit(kv::key_of(row_key)?, Link::split(row)?.1)? {
            break;
        }
    }
    Ok(())
}

fn decode(row: &[u8]) -> Result<KvRecord, StateError> {
    KvRecord::decode(row).map_err(|e| StateError::corrupt(kv::TABLE.name, e.to_string()))
}
