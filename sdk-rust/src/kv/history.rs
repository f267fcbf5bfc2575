//! The versions of one key.

use futures_util::{Stream, TryStreamExt, stream};
use konsul_proto::v1::{HistoryRequest, HistoryResponse, KeyVersion, Order};

use super::Kv;
use super::options::{awaitable, read_options};
use crate::error::Error;

/// The versions of a key that are not compacted yet, newest first. Awaited, it is the first page.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// for version in client.kv().history("app/port").all().await? {
///     println!("revision {}: {:?}", version.revision, version.entry.map(|entry| entry.value));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct History {
    kv: Kv,
    request: HistoryRequest,
}

impl History {
    pub(super) fn new(kv: &Kv, key: String) -> Self {
        let request = HistoryRequest { namespace: kv.scope.namespace.clone(), key, ..Default::default() };
        Self { kv: kv.clone(), request }
    }

    /// From the oldest version to the newest.
    pub fn ascending(mut self) -> Self {
        self.request.order = Order::Ascending.into();
        self
    }

    /// Most versions in a page, 1 to 1,000. Default: 100.
    pub fn page_size(mut self, versions: u32) -> Self {
        self.request.page_size = versions;
        self
    }

    /// Goes on after the page that had this `next_page_token`; everything but the page size must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> Self {
        self.request.page_token = token.into();
        self
    }

    read_options!();

    /// All versions. They must fit into memory.
    ///
    /// # Errors
    /// The server's status.
    pub async fn all(self) -> Result<Vec<KeyVersion>, Error> {
        let versions = |mut all: Vec<KeyVersion>, page: HistoryResponse| async move {
            all.extend(page.versions);
            Ok(all)
        };
        self.pages().try_fold(Vec::new(), versions).await
    }

    /// The pages, each fetched when it is asked for. Ends after the last one or an error.
    pub fn pages(self) -> impl Stream<Item = Result<HistoryResponse, Error>> + Send + Unpin {
        Box::pin(stream::try_unfold(Some(self), |next| async move {
            let Some(history) = next else { return Ok(None) };
            let page = history.clone().send().await?;
            let next =
                (!page.next_page_token.is_empty()).then(|| history.page_token(page.next_page_token.clone()));
            Ok(Some((page, next)))
        }))
    }

    async fn send(self) -> Result<HistoryResponse, Error> {
        self.kv
            .scope
            .read()
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).history(request).await
            })
            .await
    }
}

awaitable!(History => HistoryResponse);
