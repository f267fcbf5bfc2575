//! The reads of KV: Get, BatchGet, List, History.

use konsul_proto::v1::{self, list_request};
use konsul_state::command::KeySpan;
use konsul_state::view::{Cursor, Direction, Item, ListQuery, VersionsQuery};
use konsul_state::{Namespace, Revision};

use crate::convert;
use crate::core::Core;
use crate::error::ServiceError;
use crate::limits;
use crate::page_token::{PageToken, request_hash};
use crate::parse;

pub(super) async fn get(core: &Core, request: v1::GetRequest) -> Result<v1::GetResponse, ServiceError> {
    let namespace = parse::namespace(&request.namespace)?;
    let key = parse::key("key", &request.key)?;
    let at = parse::at(request.revision);
    let view = core.view(request.read.as_ref(), None).await?;
    let revision = at.unwrap_or(view.revision());
    match view.kv_get(&namespace, &key, at)? {
        Some(record) => {
            Ok(v1::GetResponse { revision: revision.0, entry: Some(convert::entry(request.key, record)) })
        }
        None => Err(ServiceError::KeyNotFound { key: request.key, revision }),
    }
}

pub(super) async fn batch_get(
    core: &Core,
    request: v1::BatchGetRequest,
) -> Result<v1::BatchGetResponse, ServiceError> {
    let namespace = parse::namespace(&request.namespace)?;
    if !(1..=limits::BATCH_KEYS).contains(&request.keys.len()) {
        return Err(ServiceError::field("keys", format!("must be 1 to {} keys", limits::BATCH_KEYS)));
    }
    let keys = request.keys.iter().enumerate();
    let keys: Vec<_> =
        keys.map(|(i, key)| parse::key(&format!("keys[{i}]"), key)).collect::<Result<_, _>>()?;
    let at = parse::at(request.revision);
    let view = core.view(request.read.as_ref(), None).await?;
    let revision = at.unwrap_or(view.revision()).0;
    let mut response = v1::BatchGetResponse { revision, ..Default::default() };
    let mut bytes = 0;
    for (key, text) in keys.iter().zip(request.keys) {
        let Some(record) = view.kv_get(&namespace, key, at)? else {
            response.missing.push(text);
            continue;
        };
        bytes += record.value.len();
        if bytes > limits::BATCH_GET_BYTES && !response.entries.is_empty() {
            return Err(ServiceError::AnswerTooLarge { limit: limits::BATCH_GET_BYTES });
        }
        response.entries.push(convert::entry(text, record));
    }
    Ok(response)
}

pub(super) async fn list(
    core: &Core,
    mut request: v1::ListRequest,
) -> Result<v1::ListResponse, ServiceError> {
    let namespace = parse::namespace(&request.namespace)?;
    let span = match &request.selector {
        None => KeySpan::default(),
        Some(list_request::Selector::Prefix(prefix)) => parse::prefix("prefix", prefix)?,
        Some(list_request::Selector::Range(range)) => parse::range("range", range)?,
    };
    if request.count_only {
        return count(core, &namespace, &span, &request).await;
    }
    if request.separator.len() > limits::SEPARATOR_BYTES {
        let problem = format!("must be at most {} bytes", limits::SEPARATOR_BYTES);
        return Err(ServiceError::field("separator", problem));
    }
    let direction = parse::direction(request.order, Direction::Ascending)?;
    let limit = parse::page_size("page_size", request.page_size, limits::LIST_PAGE)?;
    if request.revision != 0 && !request.page_token.is_empty() {
        return Err(ServiceError::field("revision", "must be 0 with a page_token, which has its own"));
    }
    let read = request.read.take();
    let at = parse::at(std::mem::take(&mut request.revision));
    let token = std::mem::take(&mut request.page_token);
    request.page_size = 0;
    let hash = request_hash("List", &request);
    let token = PageToken::decode(&token, hash)?;
    let pinned = token.as_ref().map(PageToken::revision);
    let after = token.map(PageToken::into_cursor).transpose()?;

    let view = core.view(read.as_ref(), pinned).await?;
    let at = pinned.or(at);
    let revision = at.unwrap_or(view.revision());
    let page = view.kv_list(&ListQuery {
        namespace: &namespace,
        span: &span,
        at,
        direction,
        after: after.as_ref(),
        separator: &request.separator,
        keys_only: request.keys_only,
        limit,
        max_bytes: limits::PAGE_BYTES,
        max_rows: limits::PAGE_ROWS,
    })?;
    let next = page.next.map(|cursor| PageToken::of_keys(revision, hash, cursor).encode());
    let mut response = v1::ListResponse {
        revision: revision.0,
        count: page.items.len() as u64,
        next_page_token: next.unwrap_or_default(),
        ..Default::default()
    };
    for item in page.items {
        match item {
            Item::Entry(key, record) => response.entries.push(convert::entry(key, record)),
            Item::Folder(folder) => response.common_prefixes.push(folder),
        }
    }
    Ok(response)
}

