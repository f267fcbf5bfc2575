//! A watch: a stream of changes that reconnects and resumes by itself. Here is its outside; `driver` opens streams, `cursor` knows where it
//! stands.

mod cursor;
mod driver;
mod event;
mod options;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Stream, StreamExt, stream};

pub use event::WatchEvent;
pub use options::WatchOptions;

use crate::error::Error;
use crate::kv::Kv;
use driver::Driver;

/// A stream of [`WatchEvent`]s, which reconnects by itself and goes on without gap or repeat.
///
/// It ends after an error, and has one only where going on is impossible: the changes to resume with are
/// compacted ([`Error::Compacted`]), the caller may not watch (PERMISSION_DENIED), the request was wrong (INVALID_ARGUMENT), or
/// no server could be reached within the client's timeout when it was first opened. Once it is open it looks for a
/// server for as long as it is polled.
///
/// Nothing is buffered beyond one message of the stream: a consumer that does not poll makes the server wait. A revision
/// that changed very much comes in several messages, and its changes are handed out as they come; the last of them says
/// so (`last_of_revision`), for a consumer that must not act on half a revision.
///
/// ```no_run
/// # async fn example(client: konsul_client::Client) -> Result<(), konsul_client::Error> {
/// use std::collections::BTreeMap;
/// use konsul_client::{WatchEvent, WatchOptions};
///
/// let mut config = BTreeMap::new();
/// let mut watch = client.kv().watch(WatchOptions::prefix("app/").initial_state());
/// while let Some(event) = watch.next().await {
///     match event? {
///         WatchEvent::Reset { .. } => config.clear(),
///         WatchEvent::State { entry, .. } | WatchEvent::Put { entry, .. } => {
///             config.insert(entry.key, entry.value);
///         }
///         WatchEvent::Delete { entry, .. } => {
///             config.remove(&entry.key);
///         }
///         WatchEvent::Synced { revision, .. } => println!("complete as of {revision}: {config:?}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a watch does nothing unless it is polled"]
pub struct Watch {
    events: Pin<Box<dyn Stream<Item = Result<WatchEvent, Error>> + Send>>,
}

impl Watch {
    pub(crate) fn new(kv: &Kv, options: WatchOptions) -> Self {
        let driver = Driver::new(kv.clone(), options);
        let events = stream::unfold(driver, |mut driver| async move {
            let event = driver.next().await?;
            Some((event, driver))
        });
        Self { events: Box::pin(events) }
    }

    /// The next event; `None` after an error. The same as `StreamExt::next`, without the import.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        self.events.next().await
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
