//! Lists keys, in pages of one snapshot.

use futures_util::{Stream, TryStreamExt, stream};
use konsul_proto::v1::{Entry, ListRequest, ListResponse, Order};

use super::Kv;
use super::options::{awaitable, read_options};
use crate::error::Error;
use crate::keys::Keys;

/// A listing. Awaited, it is the first page; [`all`](List::all), [`entries`](List::entries) and [`pages`](List::pages)
/// follow the page tokens, and all pages show the same revision.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// let kv = client.kv();
/// for entry in kv.list("app/").all().await? {
///     println!("{} = {:?}", entry.key, entry.value);
/// }
/// // What is in the folder, without what is below its subfolders.
/// let folder = kv.list("app/").separator("/").keys_only().await?;
/// println!("{} keys, {:?}", folder.entries.len(), folder.common_prefixes);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until it is awaited"]
pub struct List {
    kv: Kv,
    request: ListRequest,
}

impl List {
    pub(super) fn new(kv: &Kv, keys: Keys) -> Self {
        let request = ListRequest {
            namespace: kv.scope.namespace.clone(),
            selector: Some(keys.into()),
            ..Default::default()
        };
        Self { kv: kv.clone(), request }
    }

    /// Folder view: keys with this separator after the prefix are rolled up into `common_prefixes`.
    pub fn separator(mut self, separator: impl Into<String>) -> Self {
        self.request.separator = separator.into();
        self
    }

    /// Leaves the values out.
    pub fn keys_only(mut self) -> Self {
        self.request.keys_only = true;
        self
    }

    /// From the greatest key to the smallest.
    pub fn descending(mut self) -> Self {
        self.request.order = Order::Descending.into();
        self
    }

    /// Lists the keys as they were at this revision. 0: now.
    pub fn at_revision(mut self, revision: u64) -> Self {
        self.request.revision = revision;
        self
    }

    /// Most entries and common prefixes in a page, 1 to 10,000. Default: 1,000.
    pub fn page_size(mut self, entries: u32) -> Self {
        self.request.page_size = entries;
        self
    }

    /// Goes on after the page that had this `next_page_token`; everything but the page size must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> Self {
        self.request.page_token = token.into();
        self
    }

    read_options!();

    /// Answers only with how many keys there are, in `count`. Not with a separator or a page size.
    pub fn count_only(mut self) -> Self {
        self.request.count_only = true;
        self
    }

    /// How many keys there are.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the revision is compacted.
    pub async fn count(self) -> Result<u64, Error> {
        Ok(self.count_only().send().await?.count)
    }

    /// All entries. They must fit into memory.
    ///
    /// # Errors
    /// [`Error::Compacted`] when the revision is or becomes compacted.
    pub async fn all(self) -> Result<Vec<Entry>, Error> {
        self.entries().try_collect().await
    }

    /// The entries one by one, fetched a page at a time.
    pub fn entries(self) -> impl Stream<Item = Result<Entry, Error>> + Send + Unpin {
        self.pages().map_ok(|page| stream::iter(page.entries.into_iter().map(Ok))).try_flatten()
    }

    /// The pages, each fetched when it is asked for. Ends after the last one or an error.
    pub fn pages(self) -> impl Stream<Item = Result<ListResponse, Error>> + Send + Unpin {
        Box::pin(stream::try_unfold(Some(self), |next| async move {
            let Some(list) = next else { return Ok(None) };
            let page = list.clone().send().await?;
            let next = (!page.next_page_token.is_empty()).then(|| list.following(&page));
            Ok(Some((page, next)))
        }))
    }

    /// The request for the page after this one, which pins the revision.
    fn following(mut self, page: &ListResponse) -> Self {
        self.request.page_token.clone_from(&page.next_page_token);
        self.request.revision = 0;
        self
    }

    async fn send(self) -> Result<ListResponse, Error> {
        self.kv
            .scope
            .read()
            .send(self.request, |transport, limit, request| async move {
                Kv::stub(transport, limit).list(request).await
            })
            .await
    }
}

awaitable!(List => ListResponse);