/// Counts in steps at one revision, and lets other calls run between them.
async fn count(
    core: &Core,
    namespace: &Namespace,
    span: &KeySpan,
    request: &v1::ListRequest,
) -> Result<v1::ListResponse, ServiceError> {
    let set = [
        ("separator", !request.separator.is_empty()),
        ("page_size", request.page_size != 0),
        ("page_token", !request.page_token.is_empty()),
    ];
    if let Some((field, _)) = set.into_iter().find(|(_, set)| *set) {
        return Err(ServiceError::field(field, "must be unset with count_only"));
    }
    parse::direction(request.order, Direction::Ascending)?;
    let mut view = core.view(request.read.as_ref(), None).await?;
    let at: Revision = parse::at(request.revision).unwrap_or(view.revision());
    let mut keys = 0;
    let mut after: Option<Cursor> = None;
    loop {
        let part = view.kv_count(namespace, span, Some(at), after.as_ref(), limits::PAGE_ROWS)?;
        drop(view);
        keys += part.keys;
        after = part.next;
        if after.is_none() {
            return Ok(v1::ListResponse { revision: at.0, count: keys, ..Default::default() });
        }
        tokio::task::yield_now().await;
        view = core.state.view()?;
    }
}

pub(super) async fn history(
    core: &Core,
    mut request: v1::HistoryRequest,
) -> Result<v1::HistoryResponse, ServiceError> {
    let namespace = parse::namespace(&request.namespace)?;
    let key = parse::key("key", &request.key)?;
    let direction = parse::direction(request.order, Direction::Descending)?;
    let limit = parse::page_size("page_size", request.page_size, limits::HISTORY_PAGE)?;
    let read = request.read.take();
    let token = std::mem::take(&mut request.page_token);
    request.page_size = 0;
    let hash = request_hash("History", &request);
    let token = PageToken::decode(&token, hash)?;
    let pinned = token.as_ref().map(PageToken::revision);
    let after = token.map(|token| token.version()).transpose()?;

    let view = core.view(read.as_ref(), pinned).await?;
    let compact_revision = view.compact_revision();
    let until = pinned.unwrap_or(view.revision());
    if until < compact_revision {
        return Err(ServiceError::Compacted { revision: until, compact_revision });
    }
    let page = view.kv_versions(&VersionsQuery {
        namespace: &namespace,
        key: &key,
        until,
        direction,
        after,
        limit,
        max_bytes: limits::PAGE_BYTES,
    })?;
    let last = page.versions.last().filter(|_| page.more);
    let next = last.map(|last| PageToken::of_versions(until, hash, last.revision).encode());
    let version = |version: konsul_state::view::KvVersion| v1::KeyVersion {
        revision: version.revision.0,
        deleted: version.record.is_none(),
        entry: version.record.map(|record| convert::entry(request.key.clone(), record)),
        time: Some(convert::timestamp(version.time_ms)),
    };
    Ok(v1::HistoryResponse {
        revision: until.0,
        versions: page.versions.into_iter().map(version).collect(),
        compact_revision: compact_revision.0,
        next_page_token: next.unwrap_or_default(),
    })
}

pub(super) async fn find_revision(
    core: &Core,
    request: v1::FindRevisionRequest,
) -> Result<v1::FindRevisionResponse, ServiceError> {
    let time = request.time.ok_or_else(|| ServiceError::field("time", "must be set"))?;
    let ms = parse::time_ms("time", &time)?;
    let view = core.view(request.read.as_ref(), None).await?;
    let (revision, compact_revision) = (view.revision_at(ms)?, view.compact_revision());
    // When the compacted revision was committed is not known any more, unless it is the newest one.
    let is_now = revision == view.revision() && ms >= view.time_ms();
    if revision == compact_revision && revision.0 > 0 && !is_now {
        return Err(ServiceError::Compacted { revision, compact_revision });
    }
    Ok(v1::FindRevisionResponse { revision: revision.0 })
}
